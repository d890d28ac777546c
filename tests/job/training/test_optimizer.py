"""Which parameters decay, and the learning rate of every optimizer step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from job.config import Training
from job.errors import Refused
from job.training import optimizer as optim
from tests.support import families
from tests.support.tiny import tiny_model


def rates(steps: int, **settings: Any) -> list[float]:
    """The learning rate used in each step; the peak is 1."""
    training = Training(learning_rate=1.0, **settings)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    schedule = optim.schedule(optimizer, training, steps)
    used = []
    for _ in range(steps):
        used.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return used


def test_matrices_decay_biases_and_norms_do_not(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tiny_model(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True)
    frozen = model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    made = optim.optimizer(model, Training(weight_decay=0.3, learning_rate=0.2))
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in made.param_groups) == len(decay)
    for name, parameter in model.named_parameters():
        if parameter is frozen:
            assert id(parameter) not in decay
        else:
            free = name.endswith("bias") or "LayerNorm" in name
            assert decay[id(parameter)] == (0.0 if free else 0.3), name
    assert set(decay.values()) == {0.0, 0.3}
    assert {group["lr"] for group in made.param_groups} == {0.2}
    assert len(made.param_groups) == 2, "as in checkpoints that were made before there were layer-wise rates"


def test_each_layer_has_the_rate_of_the_next_times_the_factor() -> None:
    model = families.network("bert", head=True)
    training = Training(weight_decay=0.3, learning_rate=0.8, layer_lr_decay=0.5)
    made = optim.optimizer(model, training)
    rate = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    expected = {"bert.embeddings": 0.1, "bert.encoder.layer.0": 0.2, "bert.encoder.layer.1": 0.4, "bert.pooler": 0.8,
                "classifier": 0.8}  # fmt: skip
    for name, parameter in model.named_parameters():
        [wanted] = [value for part, value in expected.items() if name.startswith(part + ".")]
        assert rate[id(parameter)] == pytest.approx(wanted), name
        assert decay[id(parameter)] == (0.3 if parameter.ndim >= 2 else 0.0), name
    assert optim.describe_rates(model, training) == "embeddings 0.1, layers (1 to 2) 0.2 0.4, head 0.8"
    assert float(optim.schedule(made, training, 10).optimizer.param_groups[0]["initial_lr"]) == 0.8, "what is logged"


def test_a_single_rate_is_not_logged() -> None:
    assert optim.describe_rates(families.network("bert", head=True), Training()) is None


def test_the_log_says_that_shared_layers_have_one_rate() -> None:
    training = Training(learning_rate=1.0, layer_lr_decay=0.5)
    line = optim.describe_rates(families.network("albert", head=True), training)
    assert line == "embeddings 0.25, the weights shared by 2 layers 0.5, head 1"


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_every_trained_parameter_is_in_exactly_one_group(family: str, weight_decay: float) -> None:
    with torch.device("meta"):
        model = families.network(family, head=True)
    model.get_input_embeddings().requires_grad_(False)
    made = optim.optimizer(model, Training(layer_lr_decay=0.9, weight_decay=weight_decay))
    grouped = sorted(id(p) for group in made.param_groups for p in group["params"])
    assert grouped == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_the_schedule_keeps_the_ratio_of_the_rates() -> None:
    training = Training(learning_rate=1.0, layer_lr_decay=0.5, warmup_ratio=0.0)
    made = optim.optimizer(families.network("bert", head=True), training)
    schedule = optim.schedule(made, training, 4)
    for left in (1.0, 0.75, 0.5, 0.25):
        assert schedule.get_last_lr() == pytest.approx(
            [left * rate for rate in (1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125)]
        )
        made.step()
        schedule.step()


def test_a_model_without_layers_has_no_layer_wise_rates() -> None:
    model = families.network("bert", head=True)
    model.bert.encoder.requires_grad_(False)
    with pytest.raises(Refused, match="--layer_lr_decay: BertForSequenceClassification has no list of layers: leave"):
        optim.optimizer(model, Training(layer_lr_decay=0.9))


@pytest.mark.parametrize(
    ("settings", "examples", "steps"),
    [
        ({"num_train_epochs": 3.0}, 64, 6),
        ({"num_train_epochs": 3.0}, 65, 9),
        ({"num_train_epochs": 0.5}, 96, 2),
        ({"num_train_epochs": 0.001}, 96, 1),
        ({"num_train_epochs": 3.0, "max_steps": 5}, 65, 5),
        ({"num_train_epochs": 0.07}, 3200, 7),  # 0.07 x 100 is a little above 7 in floating point
    ],
)
def test_steps_are_optimizer_steps(settings: Mapping[str, Any], examples: int, steps: int) -> None:
    assert optim.total_steps(Training(train_batch_size=32, **settings), examples) == steps


def test_the_rate_rises_over_the_warm_up_and_falls_to_the_end() -> None:
    expected = [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert rates(10, warmup_steps=4) == pytest.approx(expected)
    assert rates(10, warmup_ratio=0.4) == pytest.approx(expected)
    assert rates(10, warmup_ratio=0.9, warmup_steps=4) == pytest.approx(expected)
    assert rates(10, warmup_steps=0, warmup_ratio=0.9)[0] == 1


@pytest.mark.parametrize(
    ("ratio", "steps", "warmup"),
    [(0.1, 1, 0), (0.9, 1, 0), (0.1, 9, 0), (0.1, 10, 1), (0.1, 19, 1), (0.29, 100, 29), (0.9, 2, 1)],
)  # 0.29 x 100 is a little below 29 in floating point
def test_a_fraction_of_the_steps_is_rounded_down(ratio: float, steps: int, warmup: int) -> None:
    assert rates(steps, warmup_ratio=ratio).index(1.0) == warmup


def test_a_warmup_that_never_ends_is_rejected() -> None:
    assert rates(6, warmup_steps=5)[-1] == 1.0
    with pytest.raises(Refused, match=r"^--warmup_steps 6 must be below the 6 steps of the run, or .* lower it"):
        rates(6, warmup_steps=6)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_every_shape_peaks_at_the_learning_rate(kind: str) -> None:
    assert max(rates(20, lr_scheduler_type=kind, warmup_steps=5)) == pytest.approx(1.0)

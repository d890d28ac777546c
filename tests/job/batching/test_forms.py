"""A run uses the first form whose results equal those of single rows; a model that draws random numbers is rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from job.batching import collate, form_check, forms
from job.batching.planner import EQUAL, PADDED
from job.config import Config, Model
from job.config.tasks import SINGLE_LABEL
from job.data.dataset import Split
from job.errors import Refused
from job.model import loading, packed_attention, tokenizers
from job.model.attention_spec import AttentionSpec
from job.model.packed_attention import Layout
from tests.support import families
from tests.support.pairs import LENGTHS, enlarge_weights, network, pairs


def tokenizer(folder: Path) -> Any:
    settings = Model(model_name_or_path=str(folder))
    return tokenizers.load(settings, loading.load_config(settings))


def chosen(trained: Any, folder: Path, splits: Sequence[Split] | None = None, **changes: Any) -> forms.Form:
    config = Config(model=replace(Config().model, **changes))
    return forms.choose(config, trained, tokenizer(folder), splits or [pairs(SINGLE_LABEL)], Accelerator(cpu=True))


def test_a_model_is_packed_and_prepared_for_it(tmp_path: Path) -> None:
    trained = network(tmp_path)
    form = chosen(trained, tmp_path)
    assert form.packed and str(form) == "packed"
    inputs = form.collate(pairs(SINGLE_LABEL))(np.arange(2))[0]
    assert "packed" in inputs and inputs["input_ids"].shape == (1, sum(LENGTHS[:2]))
    assert trained(**inputs).logits.shape == (2, 3)


def test_in_bf16_on_a_cpu_token_counts_are_rounded_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    form = chosen(network(tmp_path), tmp_path)
    inputs = form.collate(pairs(SINGLE_LABEL))(np.arange(4, 7))[0]
    assert form.shape.round_to == 32
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == (1, 32)
    assert inputs["packed"].lengths == tuple(LENGTHS[4:7])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"packing": False}, "--no_packing"),
        ({"attn_implementation": "eager"}, "--attn_implementation eager"),
        ({"torch_compile": True}, "--torch_compile would recompile for every batch shape on a CPU"),
    ],
)
def test_flags_that_disable_packing(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    form = chosen(network(tmp_path), tmp_path, **changes)
    assert form.shape == PADDED and str(form) == f"padded: {reason}"
    assert "attention_mask" in form.collate(pairs(SINGLE_LABEL))(np.arange(2))[0]


def test_fixed_widths_are_padded(tmp_path: Path) -> None:
    form = chosen(network(tmp_path), tmp_path, [replace(pairs(SINGLE_LABEL), pad_to=64)])
    assert str(form) == "padded: --pad_to_max_length"


def test_outputs_that_are_not_finite_on_another_process_are_not_compared_on_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else this process would compare forms, and wait for the other one's result."""
    monkeypatch.setattr(form_check.distributed, "all_reduce_any", lambda accelerator, flag: True)
    assert str(chosen(network(tmp_path), tmp_path)) == "padded: the model's outputs are not finite"


# ---------------------------------------------------------------------------------------------------------------------
# Wrong packed forms: the check detects each


def sequences_see_each_other(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, spec: AttentionSpec
) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1).to(v.dtype), v)


def window_of_long_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, spec: AttentionSpec
) -> torch.Tensor:
    """Correct for all rows but the longest."""
    window = None if max(layout.lengths) < max(LENGTHS) else max(LENGTHS) - 3
    q_all = q if len(q) == len(k) else k.new_zeros(k.shape).index_copy(0, layout.bounds[:-1].long(), q)
    actual = packed_attention.cpu_attention.attend(
        q_all, k, v, layout.lengths, AttentionSpec(0.0, spec.scale, False, window)
    )
    return actual if len(q) == len(k) else actual[layout.bounds[:-1].long()]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: float, gradient: float) -> torch.Tensor:
        ctx.factor = gradient
        return x * output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.factor * gradient, None, None


def scaled(output: float, gradient: float) -> Callable[..., torch.Tensor]:
    """Attention whose output and gradient are wrong by these factors."""
    return lambda *args: _Scaled.apply(ATTEND(*args), output, gradient)


def wrong_gradient(*args: Any) -> torch.Tensor:
    return scaled(1.0, 1.1)(*args)


ATTEND = packed_attention.attend


def positions_run_on(ids: np.ndarray, bounds: np.ndarray, padding_position: int | None) -> np.ndarray:
    return np.arange(bounds[-1]) % 64


def break_attention(monkeypatch: pytest.MonkeyPatch, attend: Callable[..., torch.Tensor]) -> None:
    from job.model import last_layer

    monkeypatch.setattr(packed_attention, "attend", attend)
    monkeypatch.setattr(last_layer, "attend", attend)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("broken", [sequences_see_each_other, window_of_long_rows, wrong_gradient, "positions"])
def test_a_wrong_packed_forward_pass_is_detected_and_the_model_restored(
    tmp_path: Path, broken: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", precision)
    trained = network(tmp_path)
    before = trained.config._attn_implementation
    if broken == "positions":
        monkeypatch.setattr(collate, "positions", positions_run_on)
    else:
        break_attention(monkeypatch, broken)
    form = chosen(trained, tmp_path)
    assert str(form).startswith("padded: packed rows differ from rows computed one by one: ")
    assert ("gradients" in str(form)) == (broken is wrong_gradient)
    assert trained.config._attn_implementation == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trained.modules())


@pytest.mark.parametrize(("output", "gradient", "part"), [(1.001, 1.0, "hidden states"), (1.0, 1.01, "gradients")])
def test_small_errors_are_detected_in_fp32(
    output: float, gradient: float, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_attention(monkeypatch, scaled(output, gradient))
    form = chosen(network(tmp_path), tmp_path)
    assert str(form).startswith(f"padded: packed rows differ from rows computed one by one: {part} by ")


def test_a_kernel_that_fails_is_a_reason_to_pad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> torch.Tensor:
        raise RuntimeError("head size 7\nis not supported")

    break_attention(monkeypatch, fails)
    form = chosen(network(tmp_path), tmp_path)
    assert str(form) == "padded: the packed forward pass fails (head size 7 is not supported)"


@pytest.mark.parametrize(
    ("precision", "dropout", "training", "packed"),
    [("no", 0.1, True, False), ("no", 0.1, False, True), ("no", 0.0, True, True), ("bf16", 0.1, True, True)],
)
def test_on_a_gpu_attention_dropout_in_fp32_is_padded(
    tmp_path: Path, precision: str, dropout: float, training: bool, packed: bool
) -> None:
    on_gpu = SimpleNamespace(device=torch.device("cuda"), mixed_precision=precision)
    config = replace(Config(), training=replace(Config().training, do_train=training))
    trained = network(tmp_path, dropout=dropout)
    reason = forms._against_packing(config, trained, [pairs(SINGLE_LABEL)], on_gpu)
    assert (reason is None) == packed
    assert packed or "--mixed_precision bf16 or --attention_dropout 0" in str(reason)


def of(*lengths: int) -> Split:
    rng = np.random.default_rng(sum(lengths))
    table = {"input_ids": [rng.integers(5, 41, n) for n in lengths], "token_type_ids": [[0] * n for n in lengths]}
    tokens = Dataset.from_dict(table).with_format("numpy")
    return Split(tokens, np.array(lengths, dtype=np.int32), None, np.arange(len(lengths)))


SPLITS = {
    "a longer row alone": [of(9, 3, 30, 12), of(60)],
    "longer rows of one length": [of(9, 3, 30, 12), of(60, 60, 60)],
    "splits of one length each": [of(30, 30, 30), of(60)],
}


@pytest.mark.parametrize("splits", SPLITS)
def test_rows_that_need_no_padding_hide_no_wrong_form(splits: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The split with the longest row may have that row only."""
    assert chosen(fnet(tmp_path / "fnet"), tmp_path / "fnet", SPLITS[splits]).shape == EQUAL
    break_attention(monkeypatch, sequences_see_each_other)
    form = chosen(network(tmp_path / "bert"), tmp_path / "bert", SPLITS[splits])
    assert str(form).startswith("padded: packed rows differ from rows computed one by one: ")


def test_packed_rows_of_one_length_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where most rows are copies of one, which a wrong form would not change."""
    same = of(*[40] * 100)
    ids = np.stack(same.tokens["input_ids"])
    ids[:30] = ids[60:] = ids[0]
    rows = Dataset.from_dict({"input_ids": ids, "token_type_ids": np.zeros_like(ids)}).with_format("numpy")
    break_attention(monkeypatch, sequences_see_each_other)
    form = chosen(network(tmp_path), tmp_path, [replace(same, tokens=rows)])
    assert str(form).startswith("padded: packed rows differ from rows computed one by one: ")


def test_a_single_row_has_a_form(tmp_path: Path) -> None:
    assert chosen(network(tmp_path / "bert"), tmp_path / "bert", [of(40)]).packed
    assert chosen(fnet(tmp_path / "fnet"), tmp_path / "fnet", [of(40)]).shape == PADDED


def test_the_check_leaves_gradients_random_state_and_mode_unchanged(tmp_path: Path) -> None:
    trained = network(tmp_path, dropout=0.5).train()
    before = torch.get_rng_state(), np.random.get_state(legacy=False)
    chosen(trained, tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0]) and str(np.random.get_state(legacy=False)) == str(before[1])
    assert trained.training and all(p.grad is None for p in trained.parameters())


def test_nan_outputs_are_not_compared(tmp_path: Path) -> None:
    trained = network(tmp_path)
    with torch.no_grad():
        trained.classifier.bias[0] = float("nan")
    assert str(chosen(trained, tmp_path)) == "padded: the model's outputs are not finite"


# ---------------------------------------------------------------------------------------------------------------------
# Models that read their padding, and one that draws


def fnet(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    network(folder)  # the tokenizer
    torch.manual_seed(3)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "pad_token_id": 0}
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model("fnet", vocab_size=200, num_labels=3, **small)
    )


def test_a_model_that_reads_its_padding_gets_rows_of_one_length(tmp_path: Path) -> None:
    form = chosen(fnet(tmp_path), tmp_path)
    message = "micro-batches of equal length: padding changes the results of FNetForSequenceClassification"
    assert form.shape == EQUAL and str(form) == message


def test_a_model_that_reads_its_padding_rejects_a_fixed_width(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match="--pad_to_max_length: padding changes the results of FNetForSequenceClassification"
    ):
        chosen(fnet(tmp_path), tmp_path, [replace(pairs(SINGLE_LABEL), pad_to=64)])


def test_a_nondeterministic_model_is_rejected(tmp_path: Path) -> None:
    trained = network(tmp_path)
    trained.classifier.register_forward_pre_hook(lambda module, args: args[0] + torch.rand_like(args[0]))
    with pytest.raises(
        Refused, match="BertForSequenceClassification: the result for a row is random or depends on other rows"
    ):
        chosen(trained, tmp_path)


def test_random_hashing_that_differs_between_two_passes_is_rejected(tmp_path: Path) -> None:
    """A Reformer without a seed draws new buckets for its tokens in each forward pass."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    network(tmp_path)
    torch.manual_seed(3)
    config = AutoConfig.for_model("reformer",
        attention_head_size=8, attn_layers=["lsh", "lsh"], num_buckets=4, axial_pos_embds=False, hidden_size=16,
        num_attention_heads=2, feed_forward_size=32, lsh_attn_chunk_length=8, is_decoder=False,
        max_position_embeddings=64, vocab_size=200, num_labels=3, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    enlarge_weights(model)
    used = replace(Config(), training=replace(Config().training, do_train=False))
    splits = [pairs(SINGLE_LABEL, "distilbert")]
    with pytest.raises(Refused, match="ReformerForSequenceClassification: the result for a row is random"):
        forms.choose(used, model, tokenizer(tmp_path), splits, Accelerator(cpu=True))


def test_a_model_that_raises_on_the_data_is_rejected_in_one_line(tmp_path: Path) -> None:
    trained = network(tmp_path)

    def fails(*args: Any) -> None:
        raise AttributeError("no kernel\nhere")

    trained.classifier.register_forward_pre_hook(fails)
    with pytest.raises(Refused) as caught:
        chosen(trained, tmp_path)
    message = "BertForSequenceClassification cannot compute a row of the data (no kernel here): choose another model"
    assert str(caught.value) == message


# ---------------------------------------------------------------------------------------------------------------------
# The padding side


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("changes", [{}, {"packing": False}], ids=str)
def test_the_tokenizers_padding_side_is_ignored_and_the_one_used_is_saved(
    tmp_path: Path, side: str, changes: dict[str, Any]
) -> None:
    trained, own = network(tmp_path), tokenizer(tmp_path)
    own.padding_side = side
    config = Config(model=replace(Config().model, **changes))
    form = forms.choose(config, trained, own, [pairs(SINGLE_LABEL)], Accelerator(cpu=True))
    assert not form.padding.left and form.packed == (not changes)
    own.save_pretrained(tmp_path / "saved")
    assert tokenizer_of(tmp_path / "saved").padding_side == "right"


def test_xlnet_is_padded_on_the_left(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    network(tmp_path)
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "xlnet", vocab_size=200, d_model=16, n_layer=2, n_head=2, d_inner=32, num_labels=3, pad_token_id=0
    )
    own = tokenizer(tmp_path)
    split = pairs(SINGLE_LABEL, "distilbert")
    form = forms.choose(
        Config(), AutoModelForSequenceClassification.from_config(config), own, [split], Accelerator(cpu=True)
    )
    assert form.shape == PADDED and form.padding.left and own.padding_side == "left"
    mask = form.collate(split)(np.array([0, 6]))[0]["attention_mask"]
    assert mask[1].tolist() == [0] * 61 + [1] * 3


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_rows_without_segment_ids_are_packed_too(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"input_ids": [[2, 5, 3], [2, 6, 7, 3]]}).with_format("numpy")
    split = Split(rows, np.array([3, 4], dtype=np.int32), None, np.arange(2))
    assert chosen(network(tmp_path), tmp_path, [split]).packed


@pytest.mark.parametrize(
    ("family", "own"), [("funnel", {"block_sizes": [2, 2]}), ("reformer", {"attn_layers": ["local"]})]
)
def test_padding_that_changes_rows_of_some_lengths_only_is_detected(
    family: str, own: dict[str, Any], tmp_path: Path
) -> None:
    """Funnel merges two tokens, so padding changes rows of odd lengths; Reformer reads chunks of eight."""
    trained = families.network(family, head=True, **own)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        enlarge_weights(trained)
    lengths = [4, 4, 4, 6, 6, 11, 13, 15, 20]
    table = {"input_ids": [[2, *range(5, 3 + n), 3] for n in lengths]}
    tokens = Dataset.from_dict(table).with_format("numpy")
    rows = Split(tokens, np.array(lengths, dtype=np.int32), None, np.arange(len(lengths)))
    assert chosen(trained, families.make(family, tmp_path, head=True), [rows]).shape == EQUAL

"""Whole runs of families with limits of their own: the saved model gives, row by row, what the run predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.support import families
from tests.support.launch import PREDICT, TRAIN, Finished, alone, environment, torchrun

WORDS = ["good film", "bad story", "a film that was neither good nor bad", "why", "great great great", "never again"]
STEPS = ("--max_steps", "3", "--train_batch_size", "8", "--learning_rate", "1e-2", "--warmup_ratio", "0",
         "--attention_dropout", "0")  # fmt: skip
GATED_STEPS = ("--num_train_epochs", "4", "--train_batch_size", "4", "--learning_rate", "1e-2")
GATED = '''
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class GatedConfig(PreTrainedConfig):
    model_type = "gated"


class Gated(PreTrainedModel):
    """A row is read by one of two experts, by the number of its second token."""

    config_class = GatedConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = torch.nn.Embedding(config.vocab_size, 4)
        self.even, self.odd = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.score = torch.nn.Linear(4, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        mask = attention_mask[..., None].float()
        rows = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        expert = (self.even, self.odd)
        chosen = [expert[int(ids[1]) % 2](row) for ids, row in zip(input_ids, rows)]
        return SequenceClassifierOutput(logits=self.score(torch.stack(chosen)))
'''


def write_rows(path: Path, texts: list[str], second: list[str] | None = None) -> None:
    rows = [{"sentence1": text, "label": ["no", "yes"][i % 2]} for i, text in enumerate(texts)]
    for row, other in zip(rows, second or (), strict=False):
        row["sentence2"] = other
    names = ["sentence1", "sentence2"] if second else ["sentence1"]
    lines = [json.dumps({("text" if not second and n == "sentence1" else n): row[n] for n in (*names, "label")})
             for row in rows]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(folder: Path, out: str, *more: str, processes: int = 1, steps: tuple[str, ...] = STEPS) -> Finished:
    words = ["--model_name_or_path", "m", "--train_file", "train.jsonl", "--validation_file", "train.jsonl",
             "--output_dir", out, *steps, *more]  # fmt: skip
    env = environment(folder / "home")
    if processes == 1:
        return alone(TRAIN, *words, env=env, cwd=folder)
    return torchrun(processes, TRAIN, *words, env=env, cwd=folder)


def without_dropout(family: str) -> tuple[str, ...]:
    return STEPS if family not in {"xlnet", "bart", "t5", "gemma3"} else STEPS[:-2]


def probabilities(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    return np.stack([table["probability_no"].to_numpy(), table["probability_yes"].to_numpy()], axis=1)


def row_by_row(model: Path, rows: list[tuple[str, ...]]) -> np.ndarray:
    """What plain Transformers computes of each row alone, without padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.inference_mode():
        alone = [network(**tokenizer(*row, truncation=True, return_tensors="pt")).logits for row in rows]
    return torch.cat(alone).softmax(1).numpy()


OTHERS = ("llama-pad0", "gemma3", "xlnet", "esm")
"""make test-models tries them too."""


@pytest.mark.parametrize(
    "family", ["llama-pad-1", "bart", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]
)
def test_a_run_on_two_processes_predicts_what_its_saved_model_computes_row_by_row(family: str, tmp_path: Path) -> None:
    families.make(family, tmp_path / "m")
    texts = [f"{text} {number}" for number in range(5) for text in WORDS]
    if family == "bart":
        texts[3] = "a </s> in the text"
    write_rows(tmp_path / "train.jsonl", texts)
    train(tmp_path, "run", processes=2, steps=without_dropout(family)).expect(0)
    expected = row_by_row(tmp_path / "run/model", [(text,) for text in texts])
    np.testing.assert_allclose(probabilities(tmp_path / "run/predictions.parquet"), expected, atol=1e-5)
    words = ["--model_name_or_path", "run/model", "--test_file", "train.jsonl", "--output_dir", "again"]
    alone(PREDICT, *words, env=environment(tmp_path / "home"), cwd=tmp_path).expect(0)
    again = probabilities(tmp_path / "again/test_predictions.parquet")
    assert again.tobytes() == probabilities(tmp_path / "run/predictions.parquet").tobytes()
    assert np.ptp(expected[:, 0]) > 1e-4, "rows with the same answer would hide a mistake"


def test_anyone_who_loads_the_saved_model_truncates_pairs_like_the_run(tmp_path: Path) -> None:
    from transformers import pipeline

    families.make("albert", tmp_path / "m")
    texts, others = [f"{text} {i}" for i in range(3) for text in WORDS], [f"other {i}" * 9 for i in range(18)]
    write_rows(tmp_path / "train.jsonl", texts, others)
    train(tmp_path, "run", "--max_seq_length", "16").expect(0)
    predicted = probabilities(tmp_path / "run/predictions.parquet")
    rows: list[tuple[str, ...]] = list(zip(texts, others, strict=True))
    np.testing.assert_allclose(predicted, row_by_row(tmp_path / "run/model", rows), atol=1e-5)
    classify = pipeline("text-classification", model=str(tmp_path / "run/model"), truncation=True, top_k=None)
    for (one, other), expected in zip(rows, predicted, strict=True):
        answers: Any = classify([{"text": one, "text_pair": other}])
        answer = {a["label"]: a["score"] for a in answers[0]}
        np.testing.assert_allclose([answer["no"], answer["yes"]], expected, atol=1e-5)
    words = ["--model_name_or_path", "run/model", "--test_file", "train.jsonl", "--output_dir", "again"]
    alone(PREDICT, *words, env=environment(tmp_path / "home"), cwd=tmp_path).expect(0)
    assert probabilities(tmp_path / "again/test_predictions.parquet").tobytes() == predicted.tobytes()


def gated(folder: Path) -> None:
    from safetensors.torch import save_file

    families.make_tokenizer("bert").save_pretrained(folder)
    size = len(families.make_tokenizer("bert"))
    (folder / "gated.py").write_text(GATED)
    auto = {"AutoConfig": "gated.GatedConfig", "AutoModelForSequenceClassification": "gated.Gated"}
    config = {
        "model_type": "gated",
        "vocab_size": size,
        "pad_token_id": 0,
        "auto_map": auto,
        "architectures": ["Gated"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding.weight": (size, 4), "even.weight": (4, 4), "even.bias": (4,), "odd.weight": (4, 4),
              "odd.bias": (4,), "score.weight": (2, 4), "score.bias": (2,)}  # fmt: skip
    save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip


def test_experts_used_by_few_rows_are_trained_the_same_on_two_processes(tmp_path: Path) -> None:
    """The rows computed before training all go to the same expert."""
    (tmp_path / "m").mkdir()
    gated(tmp_path / "m")
    # By the tokenizer's numbers "a" goes to the one expert and "b" to the other: the few long ones are not looked at.
    texts = ["a " * (1 + i % 3) for i in range(24)] + ["b " * 8 for _ in range(3)] + ["a " * 12]
    write_rows(tmp_path / "train.jsonl", texts)
    before = load_file(tmp_path / "m/model.safetensors")
    after = {}
    for processes in (1, 2):
        out = f"run-{processes}"
        train(tmp_path, out, "--trust_remote_code", processes=processes, steps=GATED_STEPS).expect(0)
        after[processes] = load_file(tmp_path / out / "model/model.safetensors")
    for name, tensor in before.items():
        assert not torch.equal(after[1][name], tensor), f"{name} has learned"
        torch.testing.assert_close(after[1][name], after[2][name], rtol=1e-4, atol=1e-6)

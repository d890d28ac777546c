"""How many tokens each family of models reads: as many as it can, and not one more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from job.config import Model
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.model import limits, loading, tokenizers
from tests.support import families

ABSOLUTE = ["bert", "gpt2", "bart", "opt", "roformer", "roberta", "mpnet", "longformer", "data2vec-text",
            "xlm-roberta-xl", "roberta-prelayernorm", "ibert", "luke", "xmod", "esm"]  # fmt: skip


@pytest.mark.parametrize("family", ABSOLUTE)
def test_the_longest_text_that_is_allowed_can_be_read_and_a_longer_one_cannot(family: str, tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make(family, tmp_path / "m")))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    limit = limits.max_length(None, pretrained, tokenizer)
    assert limit == families.POSITIONS
    with pytest.raises(Refused, match=rf"--max_seq_length {limit + 1} is more than the {limit} positions of the model"):
        limits.max_length(limit + 1, pretrained, tokenizer)
    network = loading.load(asked, pretrained, Task(SINGLE_LABEL, ("a", "b")), tokenizer.pad_token_id)[0].eval()

    def read(length: int) -> torch.Tensor:
        ids = torch.full((1, length), 8)
        ids[0, -1] = tokenizer.eos_token_id or 8
        with torch.inference_mode():
            return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    assert read(limit).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        read(limit + 1)


@pytest.mark.parametrize("family", ["xlnet", "t5"])
def test_a_model_without_positions_has_no_limit_of_its_own(family: str, tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make(family, tmp_path / "m")))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    assert limits.positions(pretrained) is None
    assert limits.max_length(None, pretrained, tokenizer) == limits.LONGEST
    assert limits.max_length(2000, pretrained, tokenizer) == 2000


def test_the_positions_of_a_composite_model_are_those_of_its_text_model(tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make("gemma3", tmp_path / "m")))
    assert limits.positions(loading.load_config(asked)) == families.POSITIONS


def test_a_padding_token_behind_the_last_position_is_rejected(tmp_path: Path) -> None:
    folder = families.make("roberta", tmp_path / "m", max_position_embeddings=2)
    asked = Model(model_name_or_path=str(folder))
    pretrained = loading.load_config(asked)
    with pytest.raises(Refused, match=r"no positions behind its padding token: config\.json has pad_token_id 1"):
        limits.max_length(None, pretrained, tokenizers.load(asked, pretrained))


def test_a_length_that_is_no_number_is_rejected(tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make("bert", tmp_path / "m")))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    tokenizer.model_max_length = "64"
    with pytest.raises(
        Refused, match=r"model_max_length in the tokenizer_config\.json of .* is '64': it must be a numb"
    ):
        limits.max_length(None, pretrained, tokenizer)


def test_a_model_that_is_used_as_it_is_reads_what_it_was_trained_with(tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make("t5", tmp_path / "m")))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    assert limits.max_length(None, pretrained, tokenizer, as_is=True) == limits.LONGEST, "it does not say"
    tokenizer.model_max_length = 1024
    tokenizer.save_pretrained(tmp_path / "m")
    again = tokenizers.load(asked, pretrained)
    assert limits.max_length(None, pretrained, again, as_is=True) == 1024
    assert limits.max_length(None, pretrained, again) == limits.LONGEST

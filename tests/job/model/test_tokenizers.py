"""A tokenizer that is not there, does not fit its model, or gives what the model cannot read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from job.config import Model
from job.errors import Refused
from job.model import loading, tokenizers
from tests.support import families
from tests.support.tiny import tiny_model


def load(folder: Path, as_is: bool = False, **more: Any) -> Any:
    asked = Model(model_name_or_path=str(folder), **more)
    return tokenizers.load(asked, loading.load_config(asked), as_is)


def refusal(folder: Path, **more: Any) -> str:
    with pytest.raises(Refused) as caught:
        load(folder, **more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta-xl", "mpnet", "llama", "t5", "xlnet"])
def test_a_folder_without_tokenizer_files_is_rejected(family: str, tmp_path: Path) -> None:
    """Where Transformers makes a vocabulary of special tokens only, every text would be the same."""
    families.make(family, tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "bare")
    said = refusal(tmp_path / "bare")
    assert f"{tmp_path}/bare" in said
    assert "--tokenizer_name" in said
    assert load(tmp_path / "bare", tokenizer_name=str(tmp_path / "whole"))("abc")["input_ids"]
    assert "--tokenizer_name" in refusal(tmp_path / "whole", tokenizer_name=str(tmp_path / "bare"))


def test_a_part_of_the_tokenizer_files_is_not_enough(tmp_path: Path) -> None:
    """A vocabulary without its merges would be read letter by letter."""
    families.make("roberta", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}')
    said = refusal(tmp_path)
    assert "cannot be loaded" in said
    assert "--tokenizer_name" in said


@pytest.mark.parametrize("model", ['{"type": "Unheard"}', "{}"])
def test_a_tokenizer_file_of_another_version_is_rejected(model: str, tmp_path: Path) -> None:
    """The tokenizers library raises a plain Exception."""
    tiny_model(tmp_path)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole | {"model": json.loads(model)}))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert refusal(tmp_path).startswith(f"the tokenizer of {tmp_path} cannot be loaded: ")


def test_a_saved_tokenizer_without_words_is_rejected(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    tiny_model(tmp_path, num_labels=None)
    BertTokenizer().save_pretrained(tmp_path)
    assert f"the tokenizer of {tmp_path} has no words, only 5 special tokens" in refusal(tmp_path)


def test_models_of_characters_and_bytes_need_no_files(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer, CanineConfig, CanineModel, CanineTokenizer, T5Config, T5EncoderModel

    CanineModel(CanineConfig(**families.SHAPE, num_hash_buckets=16, max_position_embeddings=64)).save_pretrained(
        tmp_path / "canine"
    )
    CanineTokenizer().save_pretrained(tmp_path / "canine")
    assert len(load(tmp_path / "canine")("ab")["input_ids"]) == 4
    T5EncoderModel(T5Config(**families.T5, vocab_size=384, eos_token_id=1)).save_pretrained(tmp_path / "byt5")
    ByT5Tokenizer().save_pretrained(tmp_path / "byt5")
    assert len(load(tmp_path / "byt5")("ab")["input_ids"]) == 3


def test_more_tokens_than_embeddings_are_rejected(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    size = len(tokenizer)
    tokenizer.add_tokens(["[USER]", "[URL]"])
    tokenizer.save_pretrained(tmp_path)
    said = refusal(tmp_path)
    assert f"has {size + 2} tokens, the model has {size} embeddings (none for [USER])" in said


def test_a_placeholder_for_images_needs_no_embedding_in_a_model_of_text(tmp_path: Path) -> None:
    """Gemma 3 of 1B has a token for images that it cannot read."""
    families.make("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).image_token == "<image>"


@pytest.mark.parametrize("family", ["llama", "llama-pad0", "llama-pad-1", "gemma3", "gpt2", "bert", "opt"])
def test_the_head_looks_for_the_token_that_rows_are_padded_with(family: str, tmp_path: Path) -> None:
    from job.config.tasks import SINGLE_LABEL, Task

    asked = Model(model_name_or_path=str(families.make(family, tmp_path / "m")))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    network = loading.load(asked, pretrained, Task(SINGLE_LABEL, ("a", "b")), tokenizer.pad_token_id)[0]
    loading.save(network, tokenizer, tmp_path / "saved")
    saved = loading.load_config(Model(model_name_or_path=str(tmp_path / "saved")))
    padding = AutoTokenizer.from_pretrained(tmp_path / "saved").pad_token_id
    assert padding is not None
    for config in (network.config, saved):
        assert config.get_text_config().pad_token_id == padding


def test_positions_that_begin_behind_the_padding_token_keep_it(tmp_path: Path) -> None:
    families.make("roberta", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = "<mask>"
    tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).pad_token == "<pad>"


@pytest.mark.parametrize(("family", "types"), [("albert", [0, 0, 0, 1, 1]), ("bigbird", [0, 0, 0, 1, 1]),
                                               ("rembert", [0, 0, 0, 1, 1]), ("funnel", [0, 0, 0, 1, 1]),
                                               ("xlnet", [0, 0, 1, 1, 2])])  # fmt: skip
def test_segments_of_a_pair_are_given_and_saved(family: str, types: list[int], tmp_path: Path) -> None:
    """These tokenizers no longer give them by themselves, but the models were pretrained with them."""
    families.make(family, tmp_path, head=family == "funnel")
    plain = AutoTokenizer.from_pretrained(tmp_path)
    plain.init_kwargs["model_input_names"] = plain.model_input_names = ["input_ids", "attention_mask"]
    plain.save_pretrained(tmp_path)
    assert "token_type_ids" not in plain("a", "b")
    assert "token_type_ids" not in load(tmp_path, as_is=True)("a", "b"), "a trained model is used as it is"
    tokenizer = load(tmp_path)
    assert tokenizer("a", "b")["token_type_ids"] == types
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("a", "b")["token_type_ids"] == types


def test_a_padding_token_that_the_tokenizer_lacks_is_rejected_where_positions_begin_behind_it(tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make("roberta", tmp_path)))
    pretrained = loading.load_config(asked)
    pretrained.update({"pad_token_id": 1000, "vocab_size": 1001, "max_position_embeddings": 1100})
    with pytest.raises(Refused, match=r"has no token 1000, the padding of the model \(pad_token_id"):
        tokenizers.load(asked, pretrained)


@pytest.mark.parametrize("as_is", [False, True])
def test_no_segments_for_a_model_with_a_single_one(as_is: bool, tmp_path: Path) -> None:
    """A RoBERTa may be published with the tokenizer of a BERT; the second text of a pair would have no embedding."""
    families.make("bert", tmp_path, type_vocab_size=1)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    plain.init_kwargs["model_input_names"] = plain.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    plain.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    tokenizer = load(tmp_path, as_is=as_is)
    assert "token_type_ids" not in tokenizer("a", "b")
    tokenizer.save_pretrained(tmp_path)
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path)("a", "b")


@pytest.mark.parametrize("family", ["gpt2", "llama", "mpnet", "t5"])
def test_no_segments_for_models_without_them(family: str, tmp_path: Path) -> None:
    assert "token_type_ids" not in load(families.make(family, tmp_path))("a", "b")


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_end_token_in_a_text_is_plain_text_where_the_head_reads_the_last_one(family: str, tmp_path: Path) -> None:
    tokenizer = load(families.make(family, tmp_path))
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert one("a </s> b")["input_ids"].count(one.eos_token_id) == 1
        assert one("a </s> b")["input_ids"] == one("a < / s > b")["input_ids"]


def test_a_tokenizer_that_does_not_end_its_texts_is_rejected_where_the_head_reads_the_end(tmp_path: Path) -> None:
    families.make("bart", tmp_path / "bart", eos_token_id=7)
    assert "does not end a text with token 7, which the model's head reads" in refusal(tmp_path / "bart")

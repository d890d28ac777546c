"""Loads the tokenizer of a model and checks that the model can process its output."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from job import config
from job.errors import Refused
from job.model import limits, loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

SEGMENTS = "token_type_ids"
COMPLETE_FILES = ("tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model")
"""Files that contain a complete tokenizer, for any tokenizer class."""
READ_AT_END_TOKEN = frozenset({"bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"})
"""Model types whose head reads the last end token, and requires the same number of them in each row of a batch."""
SEGMENTS_OF_ANY_NUMBER = frozenset({"funnel", "xlnet"})
"""Model types that compare segment ids instead of embedding them."""
KNOWN_SPECIAL_TOKEN = re.compile(r"<extra_id_\d+>|[a-z]{2,3}_[A-Z]{2}|__\w+__")
"""Special tokens of the models in READ_AT_END_TOKEN: sentinels, languages."""
MEDIA = ("image", "audio", "video")


def load(model: config.Model, pretrained: PreTrainedConfig, as_is: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or that of --tokenizer_name; it returns only inputs that the model accepts.

    Args:
        model: the run's model settings.
        pretrained: the model's configuration.
        as_is: whether the model is used without training: the outputs of its tokenizer must not change then.

    Raises:
        Refused: it cannot be read, has no padding token, or has tokens that the model does not know.
    """
    from transformers import AutoTokenizer

    name = model.tokenizer_name or model.model_name_or_path
    tokenizer = loading.from_pretrained(AutoTokenizer, model, name)
    _check_files(model, name, tokenizer)
    _check_vocabulary(name, tokenizer, pretrained)
    _set_padding(name, tokenizer, pretrained)
    _set_inputs(tokenizer, pretrained, as_is)
    if pretrained.model_type in READ_AT_END_TOKEN:
        _keep_end_token_out_of_texts(name, tokenizer, pretrained)
    return tokenizer


def _check_files(model: config.Model, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refused if the files of the tokenizer are missing: Transformers would silently make one without words.

    Tokenizers of bytes or characters need no files (ByT5, CANINE).
    """
    own = {file for key, file in tokenizer.vocab_files_names.items() if file and key != "entity_vocab_file"}
    if not own or any(loading.has_file(model, name, file) for file in COMPLETE_FILES):
        return
    parts = own - set(COMPLETE_FILES)
    if not parts or not all(loading.has_file(model, name, file) for file in parts):
        raise Refused(f"{name} has no tokenizer ({', '.join(sorted(own))}): name the model's with --tokenizer_name")


def _check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, pretrained: PreTrainedConfig) -> None:
    """Refused if the tokenizer has no words, or more tokens than the model has embeddings.

    A text-only model may lack embeddings for the image and audio placeholders of its tokenizer: texts that contain one
    are rejected later, in job/model/readable.py.
    """
    if not tokenizer.vocab_files_names:
        return
    vocabulary = tokenizer.get_vocab()
    special = {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}
    if not any(token.strip("\u2581 ") and token not in special for token in vocabulary):
        raise Refused(f"the tokenizer of {name} has no words, only {len(vocabulary)} special tokens: "
                      "name the model's with --tokenizer_name")  # fmt: skip
    embedded = vocabulary_size(pretrained)
    if embedded is None:
        return
    media = {getattr(tokenizer, f"{kind}_token", None) for kind in MEDIA}
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= embedded)
    unknown = [token for _, token in beyond if token not in media]
    if unknown:
        raise Refused(f"the tokenizer of {name} has {beyond[-1][0] + 1} tokens, the model has {embedded} embeddings "
                      f"(none for {unknown[0]}): save the model again after resize_token_embeddings, or name its own "
                      "tokenizer with --tokenizer_name")  # fmt: skip


def vocabulary_size(pretrained: PreTrainedConfig) -> int | None:
    """The number of token embeddings; None for a model that hashes characters, such as CANINE."""
    return getattr(pretrained.get_text_config(), "vocab_size", None)


def _set_padding(name: str, tokenizer: PreTrainedTokenizerBase, pretrained: PreTrainedConfig) -> None:
    """Set the padding token: that of the model if its positions start after it, else the end token if there is none."""
    own = getattr(pretrained.get_text_config(), "pad_token_id", None)
    if own is not None and own != tokenizer.pad_token_id and limits.offset(pretrained):
        token = tokenizer.convert_ids_to_tokens(own)
        if token is None:
            raise Refused(f"the tokenizer of {name} has no token {own}, the padding of the model (pad_token_id in its "
                          "config.json): name its own tokenizer with --tokenizer_name")  # fmt: skip
        tokenizer.pad_token = token
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise Refused(f"the tokenizer of {name} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token


def _set_inputs(tokenizer: PreTrainedTokenizerBase, pretrained: PreTrainedConfig, as_is: bool) -> None:
    """Let the tokenizer return only what the model accepts, and segment ids if the model was pretrained with them.

    The tokenizers of ALBERT, BigBird, RemBERT, XLNet and Funnel no longer return them by default. That of a BERT does,
    although a RoBERTa, which may be published with one, has a single segment: the second text of a pair has none.
    """
    network = loading.network_class(pretrained)
    accepted = set(inspect.signature(network.forward).parameters) if network else None
    names = [name for name in tokenizer.model_input_names if accepted is None or name in accepted]
    segments = getattr(pretrained, "type_vocab_size", None)
    has_segments = (segments or 0) > 1 or pretrained.model_type in SEGMENTS_OF_ANY_NUMBER
    if segments in (0, 1) and not has_segments:
        names = [name for name in names if name != SEGMENTS]
    if accepted and SEGMENTS in accepted and has_segments and SEGMENTS not in names and not as_is:
        names.append(SEGMENTS)
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # these are saved


def _keep_end_token_out_of_texts(name: str, tokenizer: PreTrainedTokenizerBase, pretrained: PreTrainedConfig) -> None:
    """Tokenize </s> in a text as plain text, unless the tokenizer has user-defined special tokens.

    Those would become plain text too. Refused if the tokenizer does not end a text with the token that the head reads.
    """
    end = pretrained.eos_token_id
    if end not in tokenizer("a")["input_ids"]:
        raise Refused(f"the tokenizer of {name} does not end a text with token {end}, which the model's head reads: "
                      "name the model's with --tokenizer_name")  # fmt: skip
    if all(KNOWN_SPECIAL_TOKEN.fullmatch(str(token)) for token in tokenizer.extra_special_tokens):
        tokenizer.split_special_tokens = True
        tokenizer.init_kwargs["split_special_tokens"] = True

"""Folders of tiny models, with tokenizers that frame a text as their family's do, and tables to train on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.models.families import POSITIONS, Family, Frame

TOPICS = {
    "sport": ["goal", "match", "team", "player", "score", "league", "coach", "win", "final", "ball"],
    "food": ["bread", "soup", "salt", "kitchen", "taste", "oven", "sugar", "lemon", "dinner", "plate"],
    "space": ["orbit", "planet", "star", "rocket", "moon", "galaxy", "comet", "launch", "probe", "dust"],
}
COMMON = [
    *("the", "a", "of", "in", "and", "it", "was", "on", "with", "near", "very", "some", "this", "old", "new", "big"),
    *("small", "one", "two", "day"),
]
ROWS = {"train": (40, 8), "validation": (12, 4), "test": (10, 3)}
"""Short rows, and rows that are cut, of each table."""
PADDING, UNKNOWN, FIRST, LAST, MASK = "[PAD]", "[UNK]", "<s>", "</s>", "[MASK]"


def write_tables(folder: Path, kind: str) -> dict[str, Path]:
    """train, validation and test as json lines: text or sentence1 and sentence2, label."""
    paths = {}
    for seed, (name, (short, long)) in enumerate(ROWS.items()):
        rng = random.Random(seed)
        rows = [_row(rng, kind, rng.randint(2, 12)) for _ in range(short)]
        rows += [_row(rng, kind, rng.randint(40, 90)) for _ in range(long)]
        rng.shuffle(rows)
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


def _row(rng: random.Random, kind: str, words: int) -> dict[str, Any]:
    topic = rng.choice(sorted(TOPICS))
    text = _sentence(rng, topic, words)
    if kind == "pair":
        other = _sentence(rng, rng.choice(sorted(TOPICS)), rng.randint(2, 10))
        return {"sentence1": text, "sentence2": other, "label": topic}
    if kind == "regression":
        return {"text": text, "label": round(rng.uniform(0, 5), 2) + 0.001}
    if kind == "multi_label":
        return {"text": text, "label": sorted({topic, rng.choice(sorted(TOPICS))}) if rng.random() < 0.8 else []}
    return {"text": text, "label": topic}


def _sentence(rng: random.Random, topic: str, words: int) -> str:
    """Some of the words are special tokens, as a text may hold them."""
    return " ".join(rng.choice(_kind_of_word(rng, topic)) for _ in range(words))


def _kind_of_word(rng: random.Random, topic: str) -> list[str]:
    drawn = rng.random()
    return TOPICS[topic] if drawn < 0.4 else [PADDING, MASK] if drawn > 0.97 else COMMON


def build(family: Family, folder: Path) -> None:
    """A Transformers folder; weights so large that rows differ."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = _tokenizer(family.frame)
    tokenizer.padding_side = "left" if family.left else "right"
    config = AutoConfig.for_model(family.model_type or family.name, **_settings(family, tokenizer))
    config.num_labels = 1 if family.kind == "regression" else len(TOPICS)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.numel() > 1 and parameter.std() > 0:
                parameter.mul_(0.25 / parameter.std())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _settings(family: Family, tokenizer: Any) -> dict[str, Any]:
    ids = {"pad_token_id": tokenizer.pad_token_id if family.frame != "plain" else None}
    ids |= {"bos_token_id": _id(tokenizer, FIRST), "eos_token_id": _id(tokenizer, LAST)}
    if family.frame != "canine":
        ids["vocab_size"] = len(tokenizer) + 8  # some tokenizers add tokens when they are loaded
    if family.frame == "eos":
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    if family.name in ("bart", "mbart"):
        ids["decoder_start_token_id"] = ids["eos_token_id"]
    own = dict(family.settings)
    if "text_config" in own:
        return {**own, "text_config": {**ids, **own["text_config"]}}
    if not {"n_positions", "d_kv"} & own.keys() and family.name not in ("bloom", "xlnet"):
        own.setdefault("max_position_embeddings", POSITIONS + family.offset)
    return {**ids, **own}


def _id(tokenizer: Any, token: str) -> int | None:
    return tokenizer.vocab.get(token) if hasattr(tokenizer, "vocab") else None


def _tokenizer(frame: Frame) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import CanineTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

    if frame == "canine":
        return CanineTokenizer(model_max_length=POSITIONS)
    if frame == "qwen2":
        letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        return Qwen2Tokenizer(vocab=letters, merges=[], model_max_length=POSITIONS)
    words = [PADDING, FIRST, LAST, UNKNOWN, MASK, *COMMON, *(word for topic in TOPICS.values() for word in topic)]
    if frame in ("bert", "roberta"):  # padding is 1 in a RoBERTa
        words[:2] = [FIRST, PADDING] if frame == "roberta" else [PADDING, FIRST]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = {
        "bert": (f"{FIRST}:0 $A:0 {LAST}:0", f"{FIRST}:0 $A:0 {LAST}:0 $B:1 {LAST}:1"),
        "roberta": (f"{FIRST} $A {LAST}", f"{FIRST} $A {LAST} {LAST} $B {LAST}"),
        "bos": (f"{FIRST} $A", f"{FIRST} $A {FIRST} $B"),
        "eos": (f"$A {LAST}", f"$A $B {LAST}"),
        "plain": ("$A", "$A $B"),
        "xlnet": (f"$A {LAST} {FIRST}", f"$A {LAST} $B {LAST} {FIRST}"),
    }[frame]
    special = [(token, vocabulary[token]) for token in (FIRST, LAST)]
    backend.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)
    tokens: dict[str, Any] = {"bos_token": FIRST, "eos_token": LAST, "unk_token": UNKNOWN}
    if frame in ("bert", "roberta", "xlnet"):
        tokens |= {"cls_token": FIRST, "sep_token": LAST, "mask_token": MASK}
    if frame != "plain":  # there the end token pads, as in GPT-2
        tokens["pad_token"] = PADDING
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=POSITIONS, **tokens)

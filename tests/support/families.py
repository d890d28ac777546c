"""Tiny folders of the model families whose limits the job must know: random weights, a tokenizer that suits them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

POSITIONS = 64
SHAPE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FIRST_AND_LAST = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
KINDS: dict[str, tuple[tuple[str, ...], str, str, dict[str, str]]] = {
    # special tokens, form of a text, form of a pair, named tokens
    "bert": (FIRST_AND_LAST, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
             {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}),
    "roberta": (ROBERTA, "<s> $A </s>", "<s> $A </s> </s> $B </s>",
                {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}),
    "t5": (("<pad>", "</s>", "<unk>"), "$A </s>", "$A </s> $B </s>",
           {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}),
    "llama": (("<unk>", "<s>", "</s>"), "<s> $A", "<s> $A $B",
              {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}),
    "xlnet": (("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"), "$A:0 <sep>:0 <cls>:2",
              "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
              {"unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>",
               "padding_side": "left"}),
}  # fmt: skip
RELATIVE = {**SHAPE, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "pad_token_id": 1,
        "max_position_embeddings": POSITIONS, "decoder_start_token_id": 2, "eos_token_id": 2}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
LLAMA = {**SHAPE, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name -> (Transformers' model_type, tokenizer, its own configuration)
    "bert": ("bert", "bert", {**SHAPE, "max_position_embeddings": POSITIONS}),
    "albert": ("albert", "bert", {**SHAPE, "embedding_size": 8, "max_position_embeddings": POSITIONS}),
    "bigbird": ("big_bird", "bert", {**SHAPE, "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 256}),
    "rembert": ("rembert", "bert", {**SHAPE, "input_embedding_size": 8, "output_embedding_size": 8,
                                    "max_position_embeddings": POSITIONS}),
    "funnel": ("funnel", "bert", {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 16, "n_head": 2,
                                  "d_head": 8, "d_inner": 32}),
    "reformer": ("reformer", "bert", {"attention_head_size": 8, "attn_layers": ["local", "lsh"], "num_buckets": 4,
                                      "axial_pos_embds": False, "hidden_size": 16, "num_attention_heads": 2,
                                      "feed_forward_size": 32, "lsh_attn_chunk_length": 8, "is_decoder": False,
                                      "local_attn_chunk_length": 8, "max_position_embeddings": POSITIONS}),
    "yoso": ("yoso", "bert", {**SHAPE, "max_position_embeddings": POSITIONS}),
    "roformer": ("roformer", "bert", {**SHAPE, "embedding_size": 16, "max_position_embeddings": POSITIONS}),
    "xlnet": ("xlnet", "xlnet", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "pad_token_id": 5}),
    "distilbert": ("distilbert", "bert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32,
                                          "max_position_embeddings": POSITIONS}),
    "modernbert": ("modernbert", "bert", {**SHAPE, "max_position_embeddings": POSITIONS, "pad_token_id": 0}),
    "deberta-v2": ("deberta-v2", "bert", {**SHAPE, "relative_attention": True, "position_buckets": 8,
                                          "norm_rel_ebd": "layer_norm", "pooler_hidden_size": 16}),
    "qwen3": ("qwen3", "llama", {**LLAMA, "head_dim": 8}),
    "gpt2": ("gpt2", "llama", {"n_positions": POSITIONS, "n_embd": 16, "n_layer": 2, "n_head": 2}),
    "llama": ("llama", "llama", LLAMA),
    "llama-pad0": ("llama", "llama", {**LLAMA, "pad_token_id": 0}),
    "llama-pad-1": ("llama", "llama", {**LLAMA, "pad_token_id": -1}),
    "gemma3": ("gemma3", "llama", {"text_config": {**LLAMA, "head_dim": 8, "pad_token_id": 0},
                                   "vision_config": {**SHAPE, "image_size": 8, "patch_size": 4}}),
    "bart": ("bart", "roberta", BART),
    "t5": ("t5", "t5", {**T5, "pad_token_id": 0, "eos_token_id": 1}),
    **{name: (name, "roberta", RELATIVE) for name in (
        "roberta", "mpnet", "longformer", "data2vec-text", "xlm-roberta-xl", "roberta-prelayernorm", "ibert", "luke",
        "xmod", "esm")},
    "opt": ("opt", "roberta", {"hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 2, "ffn_dim": 32,
                               "num_attention_heads": 2, "max_position_embeddings": POSITIONS, "pad_token_id": 1}),
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "longformer": {"attention_window": [8, 8]},
    "esm": {"position_embedding_type": "absolute", "mask_token_id": 4},
    "luke": {"entity_vocab_size": 4, "entity_emb_size": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def make(name: str, folder: Path, head: bool = False, **own: Any) -> Path:
    """Save a model of the family, with a classification head on request, and its tokenizer; `own` configures it."""
    network(name, head, **own).save_pretrained(folder)
    make_tokenizer(FAMILIES[name][1]).save_pretrained(folder)
    return folder


def network(name: str, head: bool, **own: Any) -> Any:
    """A model of the family with random weights, the same in each call."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    model_type, kind, options = FAMILIES[name]
    size = len(make_tokenizer(kind))
    options = {**options, **OWN.get(name, {}), **own}
    if "text_config" in options:
        options = {**options, "text_config": {**options["text_config"], "vocab_size": size}}
    else:
        options["vocab_size"] = size
    auto: Any = AutoModelForSequenceClassification if head else AutoModel
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return auto.from_config(AutoConfig.for_model(model_type, **options))


def make_tokenizer(kind: str) -> Any:
    """A WordPiece tokenizer of letters and digits in the form of this kind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, single, pair, named = KINDS[kind]
    letters = string.ascii_lowercase + string.digits
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=named["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    used = [(token, vocabulary[token]) for token in special if token in single]
    backend.post_processor = processors.TemplateProcessing(single, pair, used)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)

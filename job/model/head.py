"""The task of a fine-tuned model's head, read from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.config.tasks import KINDS, MULTI_LABEL, REGRESSION, SCORE, SINGLE_LABEL, Task
from job.data.labels.class_names import are_placeholders
from job.errors import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

OTHER_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
"""In names of architectures whose head has class names too, and may have weights of the same names and sizes."""


def own_task(pretrained: PreTrainedConfig, required: bool = False) -> Task | None:
    """The task of a fine-tuned model; None if it was not fine-tuned for text classification.

    A single output means regression, regardless of its name. Default class names (LABEL_0, LABEL_1, ...) are kept if
    the architecture has a classification head: for a model that is not trained further, the pipeline returns them too.

    Args:
        pretrained: the model's configuration.
        required: the model is used without training. Otherwise an unsupported head counts as none, because training
            replaces it.

    Raises:
        Refused: if `required`, and the head is for another task, predicts several numbers or has invalid class names.
    """
    try:
        return _task(pretrained)
    except Refused:
        if required:
            raise
        return None


def _task(pretrained: PreTrainedConfig) -> Task | None:
    other = next((n for n in pretrained.architectures or () if any(head in n for head in OTHER_HEADS)), None)
    if other is not None and not _has_head(pretrained):
        raise Refused(f"the model is a {other} (architectures in its config.json), which does not classify texts: "
                      "fine-tune it first, or choose another model")  # fmt: skip
    outputs, kind = pretrained.num_labels, KINDS.get(pretrained.problem_type or SINGLE_LABEL.problem_type)
    if kind is None:
        raise Refused(f"problem_type in the model's config.json is {pretrained.problem_type!r}: it must be one of "
                      f"{', '.join(KINDS)}")  # fmt: skip
    if outputs == 1 and kind != MULTI_LABEL:
        return Task(REGRESSION, (SCORE,)) if _has_head(pretrained) else None
    if kind == REGRESSION:
        raise Refused(f"the model predicts {outputs} numbers for a text (problem_type regression, num_labels {outputs} "
                      "in its config.json): models with one number or with classes are supported")  # fmt: skip
    names = _names(pretrained)
    if are_placeholders(names) and not _has_head(pretrained):
        return None
    return Task(kind, names)


def _names(pretrained: PreTrainedConfig) -> tuple[str, ...]:
    """The class names in the order of the outputs. Refused unless each output has a unique text or number as name."""
    id2label = {int(i): name for i, name in (pretrained.id2label or {}).items()}
    if sorted(id2label) != list(range(len(id2label))):
        numbers = ", ".join(map(str, sorted(id2label)))
        raise Refused(f"id2label in the model's config.json numbers its classes {numbers}: they must be numbered "
                      "from 0")  # fmt: skip
    names = [id2label[i] for i in range(len(id2label))]
    for name in names:
        if not isinstance(name, str | int | float) or name == "":
            raise Refused(f"id2label in the model's config.json holds {name!r}: a class name is a text")
    texts = tuple(str(name) for name in names)
    for name in texts:
        if texts.count(name) > 1:
            raise Refused(f"id2label in the model's config.json has the class name {name!r} twice: rename one of them")
    return texts


def _has_head(pretrained: PreTrainedConfig) -> bool:
    """Whether the configuration is that of a text classifier; True if it names no architecture."""
    architectures = pretrained.architectures or ()
    return not architectures or any(name.endswith("ForSequenceClassification") for name in architectures)

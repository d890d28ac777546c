"""Exact evaluation: every example is predicted exactly once, for any number of processes and any batch shape.

Each process predicts its share. The results are gathered once, each with the index of its example, then sorted and
checked: a lost or duplicated row ends the run instead of changing a metric. Accelerate's gather_for_metrics needs no
indices, but is correct only for fixed batch sizes, without subsets and early breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from job.batching import oom
from job.batching.collate import Tensors, moved
from job.batching.loader import BatchLoader
from job.config.tasks import Kind
from job.data.dataset import row_numbers
from job.errors import NonFiniteOutput
from job.model.outputs import outputs_of
from job.run.progress import bar


@dataclass(frozen=True)
class Predictions:
    """Predictions for a whole split, in order; the same on every process.

    Attributes:
        kind: the kind of task.
        row_ids: int64[n], row numbers in the source.
        logits: float32[n, C]; float32[n, 1] for regression.
        labels: int64[n] classes, float64[n] numbers or int8[n, C] multi-hot; None without labels.
    """

    kind: Kind
    row_ids: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None

    @property
    def predicted(self) -> np.ndarray:
        """The predicted classes or numbers, in the form of `labels`."""
        return outputs_of(self.kind).predicted(self.logits)

    @property
    def probabilities(self) -> np.ndarray:
        """float32[n, C]; rows sum to one for single labels only; [n, 0] for regression."""
        return outputs_of(self.kind).probabilities(self.logits)

    @property
    def loss(self) -> float:
        """The mean loss over the examples."""
        assert self.labels is not None
        return outputs_of(self.kind).mean_loss(self.logits, self.labels)


def predict(
    model: torch.nn.Module,
    kind: Kind,
    loader: BatchLoader,
    max_tokens: int,
    between: Callable[[], object] = lambda: None,
) -> Predictions:
    """Logits of every example of the loader's split, computed by all processes together.

    `between` is called before each micro-batch, by every process the same number of times; an exception that it raises
    ends the evaluation on all of them.

    Raises:
        NonFiniteOutput: on every process.
        oom.Exhausted: on every process, if one of them ran out of memory.
        RuntimeError: an example is missing or duplicated after gathering: a bug in the program, not in the data.
    """
    accelerator, split = loader.accelerator, loader.split
    plan = loader.plan_evaluation(max_tokens)
    mine = plan[accelerator.process_index]
    network = accelerator.unwrap_model(model)  # DDP's forward would wait for processes that have already finished
    network.eval()
    outputs: list[torch.Tensor] = []
    turns = max(map(len, plan))
    with loader.tensors(mine) as ready, bar("evaluation", turns, shown=accelerator.is_main_process) as progress:
        for turn in range(turns):
            between()
            if turn < len(mine) and len(outputs) == turn:  # else out of memory; the other processes learn of it below
                with torch.inference_mode():
                    outputs += oom.attempted(lambda: _logits(network, next(ready), accelerator.device))
            progress.update()
    oom.raise_if_one_failed(accelerator, len(outputs) < len(mine))
    longest = max(sum(map(len, share)) for share in plan)
    logits = _gathered(outputs, mine, longest, network.config.num_labels, len(split), accelerator)
    _check_finite(logits, split.row_ids)
    return Predictions(kind, split.row_ids, logits, split.labels)


def _logits(model: torch.nn.Module, tensors: Tensors, device: torch.device) -> torch.Tensor:
    return model(**moved(tensors, device)[0]).logits.float()


def _check_finite(logits: np.ndarray, row_ids: np.ndarray) -> None:
    bad = row_ids[~np.isfinite(logits).all(axis=1)].tolist()
    if bad:
        raise NonFiniteOutput(f"the model's outputs are not finite for {len(bad):,} of {len(row_ids):,} rows "
                              f"({row_numbers(bad)}): check its weights, or use a wider "
                              "--mixed_precision")  # fmt: skip


def _gathered(
    outputs: Sequence[torch.Tensor],
    indices: Sequence[np.ndarray],
    longest: int,
    classes: int,
    examples: int,
    accelerator: Accelerator,
) -> np.ndarray:
    """The logits of all processes, in the order of the split.

    Each process contributes `longest` rows; padding rows have index -1.
    """
    index = torch.full((longest,), -1, dtype=torch.int64, device=accelerator.device)
    logits = torch.zeros((longest, classes), device=accelerator.device)
    if outputs:
        mine = torch.from_numpy(np.concatenate(indices)).to(accelerator.device)
        index[: len(mine)] = mine
        logits[: len(mine)] = torch.cat(list(outputs))
    return in_order(accelerator.gather(index).cpu().numpy(), accelerator.gather(logits).cpu().numpy(), examples)


def in_order(index: np.ndarray, rows: np.ndarray, examples: int) -> np.ndarray:
    """`rows` sorted by `index`, without padding (-1); checks that each of 0..examples-1 occurs once.

    Raises:
        RuntimeError: an example is missing or occurs twice.
    """
    real = index >= 0
    if not np.array_equal(np.bincount(index[real], minlength=examples), np.ones(examples, dtype=np.int64)):
        raise RuntimeError("evaluation did not return each example once")
    ordered = np.empty((examples, *rows.shape[1:]), dtype=rows.dtype)
    ordered[index[real]] = rows[real]
    return ordered

"""A loss that is not finite ends the run with the rows that caused it; a gradient does without rows."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from job.data.dataset import Split
from job.errors import NonFiniteLoss
from job.training.step_loss import StepLoss, reject_non_finite


def test_rows_with_a_loss_that_is_not_finite_are_named_with_their_numbers_in_the_file() -> None:
    tokens: Any = None
    split = Split(tokens, np.array([3, 3, 3]), None, row_ids=np.array([4, 9, 12], dtype=np.int32))
    losses = ((np.array([2, 1]), torch.tensor([torch.nan, 1.0])), (np.array([0]), torch.tensor([torch.inf])))
    step = StepLoss(1, torch.tensor(torch.nan), losses, lambda: False)
    with pytest.raises(NonFiniteLoss, match="the loss of step 2 is not finite for rows 5, 13 of the training data: "):
        reject_non_finite(step, split, Accelerator(cpu=True))


def test_a_gradient_that_is_not_finite_is_blamed_on_no_rows() -> None:
    tokens: Any = None
    split = Split(tokens, np.array([3, 3]), None, row_ids=np.arange(2))
    step = StepLoss(1, torch.tensor(3.0), ((np.array([0, 1]), torch.tensor([2.0, 1.0])),), lambda: False)
    with pytest.raises(NonFiniteLoss, match="the gradient of step 2 is not finite, though its loss is: "):
        reject_non_finite(step, split, Accelerator(cpu=True))

"""How much a row weighs in the loss: its own weight times its class's. Shapes: n rows, o outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipelines.spec import UseCase
from pipelines.training.data import F32, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def by_class(spec: UseCase, train: Table) -> NDArray[np.float64] | None:
    """[classes]: what a row of each class weighs so that all classes of the training rows weigh the same.

    Total weight / (classes that occur * weight of the class); 1 for a class that does not occur. Rows count by their
    own weights. None without `class_weight: balanced`.
    """
    if spec.training.class_weight == "none":
        return None
    totals = np.bincount(train.label.astype(np.int64), train.weight, minlength=len(spec.label.classes) or 2)
    present = totals > 0
    weight: NDArray[np.float64] = np.where(present, totals.sum() / (present.sum() * np.where(present, totals, 1)), 1.0)
    return weight


def of_rows(table: Table, classes: NDArray[np.float64] | None = None) -> F32 | None:
    """[n], mean 1: each row's own weight times its class's; None where all rows weigh the same.

    Args:
        classes: what `by_class` gave.
    """
    if table.weight is None and classes is None:
        return None
    weight = np.ones(len(table)) if table.weight is None else table.weight.astype(np.float64)
    if classes is not None:
        weight = weight * classes[table.label.astype(np.int64)]
    return np.asarray(weight / weight.mean(), np.float32)


def restore_shares(bias: Tensor, classes: NDArray[np.float64] | None) -> None:
    """Takes the class weights out of a trained network's last bias [..., o], in place.

    Under weights w the loss is least where the odds of a class are w times the real ones (Elkan, 2001, theorem 2): its
    logit is lowered by log w. Scores are then probabilities at the real shares, before any calibration.
    """
    if classes is None:
        return
    shift = torch.from_numpy(np.log(classes)).to(bias)
    with torch.no_grad():
        bias -= shift if bias.shape[-1] > 1 else shift[1] - shift[0]

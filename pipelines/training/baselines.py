"""What a challenger must not fall behind: LightGBM on the same split, and a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.spec import Task
from pipelines.training.data import Table
from pipelines.training.prepare import Preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 400
_PATIENCE = 30


class LightGbm:
    """Gradient-boosted trees with native categories and nulls, stopped early on the validation rows.

    Arguments are modest defaults, not tuned by use case: this is the bar, not the contender.
    """

    def __init__(
        self,
        task: Task,
        classes: int,
        preparation: Preparation,
        train: Table,
        validation: Table,
        threads: int,
        seed: int,
        *,
        weights: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> None:
        import lightgbm

        self._preparation = preparation
        self._threads = threads
        parameters: dict[str, Any] = {
            "objective": task,
            "learning_rate": 0.05,
            "num_leaves": 63,
            "num_threads": threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        if task == "multiclass":
            parameters["num_class"] = classes
        mine, theirs = weights or (None, None)
        names = list(range(train.numeric.shape[1], train.numeric.shape[1] + len(train.categorical)))
        data = lightgbm.Dataset(self._matrix(train), train.label, weight=mine, categorical_feature=names)
        held = lightgbm.Dataset(self._matrix(validation), validation.label, weight=theirs, reference=data)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        self._model = lightgbm.train(parameters, data, _ROUNDS, valid_sets=[held], callbacks=[stop])

    @property
    def bytes(self) -> int:
        """Size of the model as LightGBM's text."""
        return len(self._model.model_to_string().encode())

    def __call__(self, table: Table) -> NDArray[np.float64]:
        """Scores [n] or [n, classes]."""
        return np.asarray(self._model.predict(self._matrix(table), num_threads=self._threads), np.float64)

    def _matrix(self, table: Table) -> NDArray[np.float32]:
        codes = self._preparation.encode(table).codes.astype(np.float32)
        return np.hstack([table.numeric, codes])


class Constant:
    """The training rows' mean, or their class shares."""

    def __init__(self, task: Task, classes: int, train: Table, *, weight: NDArray[np.float32] | None = None) -> None:
        if task == "multiclass":
            counts = np.bincount(train.label.astype(np.int64), weight, minlength=classes)
            self._value = counts / counts.sum()
        else:
            self._value = np.asarray(np.average(train.label.astype(np.float64), weights=weight))

    def __call__(self, table: Table) -> NDArray[np.float64]:
        """Scores [n] or [n, classes]."""
        return np.tile(self._value, (len(table), 1)) if self._value.ndim else np.full(len(table), self._value)

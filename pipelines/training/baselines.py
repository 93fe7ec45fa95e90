"""What a challenger must not fall behind: LightGBM on the same split, and a constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.spec import Task
from pipelines.training.data import Table
from pipelines.training.prepare import Preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Modest and not tuned by use case: this is the bar. No row or feature is drawn by chance.
PARAMETERS: Mapping[str, Any] = {"learning_rate": 0.05, "num_leaves": 63}
#: Enough that early stopping, not the end, decides.
_ROUNDS = 2000
_PATIENCE = 30


class LightGbm:
    """Gradient-boosted trees on the same columns as the networks, with native categories and nulls.

    Stopped early on the validation rows by what stops the networks. Categories have the networks'
    codes: a rare category shares its code with the unseen ones. The same data, seed and threads give the same trees.
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
        metric: str | None = None,
        parameters: Mapping[str, Any] = PARAMETERS,
    ) -> None:
        """Fits the trees.

        Args:
            classes: multiclass only.
            weights: of the training rows and of the validation rows, [n] each; absent, every row weighs the same.
            metric: of the gates; early stopping watches `auc` itself, and for any other the objective's own loss, as
                `loop.judge` does.
            parameters: LightGBM's, over the defaults that make a training repeat.
        """
        import lightgbm

        self._preparation = preparation
        self._threads = threads
        chosen: dict[str, Any] = {
            "objective": task,
            "num_threads": threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            **parameters,
        }
        if metric == "auc":
            chosen["metric"] = metric
        if task == "multiclass":
            chosen["num_class"] = classes
        mine, theirs = weights or (None, None)
        codes = list(range(train.numeric.shape[1], train.numeric.shape[1] + len(train.categorical)))
        data = lightgbm.Dataset(self._matrix(train), train.label, weight=mine, categorical_feature=codes)
        held = lightgbm.Dataset(self._matrix(validation), validation.label, weight=theirs, reference=data)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        self._model = lightgbm.train(chosen, data, _ROUNDS, valid_sets=[held], callbacks=[stop])

    def dump(self) -> dict[str, Any]:
        """The trees up to the best round, as LightGBM's `dump_model` tells them."""
        dumped: dict[str, Any] = self._model.dump_model(num_iteration=self._model.best_iteration)
        return dumped

    @property
    def bytes(self) -> int:
        """Size of the model as LightGBM's text."""
        return len(self._model.model_to_string().encode())

    def __call__(self, table: Table) -> NDArray[np.float64]:
        """Scores [n] or [n, classes]."""
        return np.asarray(self._model.predict(self._matrix(table), num_threads=self._threads), np.float64)

    def raw(self, table: Table) -> NDArray[np.float64]:
        """What the trees add up to, before sigmoid or softmax: [n, o]."""
        summed = self._model.predict(self._matrix(table), num_threads=self._threads, raw_score=True)
        return np.asarray(summed, np.float64).reshape(len(table), -1)

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

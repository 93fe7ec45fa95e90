"""Why a model scores as it does: SHAP values of the served graph, over rows of the holdout.

The Shapley value of a feature is the mean change of the score when it is put, in a random order with the others, into
a row that the model was trained on (Lundberg and Lee, arXiv 1705.07874, with an independent background). They sum to
the score less the mean score of the background, exactly. Sampled as by Strumbelj and Kononenko (Knowledge and
Information Systems 41, 2014), an order of its own for each pair of rows, walked forwards and backwards (antithetic);
everything is done twice, with other orders and another background: what does not repeat is no explanation.

The package `shap` gives the same values and is what the tests compare with. It is not used here: it scores one row
after the other, on one core, and a fresh process first compiles it, which took longer than all of this.

Shapes: n rows, k background rows, m features, c outputs (1, or a class each).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.errors import IntegrityError, explain
from pipelines.scoring.shapley import walked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.scoring.engine import Engine

    Matrix = NDArray[np.float64]

SEEDS = (20130901, 20130902)
#: Rows explained and background rows, where the budget allows them.
_ROWS, _BACKGROUND = 250, 160
#: Most rows that the model scores for one seed, and most pairs of rows at once.
_BUDGET, _PAIRS = 2_000_000, 8192
_LEAST_ROWS, _LEAST_BACKGROUND = 24, 12
#: Most values held at once, of all pairs, features and outputs.
_HELD = 8_000_000
#: How far the sum may be from the score, as a share of the scores' spread: they are float32.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Plan:
    """What is done for one seed."""

    rows: int
    background: int


def plan(features: int, held: int) -> Plan:
    """As many rows as the budget allows: each costs 2 x features x background scores."""
    rows, background = min(_ROWS, held), _BACKGROUND
    if (cost := rows * background * 2 * features) > _BUDGET:
        background = max(_LEAST_BACKGROUND, background * _BUDGET // cost)
    if (cost := rows * background * 2 * features) > _BUDGET:
        rows = max(min(_LEAST_ROWS, held), rows * _BUDGET // cost)
    return Plan(rows=rows, background=background)


class Codec:
    """Rows of features as a matrix of numbers, and back: a word is its place among all the words that were seen."""

    def __init__(self, engine: Engine, frames: Sequence[pl.DataFrame]) -> None:
        self.numeric, self.categorical = engine.numeric, engine.categorical
        self.features = [*self.numeric, *self.categorical]
        self.words: dict[str, list[str | None]] = {
            name: [None, *sorted({word for frame in frames for word in _text(frame, name).drop_nulls().to_list()})]
            for name in self.categorical
        }

    def matrix(self, frame: pl.DataFrame) -> Matrix:
        """[n, m], numeric features first; a numeric null is NaN."""
        columns = [frame.get_column(name).cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in self.numeric]
        for name in self.categorical:
            places = {word: float(place) for place, word in enumerate(self.words[name])}
            columns.append(np.array([places[word] for word in _text(frame, name).to_list()], np.float64))
        return np.column_stack(columns)

    def frame(self, matrix: Matrix) -> pl.DataFrame:
        """The rows of a matrix."""
        series = [pl.Series(name, matrix[:, place]) for place, name in enumerate(self.numeric)]
        for place, name in enumerate(self.categorical, len(self.numeric)):
            words = pl.Series(name, self.words[name], pl.String)
            series.append(words.gather(pl.Series(matrix[:, place].astype(np.uint32))))
        return pl.DataFrame(series)


@dataclass(frozen=True)
class Explained:
    """Shapley values of the same rows by two seeds."""

    features: tuple[str, ...]
    numeric: tuple[str, ...]
    frame: pl.DataFrame
    """The rows that were explained: n rows of features."""
    scores: Matrix
    """[n, c]."""
    values: tuple[Matrix, Matrix]
    """By seed, [n, m, c]."""
    bases: tuple[Matrix, Matrix]
    """By seed, [c]: the mean score of the background rows."""
    plan: Plan

    @cached_property
    def importance(self) -> tuple[Matrix, Matrix]:
        """By seed, [m]: mean absolute value over rows and outputs, in the score's unit."""
        first, second = (np.abs(values).mean(axis=(0, 2)) for values in self.values)
        return first, second

    @cached_property
    def order(self) -> list[int]:
        """Features by importance over both seeds, most important first."""
        mean = (self.importance[0] + self.importance[1]) / 2
        return [int(place) for place in np.argsort(-mean, kind="stable")]

    @cached_property
    def gap(self) -> float:
        """Greatest |base + sum of the values - score|, as a share of the scores' spread."""
        spread = max(float(self.scores.max() - self.scores.min()), 1e-9)
        return max(
            float(np.abs(base + values.sum(axis=1) - self.scores).max()) / spread
            for base, values in zip(self.bases, self.values, strict=True)
        )

    @cached_property
    def spread(self) -> float:
        """How far the seeds' importances are apart: mean absolute difference as a share of their mean."""
        first, second = self.importance
        total = float(first.sum() + second.sum())
        return 2 * float(np.abs(first - second).sum()) / total if total else 0.0

    def agree(self, top: int) -> int:
        """How many of the first seed's `top` features are among the second's."""
        first, second = (set(np.argsort(-values, kind="stable")[:top].tolist()) for values in self.importance)
        return len(first & second)


def explained(
    engine: Engine,
    background: pl.DataFrame,
    rows: pl.DataFrame,
    *,
    always: Sequence[int] = (),
    outputs: Sequence[int] = (0,),
) -> Explained:
    """Explains some rows of a frame by two seeds.

    Args:
        background: rows of the training period.
        rows: rows that the model was not trained on.
        always: places of rows that are to be explained, first of all and in this order; the others are drawn.
        outputs: which columns of the scores are explained.

    Raises:
        IntegrityError: the values do not sum to the score, so that they explain something else.
    """
    codec = Codec(engine, [background, rows])
    done = plan(len(codec.features), rows.height)
    drawn = np.random.default_rng(SEEDS[0]).permutation(rows.height)
    chosen = list(dict.fromkeys([*always, *(int(place) for place in drawn)]))[: max(done.rows, len(always))]
    frame = rows[chosen].select(codec.features)
    matrix = codec.matrix(frame)

    def plain(rows: pl.DataFrame) -> Matrix:
        scores = engine.score(rows).astype(np.float64)
        return scores[:, list(outputs)] if scores.ndim == 2 else scores[:, None]

    def score(rows: Matrix) -> Matrix:
        return plain(codec.frame(rows))

    found = score(matrix)
    values, bases = [], []
    for seed in SEEDS:
        dice = np.random.default_rng(seed)
        behind = background[dice.permutation(background.height)[: done.background].tolist()]
        known = codec.matrix(behind.select(codec.features))
        mean = score(known)
        values.append(shapley(score, matrix, found, known, mean, dice))
        bases.append(mean.mean(axis=0))
    made = Explained(
        features=tuple(codec.features),
        numeric=tuple(codec.numeric),
        frame=frame,
        # Scored as any other rows are: what the values sum to is held against it.
        scores=plain(frame),
        values=(values[0], values[1]),
        bases=(bases[0], bases[1]),
        plan=done,
    )
    if not made.gap <= TOLERANCE:
        raise IntegrityError(
            explain("explanations", f"values and base miss the score by {made.gap:.2g} of the scores' spread")
        )
    return made


def shapley(
    score: Callable[[Matrix], Matrix],
    rows: Matrix,
    scores: Matrix,
    background: Matrix,
    means: Matrix,
    dice: np.random.Generator,
) -> Matrix:
    """Values [n, m, c] of each row's features.

    Args:
        score: [any, m] to [any, c].
        rows: [n, m].
        scores: of the rows, [n, c].
        background: [k, m].
        means: scores of the background, [k, c].
        dice: chooses the orders.
    """
    n, m = rows.shape
    k, c = means.shape
    found = np.empty((n, m, c))
    step = max(1, min(_PAIRS // k, _HELD // (k * m * c)))
    for start in range(0, n, step):
        some = slice(start, start + step)
        inside = np.repeat(rows[some], k, axis=0)
        pairs = len(inside)
        every = np.arange(pairs)
        orders = dice.permuted(np.tile(np.arange(m), (pairs, 1)), axis=1)
        gained = np.zeros((pairs, m, c))
        first, last = np.tile(means, (pairs // k, 1)), np.repeat(scores[some], k, axis=0)
        for order in (orders, orders[:, ::-1]):
            mixed = np.tile(background, (pairs // k, 1))

            def put(place: NDArray[np.intp], mixed: Matrix = mixed, inside: Matrix = inside) -> Matrix:
                rows = np.arange(len(mixed))
                mixed[rows, place] = inside[rows, place]
                return score(mixed)

            for place, gain in walked(order.T, first, last, put):
                gained[every, place] += gain
        found[some] = gained.reshape(pairs // k, k, m, c).mean(axis=1) / 2
    return found


def _text(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame.get_column(name).cast(pl.String)

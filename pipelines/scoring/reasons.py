"""Reasons of a row: the features that moved its score most against the model's typical row, and by how much.

An effect is the Shapley value of the feature, against one background row: the typical row that the artifact keeps
(medians and first words). The effects of all features sum to the score less the typical row's. They are means over a
few pairs of walks (see `shapley`), which the artifact's digest chooses, the same ones for every row: a row's reasons
hang on nothing but the row and the model, and are the same bytes for any batch, shard and thread count. One pair
already gives what features do alone and two by two exactly; the others are for what they do three by three and more.

A feature whose value is the typical row's has the effect 0 exactly, and is never named. It costs
2 x pairs x (features - 1) scores a row; columns are exchanged whole, so that no row is copied.

Shapes: n rows, m features, p pairs, k reasons.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl

from pipelines.errors import SchemaMismatch, explain
from pipelines.scoring.shapley import walked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.scoring.engine import Engine, Scores

#: On a student of 19 features, 4 pairs name the same first reason as 400 do for 0.64 to 0.87 of the rows, 16 for 0.94.
PAIRS = 16
#: Most effects that a thread holds at once.
_HELD = 4_000_000


def names(count: int) -> list[tuple[str, str]]:
    """The columns of so many reasons: feature and effect.

    >>> names(2)
    [('reason_1', 'reason_1_effect'), ('reason_2', 'reason_2_effect')]
    """
    return [(f"reason_{place}", f"reason_{place}_effect") for place in range(1, count + 1)]


class Reasons:
    """Reasons by one model. May be called from several threads at once."""

    def __init__(self, engine: Engine, digest: str, count: int, *, pairs: int = PAIRS) -> None:
        """Scores the typical row, and chooses the walks.

        Args:
            digest: SHA-256 (hex) of the artifact.
            count: reasons of a row; fewer where fewer features have an effect.
            pairs: of walks.

        Raises:
            SchemaMismatch: the artifact keeps no typical row.
        """
        import numpy as np

        self.features = [*engine.numeric, *engine.categorical]
        example = engine.facts.get("example") or {}
        if absent := [name for name in self.features if name not in example]:
            raise SchemaMismatch(
                explain(
                    "scoring.reasons",
                    f"the model keeps no typical row to compare with: no {', '.join(absent[:5])}",
                    remedy="retrain: what was trained before there were reasons has none",
                )
            )
        self._engine, self._count = engine, count
        schema = dict.fromkeys(engine.numeric, pl.Float32) | dict.fromkeys(engine.categorical, pl.String)
        typical = pl.DataFrame({name: [example[name]] for name in self.features}, schema=schema)
        self._typical = engine.encode(typical)
        self._base = engine.score(typical).astype(np.float64)[0]
        dice = np.random.Generator(np.random.PCG64(int(digest, 16)))
        orders = [dice.permutation(len(self.features)) for _ in range(pairs)]
        self._walks = [walk for order in orders for walk in (order, order[::-1])]

    def of(self, features: pl.DataFrame, scores: Scores) -> list[pl.Series]:
        """The columns `names` of each row; null where there are no more features with an effect.

        Args:
            features: n rows of at least the model's features.
            scores: what the engine gave for them; of classes, the likeliest one's score is explained.

        Raises:
            SchemaMismatch: see `Engine.score`.
            UnavailableError: see `Engine.score`.
        """
        import numpy as np

        step = max(1, min(self._engine.tile_rows, _HELD // len(self.features)))
        starts = range(0, features.height, step)

        def best(start: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
            return self._best(features.slice(start, step), scores[start : start + step])

        with ThreadPoolExecutor(self._engine.threads, thread_name_prefix="reasons") as pool:
            found = list(pool.map(best, starts))
        none = np.empty((0, self._count))
        places = np.concatenate([none.astype(np.intp), *(each[0] for each in found)])
        effects = np.concatenate([none.astype(np.float32), *(each[1] for each in found)])
        words = pl.Series(self.features, dtype=pl.String)
        columns = []
        for index, (name, effect) in enumerate(names(self._count)):
            there = pl.Series(effects[:, index] != 0)
            picked = pl.DataFrame(
                {name: words.gather(places[:, index]), effect: pl.Series(effects[:, index], dtype=pl.Float32)}
            )
            columns += picked.select(pl.when(there).then(pl.col(name, effect))).get_columns()
        return columns

    def effects(self, features: pl.DataFrame, scores: Scores) -> NDArray[np.float64]:
        """[n, m] how much each feature moved each row's score, in the score's unit.

        Args:
            features: as `of` takes them, no more rows than memory allows.
            scores: as `of` takes them.
        """
        import numpy as np

        rows = features.height
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else None
        every = np.arange(rows)

        def explained(all_scores: NDArray[np.floating]) -> NDArray[np.float64]:
            mine = all_scores if chosen is None else all_scores[every, chosen]
            return mine.astype(np.float64)

        inputs = [self._engine.inputs[name] for name in self.features]
        own = self._engine.encode(features)
        typical = {name: np.repeat(values, rows) for name, values in self._typical.items()}
        first, last = explained(np.repeat(self._base[None], rows, axis=0)), explained(scores)
        found = np.zeros((rows, len(inputs)))
        for walk in self._walks:
            mixed = dict(typical)

            def put(place: int, mixed: dict[str, NDArray[np.generic]] = mixed) -> NDArray[np.float64]:
                mixed[inputs[place]] = own[inputs[place]]
                return explained(self._engine.score_encoded(mixed))

            for place, gained in walked(walk.tolist(), first, last, put):
                found[:, place] += gained
        return found / len(self._walks)

    def _best(self, tile: pl.DataFrame, scores: Scores) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """[n, k] the features with the greatest effects and those, 0 where there is none; of equal ones the first."""
        import numpy as np

        effects = np.zeros((tile.height, max(self._count, len(self.features))), np.float32)
        effects[:, : len(self.features)] = self.effects(tile, scores)
        order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, : self._count]
        best = np.take_along_axis(effects, order, axis=1)
        # A place past the features is of no effect, and names none.
        return np.minimum(order, len(self.features) - 1), best

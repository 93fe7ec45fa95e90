"""How the challenger behaves, whatever it scores: its scores' shape, what it listens to, and what must not matter.

Everything but the scores themselves is looked at on a bounded sample of rows, drawn by a fixed seed, so that a holdout
of 200,000 rows costs no more than one of 4,000. Shapes: n rows, c classes; scores are [n], or [n, c].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.records import GoldenOutcome, SanityChecks
from pipelines.scoring.engine import Engine
from pipelines.spec import Golden, UseCase
from pipelines.steps.evaluation.meeting import Meeting
from pipelines.steps.seen import on_seen, read_seen, skill

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.floating]
    Score = Callable[[pl.DataFrame], Scores]

#: Rows on which a feature's values are shuffled, and batches are cut.
SHUFFLED_ROWS, CUT_ROWS = 2048, 256
#: Rows of a batch that must not matter; the whole is the third.
BATCHES = (1, 7)
_SEED = 20131019
#: What the probabilities of one row may miss 1 by.
_SUM = 1e-3


def sanity_checks(meeting: Meeting) -> Mapping[str, Any]:
    """The field `sanity` of an evaluation."""
    engine, spec = meeting.engine, meeting.spec
    distinct, same = shape(meeting.scores)
    seen, collapse = against_seen(meeting)
    return {
        "sanity": SanityChecks(
            distinct=distinct,
            same=same,
            outside=outside(meeting.scores, probabilities=spec.label.task != "regression"),
            sensitivity=sensitivity(engine.score, drawn(meeting.frame, SHUFFLED_ROWS), spec.features.columns),
            invariance=invariance(meeting.folder, engine, drawn(meeting.frame, CUT_ROWS)),
            seen_metric=seen,
            collapse=collapse,
            golden=tuple(golden(pair, engine, spec) for pair in spec.gates.golden),
        )
    }


def drawn(frame: pl.DataFrame, rows: int) -> pl.DataFrame:
    """At most `rows` rows, drawn by the seed, in their order."""
    import numpy as np

    if frame.height <= rows:
        return frame
    return frame[np.sort(np.random.default_rng(_SEED).permutation(frame.height)[:rows])]


def shape(scores: Scores) -> tuple[int, float]:
    """How many scores differ, and the share of rows with the most frequent one (classes: a row of them)."""
    import numpy as np

    plain = np.ascontiguousarray(scores)
    # A row of classes is compared by its bytes: as one value of its width.
    values = plain if plain.ndim == 1 else plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1])))[:, 0]
    _, counts = np.unique(values, return_counts=True)
    return len(counts), float(counts.max() / len(values))


def outside(scores: Scores, *, probabilities: bool) -> int:
    """Rows whose score is not finite or, where it should be one, no probability; of classes, they must add up to 1."""
    import numpy as np

    rows = scores.reshape(len(scores), -1)
    good = np.isfinite(rows).all(axis=1)
    if probabilities:
        with np.errstate(invalid="ignore"):
            good &= ((rows >= 0) & (rows <= 1)).all(axis=1)
            if rows.shape[1] > 1:
                good &= np.abs(rows.sum(axis=1) - 1) <= _SUM
    return int((~good).sum())


def sensitivity(score: Score, frame: pl.DataFrame, features: tuple[str, ...]) -> dict[str, float]:
    """By feature, the mean absolute change of the score when its values are shuffled among the rows.

    The permutation importance of Breiman (2001), of the score itself and not of an error, so that no label is needed.
    Of classes, half of the sum over the classes: the probability that moves.
    """
    import numpy as np

    before = score(frame)
    rng = np.random.default_rng(_SEED)
    found = {}
    for name in features:
        shuffled = frame.with_columns(frame.get_column(name)[rng.permutation(frame.height)])
        moved = np.abs(score(shuffled).astype(np.float64) - before)
        found[name] = float(moved.mean() if moved.ndim == 1 else moved.sum(axis=1).mean() / 2)
    return found


def invariance(folder: Path, engine: Engine, frame: pl.DataFrame) -> dict[str, float]:
    """Greatest absolute difference of a score, by what was changed.

    column_order: the frame's columns in two other orders. batch_size: batches of 1 and of 7 rows, over several threads.
    Both are the engine's and are 0.0. graph: the registered file as any client of ONNX runs it, text in, inputs in
    another order, in batches of 1, of 7 and as a whole, as a share of the largest score. It is not 0.0 everywhere: ONNX
    Runtime has kernels of its own for a single row, which round otherwise in the last bit (the engine pads them away).
    """
    import numpy as np

    names = [*engine.numeric, *engine.categorical]
    whole = engine.score(frame)
    mixed = [names[i] for i in np.random.default_rng(_SEED).permutation(len(names))]
    orders = [engine.score(frame.select(order)) for order in (names[::-1], mixed)]
    cut = [Engine(folder, tile_rows=rows, threads=2).score(frame) for rows in BATCHES]
    plain = list(_by_any_client(folder, engine, frame))
    largest = max(float(np.abs(whole).max()), 1e-30)
    return {
        "column_order": apart(whole, *orders),
        "batch_size": apart(whole, *cut),
        "graph": apart(whole, *plain) / largest,
    }


def apart(one: Scores, *others: Scores) -> float:
    """Greatest absolute difference; infinite where one is a number and the other is not."""
    import numpy as np

    greatest = 0.0
    for other in others:
        with np.errstate(invalid="ignore"):
            difference = np.abs(one.astype(np.float64) - other)
        difference[(one == other) | (np.isnan(one) & np.isnan(other))] = 0.0
        greatest = max(greatest, float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max()))
    return greatest


def _by_any_client(folder: Path, engine: Engine, frame: pl.DataFrame) -> list[Scores]:
    """Scores of the registered graph, in batches of 1, of 7 and as a whole."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    fed: dict[str, Any] = {
        name: frame.get_column(name).cast(pl.String).fill_null("").to_numpy().astype(object)
        for name in reversed(engine.categorical)
    }
    for name in reversed(engine.numeric):
        fed[name] = frame.get_column(name).cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return [
        np.concatenate(
            [
                session.run(["score"], {name: values[start : start + rows] for name, values in fed.items()})[0]
                for start in range(0, frame.height, rows)
            ]
        )
        for rows in (*BATCHES, frame.height)
    ]


def against_seen(meeting: Meeting) -> tuple[float | None, float | None]:
    """The gate's metric on rows that the model was trained on, and how much worse it is on the holdout.

    The difference is that of `skill`, so that a holdout whose outcomes spread more is not taken for a collapse. A model
    that has learned the past by heart, or whose features know the outcome of the past only, falls.

    Returns:
        None twice where the training rows are not at hand and the artifact does not say it by this metric; the second
        also where the metric is not defined.
    """
    spec, trained = meeting.spec, meeting.trained
    path = Path(trained.training_set.folder) / "train.parquet"
    if path.is_file():
        seen = on_seen(spec, meeting.engine, path)
    else:
        told = read_seen(meeting.folder, trained.digest)
        if told is None or told.metric != spec.gates.metric:
            return None, None
        seen = told
    now = skill(spec, meeting.labels, meeting.scores)
    return seen.value, None if seen.skill is None or now is None else seen.skill - now


def golden(pair: Golden, engine: Engine, spec: UseCase) -> GoldenOutcome:
    """Scores both rows of a pair.

    Raises:
        ValueError: the artifact has no typical row, since an older trainer made it.
    """
    example = engine.facts.get("example")
    if example is None:
        raise ValueError("model.json has no example: train again")
    first = {**example, **pair.given}
    schema: dict[str, type[pl.DataType]] = {
        **dict.fromkeys(engine.numeric, pl.Float32),
        **dict.fromkeys(engine.categorical, pl.String),
    }
    rows = pl.DataFrame([first, {**first, **pair.changed}], schema=schema, strict=False)
    scores = engine.score(rows)
    of = scores if pair.of is None else scores[:, spec.label.classes.index(pair.of)]
    before, after = float(of[0]), float(of[1])
    return GoldenOutcome(name=pair.name, before=before, after=after, passed=holds(pair, before, after))


def holds(pair: Golden, before: float, after: float) -> bool:
    """Whether the score went where the pair says; what did not move has neither risen nor fallen."""
    moved = after - before
    if pair.score == "stays":
        return abs(moved) <= pair.by
    risen = moved if pair.score == "rises" else -moved
    return risen > 0 and risen >= pair.by

"""What a fault does to the frame of one partition. Pure, and the same each time."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl

from pipelines.spec import UseCase
from pipelines.spec.drills import (
    Change,
    Concept,
    Fault,
    Flip,
    LateLabels,
    Lost,
    Newcomer,
    Nulls,
    Scale,
    Shift,
    Stuck,
    Thin,
    Together,
)


def broken(spec: UseCase, fault: Fault, table: str, partition: str, night: int, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame as the fault leaves it.

    Args:
        partition: it seeds what is chosen at random.
        night: of the fault, from 1.
        frame: what the source sent.
    """
    if isinstance(fault, LateLabels | Lost):
        return frame  # these change when a file comes, and not what is in it
    if isinstance(fault, Together):
        for number, each in enumerate(fault.faults):
            frame = _changed(spec, each, table, f"{partition}/{number}", night, frame)  # other rows for each
        return frame
    return _changed(spec, fault, table, partition, night, frame)


def _changed(spec: UseCase, fault: Change, table: str, seed: str, night: int, frame: pl.DataFrame) -> pl.DataFrame:
    generator = np.random.default_rng(zlib.crc32(f"{spec.name}/{table}/{seed}".encode()))
    if isinstance(fault, Flip | Concept):
        if table != spec.label.table:
            return frame
        if isinstance(fault, Flip):
            return _flipped(spec, frame, fault.share, generator)
        return _shuffled(spec, frame, fault.share * _grown(fault, night), generator)
    if isinstance(fault, Thin):
        return _thinned(spec, frame, fault.share)
    if table != fault.table:
        return frame
    types = {name: frame.schema[name] for name in fault.columns}
    if isinstance(fault, Shift):
        made = [pl.col(name) + fault.add * _grown(fault, night) for name in fault.columns]
    elif isinstance(fault, Scale):
        made = [pl.col(name) * (1 + (fault.by - 1) * _grown(fault, night)) for name in fault.columns]
    elif isinstance(fault, Stuck):
        made = [pl.lit(fault.value).alias(name) for name in fault.columns]
    else:
        chosen = pl.lit(generator.random(frame.height) < fault.share)
        value = pl.lit(fault.value if isinstance(fault, Newcomer) else None)
        made = [pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name) for name in fault.columns]
        assert isinstance(fault, Newcomer | Nulls)
    return frame.with_columns(each.cast(types[each.meta.output_name()]) for each in made)


def _thinned(spec: UseCase, frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """Rows by their key, so that a row and its label stay or go together; a table without that key stays."""
    if not set(spec.rows.key) <= set(frame.columns):
        return frame
    kept = frame.select(pl.struct(spec.rows.key).hash(seed=7)).to_series() % 1_000_000 < share * 1_000_000
    return frame.filter(kept)


def _grown(fault: Shift | Scale | Concept, night: int) -> float:
    return min(1.0, night / fault.over)


def _flipped(spec: UseCase, frame: pl.DataFrame, share: float, generator: np.random.Generator) -> pl.DataFrame:
    """Chosen labels take the value of a row that has another one: for a binary label, of the other class."""
    values = frame.get_column(spec.label.column)
    kinds = _classes(spec, values)
    chosen = np.flatnonzero((generator.random(len(values)) < share) & kinds.is_not_null().to_numpy())
    source = np.arange(len(values))
    for row in chosen:
        others = np.flatnonzero((kinds != kinds[int(row)]).fill_null(value=False).to_numpy())
        if others.size:
            source[row] = generator.choice(others)
    return frame.with_columns(values.gather(source).alias(spec.label.column))


def _classes(spec: UseCase, values: pl.Series) -> pl.Series:
    """What is another label: the class; of a number that is to be told itself, the number."""
    positive = spec.label.positive
    if positive is None:
        return values
    return values > positive.above if positive.above is not None else values == positive.equals


def _shuffled(spec: UseCase, frame: pl.DataFrame, share: float, generator: np.random.Generator) -> pl.DataFrame:
    values = frame.get_column(spec.label.column)
    chosen = np.flatnonzero(generator.random(len(values)) < share)
    source = np.arange(len(values))
    source[chosen] = generator.permutation(chosen)
    return frame.with_columns(values.gather(source).alias(spec.label.column))

"""Which labels of scored rows are there, matured, and to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipelines import partitions as keys
from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import labelled


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Scored rows and their labels."""

    rows: pl.DataFrame
    """`partition`, the key, the scores, and `label`: rows with a label that is believed."""
    unlabelled: Mapping[str, int]
    """Scored rows without any, by mature partition."""
    strange: int
    """Labels of keys that no scored row has."""
    disagreeing: int
    """Keys with several labels that differ."""


def newest_mature(spec: UseCase, as_of: str) -> str:
    """The newest partition whose labels should be there and have matured when `as_of` is the newest one."""
    return keys.shift(as_of, -max(spec.label.maturity, spec.tables[spec.label.table].lag), spec.granularity)


def mature(spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, wanted: Sequence[str], as_of: str) -> list[str]:
    """The partitions whose labels are published and have matured by `as_of`: a partition, never the clock."""
    newest, held = newest_mature(spec, as_of), store.partitions(snapshot)
    return [key for key in wanted if key <= newest and key in held]


def late(spec: UseCase, snapshot: Mapping[str, object], scored: Sequence[str], as_of: str) -> tuple[str, ...]:
    """Scored partitions whose labels should have matured and are not published.

    Args:
        snapshot: the published partitions of labels.
    """
    newest = newest_mature(spec, as_of)
    return tuple(key for key in scored if key <= newest and key not in snapshot)


def labelled_scores(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    scores: pl.DataFrame,
    known: Sequence[str],
) -> Labelled:
    """Scores joined with the labels of mature partitions, each row by the label of its own partition.

    A key whose labels differ has none that is believed; one that is told twice the same counts once.

    Args:
        scores: `partition`, the key, scores.
        known: mature partitions.
    """
    chosen = sorted(set(known).intersection(scores.get_column("partition").unique()))
    on = ["partition", *spec.rows.key]  # a key is unique within its partition
    told = labelled(spec, store.scan(snapshots[spec.label.table], chosen)).collect()
    once = told.unique(maintain_order=True)
    several = once.filter(once.select(on).is_duplicated())
    believed = once.join(several.select(on).unique(), on=on, how="anti", maintain_order="left")
    mine = scores.filter(pl.col("partition").is_in(chosen))
    rows = mine.join(believed, on=on, how="inner", maintain_order="left")
    missing = mine.join(believed.select(on), on=on, how="anti").group_by("partition").len().sort("partition")
    return Labelled(
        rows=rows,
        unlabelled=dict(missing.iter_rows()),
        strange=once.select(on).unique().join(mine.select(on), on=on, how="anti").height,
        disagreeing=several.select(on).unique().height,
    )


def newer_labels(spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, seen: str, as_of: str) -> int:
    """How many matured labels are newer than a partition."""
    newest = newest_mature(spec, as_of)
    fresh = [key for key in store.partitions(snapshot) if seen < key <= newest]
    rows = store.scan(snapshot, fresh, [spec.label.column]).filter(pl.col(spec.label.column).is_not_null())
    return int(rows.select(pl.len()).collect().item())

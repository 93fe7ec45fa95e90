"""The part of a training set that has no labels: features from which the student learns what the teacher thinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import build_features, labelled

_CHUNK = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Unlabelled:
    """What was written."""

    rows: int = 0
    partitions: tuple[str, ...] = ()
    """Those that gave rows, in order."""
    newer: tuple[str, str] | None = None
    """The first and the last of them that is newer than the holdout."""


def write_unlabelled(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    split: Mapping[str, Sequence[str]],
    as_of: str,
    path: Path,
) -> Unlabelled:
    """Writes features of rows that have no label: of the train stretch, and of partitions newer than the holdout.

    No label of a newer partition is read, mature or not; no row of a validation or holdout partition is. No file is
    written where the spec does not want one or there are no such rows.

    Args:
        split: the partitions of train, validation and holdout.
        as_of: the newest partition that may be read.
    """
    if not (spec.training.student.unlabelled and spec.training.model == "tabm"):
        return Unlabelled()
    first, last, end = split["train"][0], split["train"][-1], split["holdout"][-1]
    held = sorted(store.partitions(snapshots["rows"]))
    span = [key for key in held if first <= key <= last]
    newer = [key for key in held if end < key <= as_of]
    known = set(split["train"])
    pieces = [
        _without_label(spec, store, snapshots, chosen[start : start + _CHUNK], known)
        for chosen in (span, newer)
        for start in range(0, len(chosen), _CHUNK)
    ]
    frame = pl.concat(pieces)
    if frame.is_empty():
        return Unlabelled()
    frame.write_parquet(path, compression="zstd")
    gave = set(frame.get_column("partition").unique())
    late = [key for key in newer if key in gave]
    return Unlabelled(
        rows=frame.height,
        partitions=tuple(key for key in (*span, *newer) if key in gave),
        newer=(late[0], late[-1]) if late else None,
    )


def _without_label(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    chunk: Sequence[str],
    known: set[str],
) -> pl.DataFrame:
    """Features of the rows of a chunk that have no label, in the snapshot's order.

    Args:
        known: the partitions whose labels may be read.
    """
    rows = build_features(spec, store, snapshots, chunk)
    if judged := [key for key in chunk if key in known]:
        on = ["partition", *spec.rows.key]  # a key is unique within its partition
        labels = labelled(spec, store.scan(snapshots[spec.label.table], judged)).select(on)
        mine = pl.col("partition").is_in(judged)
        without = rows.filter(mine).join(labels, on=on, how="anti", maintain_order="left")
        rows = pl.concat([without, rows.filter(~mine)])
    return rows.collect()

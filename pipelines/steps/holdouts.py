"""The rows on which models meet: newer than what any of them learned from, matured, pinned by snapshots."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipelines.errors import GateRefused, explain
from pipelines.parquet import sha256
from pipelines.ports import SnapshotStore
from pipelines.records import Holdout, TrainingSet
from pipelines.spec import UseCase
from pipelines.steps.parts import matured, write_part


def of_training(training_set: TrainingSet) -> Holdout:
    """The holdout that a training set was split off."""
    path = Path(training_set.folder) / "holdout.parquet"
    return Holdout(
        path=str(path),
        partitions=training_set.holdout,
        as_of=training_set.as_of,
        snapshots=training_set.snapshots,
        rows=pl.scan_parquet(path).select(pl.len()).collect().item(),
        digest=sha256(path),
    )


def newest(spec: UseCase, store: SnapshotStore, as_of: str, learned: Sequence[str], work: Path) -> Holdout:
    """The newest `training.holdout` matured partitions that no model on trial has learned from.

    The same snapshots give the same bytes as a training set's holdout has. Written below `work`, in the folder of
    training sets, where an erasure looks for copies of rows.

    Args:
        as_of: the newest partition that may be used; labels must have matured by then.
        learned: the newest partition that each model learned from.

    Raises:
        GateRefused: there are too few such partitions, or no labelled row in them.
    """
    snapshots, usable = matured(spec, store, as_of)
    after = max(learned, default="")
    fresh = [key for key in usable if key > after]
    wanted = spec.training.holdout
    where = f"{spec.name}: newest holdout as of {as_of}"
    if len(fresh) < wanted:
        raise GateRefused(
            explain(
                where,
                f"{len(fresh)} matured partitions are newer than {after or 'the beginning'}, which a model on trial "
                f"has learned from",
                allowed=f"at least training.holdout, {wanted}",
                remedy="wait for more labels, or name a later --as-of",
            )
        )
    chosen = fresh[-wanted:]
    sets = work / spec.name / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".holdout-", dir=sets))
    try:
        rows = write_part(spec, store, snapshots, chosen, building / "holdout.parquet")
        if not rows:
            raise GateRefused(explain(where, f"no row of {chosen[0]} to {chosen[-1]} has a label"))
        digest = sha256(building / "holdout.parquet")
        folder = sets / f"holdout-{digest[:16]}"
        folder.mkdir(exist_ok=True)
        path = (building / "holdout.parquet").replace(folder / "holdout.parquet")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Holdout(
        path=str(path),
        partitions=(chosen[0], chosen[-1]),
        as_of=as_of,
        snapshots=tuple(snapshots.values()),
        rows=rows,
        digest=digest,
    )

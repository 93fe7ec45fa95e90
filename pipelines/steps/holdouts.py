"""The rows on which models meet: newer than what any of them learned from, matured, pinned by snapshots."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipelines.parquet import sha256
from pipelines.records import Holdout, TrainingSet


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

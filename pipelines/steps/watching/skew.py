"""Training/serving skew: the same rows, made into features both ways, must give identical values.

Scoring makes the features of a partition when it is alone; training makes them beside other partitions. A feature
function that looks across rows, a join that depends on its neighbours or on their order, would not give the same, and a
model would be served something else than it learned from.
"""

from __future__ import annotations

import polars as pl

from pipelines import partitions as keys
from pipelines.errors import RemovedError
from pipelines.ports import SnapshotStore
from pipelines.records import Skew, SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import build_features
from pipelines.steps.training import sample

#: Partitions on either side beside which training's way is gone.
_AROUND = 2


def skew(spec: UseCase, store: SnapshotStore, snapshots: dict[str, SnapshotRef], partition: str) -> Skew | None:
    """Compares a sample of a partition's rows, bit by bit; nulls equal nulls. None: not asked for, or erased meanwhile.

    Args:
        snapshots: of the rows and each context table: those that scoring read.
    """
    if not spec.drift.skew_rows:
        return None
    key = list(spec.rows.key)
    held = store.partitions(snapshots["rows"])
    low, high = (keys.shift(partition, by, spec.granularity) for by in (-_AROUND, _AROUND))
    beside = [each for each in keys.span(low, high, spec.granularity) if each in held]
    try:
        alone = sample(build_features(spec, store, snapshots, [partition]).collect(), key, spec.drift.skew_rows)
        together = build_features(spec, store, snapshots, beside).filter(pl.col("partition") == partition).collect()
    except RemovedError:
        return None
    columns = list(spec.features.columns)
    both = alone.select(*key, *columns).join(together.select(*key, *columns), on=key, how="left", suffix="__training")
    differ = both.select((~pl.col(name).eq_missing(pl.col(f"{name}__training"))).sum().alias(name) for name in columns)
    counts = differ.row(0, named=True)
    return Skew(partition=partition, rows=alone.height, columns={name: n for name, n in counts.items() if n})

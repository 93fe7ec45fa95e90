"""The rows that a model learns from or is judged on: features joined with matured labels, as one Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipelines import partitions as keys
from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import build_features, labelled
from pipelines.steps.inputs import heads

_CHUNK = 64
_ROW_GROUP = 65_536


def mature_partitions(spec: UseCase, rows: Sequence[str], labels: Sequence[str], as_of: str) -> list[str]:
    """Partitions of `rows` whose labels had arrived and matured when `as_of` was the newest partition."""
    wait = max(spec.label.maturity, spec.tables[spec.label.table].lag)
    newest = keys.shift(as_of, -wait, spec.granularity)
    return sorted(key for key in set(rows) & set(labels) if key <= newest)


def matured(spec: UseCase, store: SnapshotStore, as_of: str) -> tuple[dict[str, SnapshotRef], list[str]]:
    """The newest snapshots of every table that a model learns from, and their partitions with matured labels.

    Raises:
        NotFoundError: a table was never published.
    """
    snapshots = heads(spec, store, list(dict.fromkeys(("rows", spec.label.table, *spec.context))))
    rows, labels = (list(store.partitions(snapshots[table])) for table in ("rows", spec.label.table))
    return snapshots, mature_partitions(spec, rows, labels, as_of)


def write_part(
    spec: UseCase, store: SnapshotStore, snapshots: Mapping[str, SnapshotRef], chosen: Sequence[str], path: Path
) -> int:
    """Features joined with labels by partition and key, and with weights where the spec names them, in partition order.

    Rows without a label are left out.
    """
    pieces = []
    for start in range(0, len(chosen), _CHUNK):  # the context of one chunk at a time keeps memory flat
        chunk = chosen[start : start + _CHUNK]
        features = build_features(spec, store, snapshots, chunk)
        on = ["partition", *spec.rows.key]  # a key is unique within its partition
        carried = [_weight(spec)] if spec.weight_table not in (None, "rows") else []
        labels = labelled(spec, store.scan(snapshots[spec.label.table], chunk), *carried)
        joined = features.join(labels, on=on, how="inner", maintain_order="left")
        if spec.weight_table == "rows":
            weights = store.scan(snapshots["rows"], chunk).select(*on, _weight(spec))
            joined = joined.join(weights, on=on, how="left", maintain_order="left")
        pieces.append(joined.collect())
    frame = pl.concat(pieces)
    # Small row groups: a table that does not fit into memory is streamed by them, and mixed by them.
    frame.write_parquet(path, compression="zstd", row_group_size=_ROW_GROUP)
    return frame.height


def _weight(spec: UseCase) -> pl.Expr:
    assert spec.training.sample_weight is not None
    return pl.col(spec.training.sample_weight).cast(pl.Float32).alias("weight")

"""Shards' files of one partition become one, byte for byte as if one process had written it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from pipelines.counts import NOTE, total
from pipelines.errors import ConflictError, explain
from pipelines.parquet import Writer, notes
from pipelines.records import Counts
from pipelines.row_groups import join
from pipelines.spec import UseCase
from pipelines.steps.scorer import BATCH_ROWS, UNKNOWN, noted, repeated


def merge(spec: UseCase, files: list[Path], unseen: dict[str, float], path: Path) -> int:
    """Merges pieces of one partition, in their order; gives the rows.

    Nothing of the model is loaded: the pieces' columns are what it gave. Row groups that are whole are copied.

    Args:
        unseen: filled with the share of unknown values by categorical feature.

    Raises:
        ConflictError: the published table got another column between two of them.
    """
    schema, *others = map(pl.read_parquet_schema, files)
    if any(other != schema for other in others):
        raise ConflictError(
            explain(
                f"{spec.name}: pieces of {path.name}",
                "the columns of the predictions changed while they were scored",
                remedy="score it again",
            )
        )
    told = [notes(file) for file in files]
    unknown: dict[str, int] = {}
    for each in told:
        for name, count in json.loads(each[UNKNOWN]).items():
            unknown[name] = unknown.get(name, 0) + count
    said = noted(total([Counts.model_validate_json(each[NOTE]) for each in told]), unknown, unseen)
    if (rows := join(files, path, said)) is not None:
        return rows
    with Writer(path, pl.Schema(schema), repeated(spec)) as merged:
        scan = pl.scan_parquet(files, hive_partitioning=False)
        for frame in scan.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming"):
            merged.write(frame)
        return merged.close(said)

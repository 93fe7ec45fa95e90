"""Scores on their way to the predictions table."""

from __future__ import annotations

from typing import Literal

from pipelines.records.base import Record
from pipelines.records.snapshots import SnapshotRef, StagedPartition, Validated
from pipelines.records.training import ModelRef


class Scored(Record):
    """Scores that are staged, not yet visible; or, for a repeat, already published."""

    model: ModelRef
    inputs: tuple[SnapshotRef, ...]
    staged: tuple[StagedPartition, ...]
    rows_in: dict[str, int]
    """Rows of the input partition, by partition."""
    fingerprints: dict[str, str]
    """SHA-256 over the digests of everything that a partition's features read, by partition."""
    reads: dict[str, dict[str, tuple[str, str]]] = {}
    """What a staged partition's features read: first and last partition of each table's snapshot, by partition."""
    spec: str = ""
    """Digest of the use case's spec."""
    threshold: float | None = None
    """The score from which the model decides a staged row positive; None unless binary, or where none is staged."""
    unseen: dict[str, dict[str, float]]
    """Share of unseen values by partition and categorical feature."""
    unchanged: tuple[str, ...] = ()
    """Partitions whose predictions by this model from these inputs are published already."""


class AuditedScores(Record):
    """Scores with their passing audits."""

    scored: Scored
    validated: Validated


class Prediction(Record):
    """One partition of published predictions."""

    partition: str
    model_version: int
    """The version that made the rows: for an unchanged partition, the one that made them then."""
    inputs: tuple[SnapshotRef, ...]
    rows_in: int
    rows_scored: int
    digest: str
    state: Literal["published", "unchanged"]
    snapshot: SnapshotRef

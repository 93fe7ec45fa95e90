"""Scores on their way to the predictions table."""

from __future__ import annotations

import hashlib
from typing import Literal

from pipelines.records.base import Record, RunInfo
from pipelines.records.snapshots import SnapshotRef, StagedPartition, Validated
from pipelines.records.training import ModelRef


class Shard(Record):
    """What is scored in one piece: whole partitions, or rows of a single one."""

    partitions: tuple[str, ...]
    start: int = 0
    """First row, in the snapshot's order, where there is one partition."""
    rows: int | None = None
    """So many rows; None: to the end."""


class ScorePlan(Record):
    """What a run scores with one model, resolved once: nothing that happens meanwhile changes it."""

    model: ModelRef
    inputs: tuple[SnapshotRef, ...]
    rows_in: dict[str, int]
    """Rows of each input partition that was asked for."""
    fingerprints: dict[str, str]
    """SHA-256 over the digests of everything that a partition's features read, by partition."""
    reads: dict[str, dict[str, tuple[str, str]]] = {}
    """What a due partition's features read: first and last partition of each table's snapshot, by partition."""
    homes: dict[str, str] = {}
    """Id of the snapshot that brought a due partition's rows, by partition."""
    due: tuple[str, ...] = ()
    """Partitions that are to be scored, in order."""
    unchanged: tuple[str, ...] = ()
    """Partitions whose predictions from these inputs are published already."""
    shards: tuple[Shard, ...] = ()
    """Everything that is due, in order."""
    run: RunInfo
    """Who scores; its `at` stands in every row."""
    anew: bool = False
    """Whether this model was asked for: what another one scored is scored again."""
    spec: str = ""
    """Digest of the use case's spec."""

    @property
    def key(self) -> str:
        """A name for what the plan would publish: another model, input, spec or run has another."""
        told = self.model_dump_json(include={"model", "fingerprints", "due", "homes", "spec", "run"})
        return hashlib.sha256(told.encode()).hexdigest()[:32]


class Piece(Record):
    """The scores of a shard: files that are merged before they are staged."""

    shard: Shard
    files: dict[str, str]
    """Path of a Parquet file by partition."""


class Scored(ScorePlan):
    """Scores that are staged, not yet visible; or, for a repeat, already published."""

    staged: tuple[StagedPartition, ...]
    threshold: float | None = None
    """The score from which the model decides a staged row positive; None unless binary, or where none is staged."""
    unseen: dict[str, dict[str, float]]
    """Share of unseen values by partition and categorical feature."""


class AuditedScores(Record):
    """Scores with their passing audits."""

    scored: Scored
    validated: Validated


class Delivered(Record):
    """What became of one partition at one delivery."""

    delivery: str
    sink: str
    partition: str
    key: str
    """Idempotency key: of use case, delivery, partition, model version and the digest of what was published."""
    rows: int
    where: str
    """For a person, without secrets."""
    state: Literal["delivered", "unchanged"]


class DeliveryEntry(Record):
    """An entry of the log of deliveries: a partition that was handed over."""

    delivered: Delivered
    number: int
    """1 for the first time that this delivery had this partition."""
    digest: str
    """Of the published partition."""
    model_version: int
    snapshot: str
    """Id of the first snapshot that held it."""
    run: RunInfo


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

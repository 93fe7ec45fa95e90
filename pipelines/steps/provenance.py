"""What was recorded of where things came from, read back: commits' notes, the registry's tags, the logs, tombstones.

There is no second database: `Books` opens those and answers both ways, what something was made from and what was made
from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipelines.errors import NotFoundError
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import (
    Commit,
    DeliveryEntry,
    Promotion,
    PublishedPartition,
    RetrainDecision,
    SnapshotRef,
    Tombstone,
    TrainingRun,
)
from pipelines.spec import UseCase
from pipelines.steps.decisions import DECISIONS, decisions
from pipelines.steps.deliveries import DELIVERIES, deliveries
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import PROMOTIONS, promotions
from pipelines.steps.reads import within

#: Tables whose entries are there for good: what was decided cannot become undecided.
LOGS = (PROMOTIONS, DECISIONS, DELIVERIES)


def all_tables(spec: UseCase) -> tuple[str, ...]:
    """Every table that the use case's store may hold: what lands, the predictions, the logs."""
    return (*spec.tables, PREDICTIONS, *LOGS)


def key_columns(spec: UseCase, table: str) -> tuple[str, ...]:
    """The columns that tell a table's rows apart; none for a log."""
    if table == PREDICTIONS:
        return spec.rows.key
    return spec.tables[table].key if table in spec.tables else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One partition's bytes in a table."""

    table: str
    partition: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """One partition of predictions, published at some time: what its commit says of where it came from."""

    part: Part
    commit: Commit
    version: int
    artifact: str
    """Digest of the model's artifact."""
    training: str
    """The MLflow run of the model."""
    snapshots: dict[str, SnapshotRef]
    """What was read, by table."""
    read: tuple[Part, ...]
    """The exact partitions of them."""
    threshold: float | None = None
    """The score from which a row was decided positive; None where none was recorded."""


@dataclass(kw_only=True)
class Books:
    """Everything recorded of one use case, read when first asked for and then kept."""

    spec: UseCase
    store: SnapshotStore
    registry: ModelRegistry
    _histories: dict[str, list[Commit]] = field(default_factory=dict)
    _aliases: dict[str, int | None] = field(default_factory=dict)
    _learned: dict[str, list[Part]] = field(default_factory=dict)
    _by_key: dict[str, dict[str, list[Commit]]] = field(default_factory=dict)
    _versions: dict[str, set[str]] = field(default_factory=dict)
    _current: dict[str, dict[str, PublishedPartition]] = field(default_factory=dict)
    _held: dict[str, dict[str, PublishedPartition]] = field(default_factory=dict)

    def history(self, table: str) -> list[Commit]:
        """A table's commits, newest first."""
        if table not in self._histories:
            self._histories[table] = self.store.history(table)
        return self._histories[table]

    @cached_property
    def _by_version(self) -> dict[int, TrainingRun]:
        return {run.model.version: run for run in self.trainings if run.model is not None}

    @property
    def commits(self) -> Iterator[Commit]:
        """Every commit of every table, a table at a time."""
        for table in all_tables(self.spec):
            yield from self.history(table)

    def held(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:
        """What a snapshot holds; nothing when it is not there."""
        if snapshot.id not in self._held:
            try:
                self._held[snapshot.id] = self.store.partitions(snapshot)
            except NotFoundError:
                self._held[snapshot.id] = {}
        return self._held[snapshot.id]

    def commit(self, snapshot: SnapshotRef) -> Commit | None:
        """The commit of the table that made a snapshot what it is.

        A store that versions all tables together (lakeFS) also has snapshots of a table that another table's commit
        made: what they hold is what the table's last commit before left.
        """
        for commit in self.history(snapshot.table):
            if commit.snapshot == snapshot:
                return commit
        held = self.held(snapshot)
        return next((each for each in self.history(snapshot.table) if held and self.held(each.snapshot) == held), None)

    def same(self, one: SnapshotRef, other: SnapshotRef) -> bool:
        """Whether two snapshots are the same state of a table, whichever commit they are named by."""
        if one == other or one.table != other.table:
            return one == other
        if self._own(one) and self._own(other):
            return False
        return bool(self.held(one)) and self.held(one) == self.held(other)

    def _own(self, snapshot: SnapshotRef) -> bool:
        """Whether a commit of its own table made it."""
        if snapshot.table not in self._versions:
            self._versions[snapshot.table] = {commit.snapshot.version for commit in self.history(snapshot.table)}
        return snapshot.version in self._versions[snapshot.table]

    def current(self, table: str) -> dict[str, PublishedPartition]:
        """What readers see now."""
        if table not in self._current:
            head = self.store.head(table)
            self._current[table] = self.held(head) if head is not None else {}
        return self._current[table]

    def published(self, table: str, partition: str, digest: str | None = None) -> list[Commit]:
        """The commits that put a partition (exactly these bytes, when a digest is given) there, newest first."""
        if table not in self._by_key:
            by_key: dict[str, list[Commit]] = {}
            for commit in self.history(table):
                for key in commit.partitions:
                    by_key.setdefault(key, []).append(commit)
            self._by_key[table] = by_key
        found = self._by_key[table].get(partition, [])
        return [commit for commit in found if digest in (None, commit.partitions[partition])]

    def origin(self, part: Part) -> Commit | None:
        """The commit that made these bytes: a revert only brings bytes back."""
        commits = self.published(part.table, part.partition, part.digest)
        return next((commit for commit in commits if commit.kind != "revert"), commits[0] if commits else None)

    @cached_property
    def scorings(self) -> list[Scoring]:
        """Every partition of predictions that was ever published, newest first."""
        made: dict[Part, Scoring] = {}
        found = []
        for commit in reversed(self.history(PREDICTIONS)):
            for partition, told in commit.provenance.get("predictions", {}).items():
                if partition not in commit.partitions or "model" not in told:
                    continue
                scoring = _scoring(commit, partition, told)
                replaced = commit.provenance.get("replaces", {}).get(partition)
                if commit.kind == "erase" and replaced is not None:
                    scoring = _inherited(scoring, made.get(replace(scoring.part, digest=replaced)))
                made[scoring.part] = scoring
                found.append(scoring)
        return found[::-1]

    def scoring(self, part: Part) -> Scoring | None:
        """How a prediction partition was made; None when it is not recorded."""
        return self._by_part.get(part)

    @cached_property
    def _by_part(self) -> dict[Part, Scoring]:
        return {scoring.part: scoring for scoring in reversed(self.scorings)}

    @cached_property
    def trainings(self) -> list[TrainingRun]:
        """Every training, oldest first."""
        return self.registry.trainings()

    def alias(self, name: str) -> int | None:
        """The version behind an alias; the champion is the log's."""
        if name == "champion":
            return self.promotions[-1].version if self.promotions else None
        if name not in self._aliases:
            self._aliases[name] = self.registry.alias(name)
        return self._aliases[name]

    def training(self, version: int) -> TrainingRun | None:
        """The training of a model version."""
        return self._by_version.get(version)

    def learned_from(self, training: TrainingRun) -> list[Part]:
        """Every partition that a training read, table by table in key order."""
        if (known := self._learned.get(training.run_id)) is not None:
            return known
        reads = json.loads(training.tags.get("overnight.reads", "{}"))
        found = []
        for snapshot in snapshots_of(training):
            held = self.held(snapshot)
            for key in within(list(held), reads.get(snapshot.table, [])):
                found.append(Part(table=snapshot.table, partition=key, digest=held[key].digest))
        self._learned[training.run_id] = found
        return found

    @cached_property
    def promotions(self) -> list[Promotion]:
        """The promotion log, oldest first."""
        return promotions(self.store)

    @cached_property
    def decisions(self) -> list[RetrainDecision]:
        """The decision log."""
        return decisions(self.store)

    @cached_property
    def deliveries(self) -> dict[Part, list[DeliveryEntry]]:
        """Who was handed a partition of predictions, by its bytes, in the order of the deliveries' names."""
        found: dict[Part, list[DeliveryEntry]] = {}
        for entry in deliveries(self.store):
            part = Part(table=PREDICTIONS, partition=entry.delivered.partition, digest=entry.digest)
            found.setdefault(part, []).append(entry)
        return found

    @cached_property
    def tombstones(self) -> dict[Part, Tombstone]:
        """Why bytes are gone."""
        return {
            Part(table=stone.table, partition=part.partition, digest=part.digest): stone
            for stone in self.store.tombstones()
            for part in stone.parts
        }


def snapshots_of(training: TrainingRun) -> list[SnapshotRef]:
    """The snapshots that a training, and the model version made of it, names."""
    words = dict.fromkeys(
        f"{training.tags.get('overnight.snapshots', '')} {training.model_tags.get('overnight.snapshots', '')}".split()
    )
    return [SnapshotRef.parse(word) for word in words]


def _inherited(scoring: Scoring, before: Scoring | None) -> Scoring:
    """What an erasure left of predictions was made from what those before it were made from."""
    if before is None:
        return scoring
    return replace(
        scoring,
        artifact=before.artifact,
        training=before.training,
        snapshots=before.snapshots,
        read=before.read,
        threshold=before.threshold,
    )


def _scoring(commit: Commit, partition: str, told: dict[str, Any]) -> Scoring:
    notes = commit.provenance
    refs = [SnapshotRef.parse(name) for name in notes.get("snapshots", [])]
    read: dict[str, dict[str, str]] = notes.get("read", {})
    ends: dict[str, list[str]] = told.get("read", {})
    return Scoring(
        part=Part(table=PREDICTIONS, partition=partition, digest=commit.partitions[partition]),
        commit=commit,
        version=int(told["model"]),
        artifact=notes.get("artifact", ""),
        training=notes.get("training", ""),
        snapshots={ref.table: ref for ref in refs},
        read=tuple(
            Part(table=table, partition=key, digest=read[table][key])
            for table in read
            if table in ends
            for key in within(sorted(read[table]), [ends[table]])
        ),
        threshold=notes.get("threshold"),
    )

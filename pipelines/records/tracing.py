"""Looking back: traces, replays and erasures."""

from __future__ import annotations

from typing import Any, Literal

from pipelines.records.base import Record
from pipelines.records.snapshots import SnapshotRef

LinkKind = Literal[
    "partition",
    "row",
    "commit",
    "run",
    "audit",
    "file",
    "model",
    "training",
    "gates",
    "decision",
    "delivery",
    "promotion",
    "snapshot",
    "pin",
    "tombstone",
    "note",
]


class Link(Record):
    """One thing of a trace, and what hangs on it."""

    kind: LinkKind
    id: str
    """Unique within its kind; of partitions, models, snapshots and runs it can be traced in turn."""
    how: str = ""
    """Its relation to the thing above it, such as "read" or "scored by"."""
    facts: dict[str, Any] = {}
    links: tuple[Link, ...] = ()


class Trace(Record):
    """Where something came from and what became of it."""

    name: str
    """What was asked for."""
    use_case: str
    root: Link

    def all(self, kind: LinkKind | None = None) -> list[Link]:
        """Every link, or every one of a kind, from the root down."""
        found, pending = [], [self.root]
        while pending:
            link = pending.pop(0)
            if kind is None or link.kind == kind:
                found.append(link)
            pending[:0] = link.links
        return found


class Replay(Record):
    """A prediction partition that was scored again from the recorded snapshots and model."""

    partition: str
    snapshot: SnapshotRef
    """The predictions that were looked at."""
    model: str
    inputs: tuple[str, ...]
    """Ids of the recorded snapshots."""
    published: str
    """Digest of what is published."""
    replayed: str | None
    """Digest of what came out now; None when it could not be scored."""
    outcome: Literal["identical", "different", "erased", "collected"]
    differences: tuple[str, ...] = ()
    """What differs, or what is gone, for a person."""
    max_score_difference: float | None = None
    """Over the rows that both hold; None when no row can be compared."""


class ErasedTable(Record):
    """What an erasure removed from one table, or would remove."""

    table: str
    rows: int
    """Rows that readers of the newest snapshot saw."""
    partitions: tuple[str, ...]
    """Partitions of the newest snapshot that were written anew without them."""
    files: int
    """Files removed for good, those of older snapshots included."""


class ErasedModel(Record):
    """A training that learned from, was calibrated on, or was judged on what is erased."""

    name: str
    """Such as `flights@3`; of a training that no gate let through, its MLflow run."""
    run_id: str
    parts: tuple[str, ...]
    """Which of train, validation and holdout read it."""
    holds_values: bool | None
    """Its sealed artifact itself holds values of the subject's column: retrain, then delete this one. None when the
    artifact cannot be looked into."""


class Erasure(Record):
    """What an erasure did, or would do. It names no subject."""

    use_case: str
    column: str
    id: str | None
    """In commits, tombstones and MLflow tags; None when nothing was done."""
    done: bool
    tables: tuple[ErasedTable, ...] = ()
    staged: tuple[str, ...] = ()
    """Staged partitions that were swept, whoever staged them: their runs must land them again."""
    quarantined: tuple[str, ...] = ()
    """Quarantined partitions whose original files were removed, with the reason."""
    files: tuple[str, ...] = ()
    """Report pages, training sets, artifact copies and cached files that were removed."""
    models: tuple[ErasedModel, ...] = ()
    unreplayable: tuple[str, ...] = ()
    """Prediction partitions that can no longer be computed again byte for byte."""
    remains: tuple[str, ...] = ()
    """Where the subject still is or may be: not Overnight's to remove."""

    @property
    def found(self) -> bool:
        """Whether the subject was anywhere."""
        return bool(self.tables or self.quarantined or self.files)

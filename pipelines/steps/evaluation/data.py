"""Whether what a training read had passed its audit: every partition, by the bytes that the training's snapshots name.

Commits prove it, since a publish keeps the audit of each digest that it brings. A revert brings bytes back and proves
nothing of its own. An erasure's audit only says that nothing but the subject's rows went: what it replaced must have
been audited too, and counts where quarantine is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.errors import explain
from pipelines.ports import SnapshotStore
from pipelines.records import Commit, DataAudit, TrainingSet
from pipelines.steps.evaluation.meeting import Meeting
from pipelines.steps.inputs import REPLACES
from pipelines.steps.reads import within

#: A partition and the digest of its bytes.
Bytes = tuple[str, str]


def data_audit(meeting: Meeting) -> Mapping[str, Any]:
    """The field `data` of an evaluation."""
    return {"data": audit(meeting.store, meeting.trained.training_set)}


def audit(store: SnapshotStore, training_set: TrainingSet) -> DataAudit:
    """Looks at every partition that a training set was read from.

    Raises:
        ValueError: the training set does not say what it read of a table.
    """
    read = 0
    unaudited: list[str] = []
    quarantined: list[str] = []
    for snapshot in training_set.snapshots:
        table = snapshot.table
        if table not in training_set.reads:
            raise ValueError(explain(snapshot.id, "the training set does not say what it read", remedy="train again"))
        held = store.partitions(snapshot)
        proofs = Proofs.of(store, table)
        for key in within(list(held), training_set.reads[table]):
            read += 1
            ancestors = proofs.ancestors(key, held[key].digest)
            if not all(proofs.audited(each) for each in ancestors):
                unaudited.append(f"{table}/{key}")
            if any(proofs.in_quarantine(each) for each in ancestors):
                quarantined.append(f"{table}/{key}")
    return DataAudit(partitions=read, unaudited=tuple(unaudited), quarantined=tuple(quarantined))


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """What a table's commits and its quarantine say of each partition's bytes."""

    published: dict[Bytes, datetime] = field(default_factory=dict)
    """When bytes that had passed the table's expectations were published, the last time."""
    replaced: dict[Bytes, str | None] = field(default_factory=dict)
    """What an erasure made bytes of; None where its commit does not say."""
    failed: dict[Bytes, datetime | None] = field(default_factory=dict)
    """When bytes were set aside, the last time; None where nobody noted it."""

    @classmethod
    def of(cls, store: SnapshotStore, table: str) -> Proofs:
        """Reads the table's history and quarantine."""
        found = cls()
        for commit in reversed(store.history(table)):
            found._learn(commit)
        for entry in store.quarantined(table):
            found.failed[entry.partition, entry.report.digest] = entry.at
        return found

    def _learn(self, commit: Commit) -> None:
        replaces: Mapping[str, str] = commit.provenance.get(REPLACES, {})
        for key, digest in commit.partitions.items():
            if key not in commit.audits or commit.kind == "revert":
                continue
            if commit.kind == "publish":
                self.published[key, digest] = commit.at
            else:
                self.replaced.setdefault((key, digest), replaces.get(key))

    def ancestors(self, key: str, digest: str) -> list[Bytes]:
        """The bytes, and what erasures made them of, back to what was published."""
        chain = [(key, digest)]
        while chain[-1] not in self.published and (before := self.replaced.get(chain[-1])) is not None:
            if (key, before) in chain:
                break
            chain.append((key, before))
        return chain

    def audited(self, part: Bytes) -> bool:
        """Whether a publish let exactly these bytes through, or an erasure made them of others, which is asked too."""
        return part in self.published or self.replaced.get(part) is not None

    def in_quarantine(self, part: Bytes) -> bool:
        """Whether the last verdict on these bytes was that they are bad.

        What was set aside may have been published since, under expectations that were corrected. A store that tells the
        time in whole seconds says "before" within the same one, which refuses.
        """
        if part not in self.failed:
            return False
        failed, passed = self.failed[part], self.published.get(part)
        return failed is None or passed is None or passed < failed

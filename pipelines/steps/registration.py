"""What a model version says about where it comes from, beyond what its training run says of itself."""

from __future__ import annotations

from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef, TrainedModel, TrainingSet
from pipelines.steps.reads import within

#: Digits of a suite's digest in a tag; the commits of the snapshots have all of them.
_DIGITS = 16


def provenance(store: SnapshotStore, trained: TrainedModel, environment: str) -> dict[str, str]:
    """Tags that a registration adds.

    Args:
        environment: digest of the packages that it runs with.
    """
    return {"overnight.environment": environment, "overnight.suites": suites(store, trained.training_set)}


def suites(store: SnapshotStore, training_set: TrainingSet) -> str:
    """Which suites judged what the training read: `rows=<digests> labels=<digests>`, the first digits of each.

    A partition whose commit kept no audit counts as `unaudited`.
    """
    told = []
    for snapshot in training_set.snapshots:
        judged = _judged(store, snapshot)
        held = store.partitions(snapshot)
        reads = training_set.reads.get(snapshot.table)
        used = list(held) if reads is None else within(list(held), reads)
        found = {judged.get((key, held[key].digest), "unaudited") for key in used}
        told.append(f"{snapshot.table}={','.join(sorted(found))}")
    return " ".join(told)


def _judged(store: SnapshotStore, snapshot: SnapshotRef) -> dict[tuple[str, str], str]:
    """The digest of the suite that let each file of a table through, by partition and digest."""
    return {
        (partition, commit.partitions[partition]): audit.suite_digest[:_DIGITS]
        for commit in reversed(store.history(snapshot.table))
        for partition, audit in commit.audits.items()
        if partition in commit.partitions
    }

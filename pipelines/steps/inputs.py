"""What a partition's features read: the newest snapshots, and what stands for each partition in fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from pipelines.errors import NotFoundError, explain
from pipelines.ports import SnapshotStore
from pipelines.records import Commit, SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import context_keys

#: In an erase commit's provenance: the digest of each partition that it replaced.
REPLACES = "replaces"


def heads(spec: UseCase, store: SnapshotStore, tables: Sequence[str]) -> dict[str, SnapshotRef]:
    """The newest snapshot of each table.

    Raises:
        NotFoundError: a table was never published.
    """
    found = {}
    for table in tables:
        head = store.head(table)
        if head is None:
            raise NotFoundError(explain(f"{spec.name}/{table}", "nothing is published yet", remedy="ingest it first"))
        found[table] = head
    return found


def input_digests(
    store: SnapshotStore, snapshot: SnapshotRef, history: Sequence[Commit] | None = None
) -> dict[str, str]:
    """What stands for each partition of an input table in fingerprints: the digest of its bytes.

    An erasure restates nothing, so what it left counts as the partition that it replaced, and nothing is scored anew.
    Rows that were erased and came back, in the very same bytes, count as new ones: their scores are gone.

    Args:
        history: of the table, where the caller has read it already.
    """
    replaced: dict[tuple[str, str], str] = {}
    for commit in store.history(snapshot.table) if history is None else history:
        if commit.kind == "erase":
            for name, old in commit.provenance.get(REPLACES, {}).items():
                replaced[name, commit.partitions[name]] = old
    erased = {(name, old) for (name, _), old in replaced.items()}
    digests = {}
    for name, part in store.partitions(snapshot).items():
        digest = part.digest
        if snapshot.table == "rows" and (name, digest) in erased:
            digest += " again"
        while (name, digest) in replaced:  # an erasure leaves fewer rows, so this ends
            digest = replaced[name, digest]
        digests[name] = digest
    return digests


def homes(history: Sequence[Commit], snapshot: SnapshotRef, digests: Mapping[str, str]) -> dict[str, str]:
    """Id of the snapshot that brought each partition's present bytes: others that came later do not change it.

    Args:
        history: of the table, newest first.
        digests: of the present bytes, by partition.
    """
    found = dict.fromkeys(digests, snapshot.id)
    for commit in reversed(history):  # the newest that has these bytes is the last to be written
        found |= {key: commit.snapshot.id for key, digest in commit.partitions.items() if digests.get(key) == digest}
    return found


def used(spec: UseCase, digests: Mapping[str, Mapping[str, str]], partition: str) -> dict[str, dict[str, str]]:
    """What stands for every published partition that this partition's features read, by table and key."""
    read = {"rows": {partition: digests["rows"][partition]}}
    for table in spec.context:
        wanted = context_keys(spec, table, [partition], list(digests[table]))
        read[table] = {key: digests[table][key] for key in wanted}
    return read


def fingerprint(read: Mapping[str, Mapping[str, str]]) -> str:
    """SHA-256 over what `used` gave."""
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

"""Which partitions were read, as commits and tags keep it: the ends of a stretch. A year is two keys, not 365."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence

from pipelines.ports import SnapshotStore
from pipelines.records import Scored, StagedPartition


def stretches(held: Sequence[str], used: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The ends, both included, of each unbroken stretch of used keys.

    Args:
        held: every key there is, in order.
        used: some of them.

    >>> stretches(["a", "b", "c", "d"], {"a", "b", "d"})
    (('a', 'b'), ('d', 'd'))
    """
    found: list[tuple[str, str]] = []
    begun = last = None
    for key in held:
        if key in used:
            begun, last = begun or key, key
        elif begun is not None and last is not None:
            found.append((begun, last))
            begun = None
    if begun is not None and last is not None:
        found.append((begun, last))
    return tuple(found)


def within(held: Sequence[str], ends: Iterable[Sequence[str]]) -> list[str]:
    """The keys that lie in any of the stretches, in order; the inverse of `stretches`.

    >>> within(["a", "b", "c", "d"], [("a", "b"), ("d", "d")])
    ['a', 'b', 'd']
    """
    wanted: set[str] = set()
    for first, last in ends:
        wanted.update(held[bisect_left(held, first) : bisect_right(held, last)])
    return [key for key in held if key in wanted]


def prediction_notes(store: SnapshotStore, scored: Scored, staged: Sequence[StagedPartition]) -> dict[str, object]:
    """What the commit says of where its predictions came from; `steps.provenance` reads it back.

    A partition names the stretch of keys that it read of each table, and `read` the digest behind each key, once for
    all partitions: a context partition is read by many.
    """
    names = [part.partition for part in staged]
    stretches = {partition: scored.reads.get(partition, {}) for partition in names}
    read: dict[str, dict[str, str]] = {}
    for ref in scored.inputs:
        held = store.partitions(ref)
        mine = {reads[ref.table] for reads in stretches.values() if ref.table in reads}
        read[ref.table] = {key: held[key].digest for key in within(list(held), mine)}
    made = {
        partition: {
            "model": scored.model.version,
            "inputs": scored.fingerprints[partition],
            "read": {table: list(ends) for table, ends in stretches[partition].items()},
            **({"home": scored.homes[partition]} if partition in scored.homes else {}),
        }
        for partition in names
    }
    return {
        "model": scored.model.id,
        "artifact": scored.model.digest,
        "training": scored.model.run_id,
        "spec": scored.spec,
        **({"threshold": scored.threshold} if scored.threshold is not None else {}),
        **({"scored_at": scored.run.at.isoformat()} if scored.run.at is not None else {}),
        "snapshots": [ref.id for ref in scored.inputs],
        "read": read,
        "predictions": made,
    }

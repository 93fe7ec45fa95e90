"""Pins, tombstones and the sweep: what is kept, what is gone for good, and who is told."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.errors import ConflictError, IntegrityError, NotFoundError, RemovedError
from pipelines.ports import SnapshotStore
from pipelines.records import PublishedPartition, SnapshotRef
from tests.contracts.stores import RUN, audit, content, frame, put, spoil, stage, tombstone

#: Everything that exists is older than this, and everything is younger than that.
_LATER, _EARLIER = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) - timedelta(days=1)


def test_a_pin_names_a_snapshot_until_it_is_unpinned(store: SnapshotStore) -> None:
    first, second = put(store, "2013-01-01", 1).snapshot, put(store, "2013-01-01", 2).snapshot
    assert store.pins() == []
    pins = [store.pin("model-2", second, reason="trained on it"), store.pin("model-1", first, reason="so was this")]
    assert store.pins() == [pins[1], pins[0]]
    assert (pins[1].snapshot, pins[1].reason) == (first, "so was this")
    store.unpin("model-2")
    store.unpin("model-2")
    assert store.pins() == [pins[1]]


def test_the_same_pin_again_is_no_error_and_another_snapshot_under_its_name_is_refused(store: SnapshotStore) -> None:
    first, second = put(store, "2013-01-01", 1).snapshot, put(store, "2013-01-01", 2).snapshot
    pin = store.pin("model-1", first, reason="trained on it")
    assert store.pin("model-1", first, reason="trained on it") == pin
    with pytest.raises(ConflictError, match="model-1"):
        store.pin("model-1", second, reason="another")
    assert store.pins() == [pin]
    store.unpin("model-1")
    assert store.pin("model-1", second, reason="another").snapshot == second


def test_what_does_not_exist_cannot_be_pinned(store: SnapshotStore) -> None:
    head = put(store, "2013-01-01", 1).snapshot
    with pytest.raises(NotFoundError):
        store.pin("model-1", head.model_copy(update={"version": "99"}), reason="a snapshot that never was")
    for name in ("../escape", "a/b", ""):
        with pytest.raises(NotFoundError):
            store.pin(name, head, reason="no name")
    assert store.pins() == []


def test_every_file_that_any_snapshot_names_is_held_and_reads(store: SnapshotStore) -> None:
    one = put(store, "2013-01-01", 1).published[0]
    two = put(store, "2013-01-01", 2, 3).published[0]
    other = put(store, "2013-01-02", 4).published[0]
    put(store, "2013-01-01", 1)
    assert store.held("rows") == sorted([one, two, other], key=lambda part: (part.partition, part.digest))
    assert store.read_held("rows", two).collect().get_column("value").to_list() == [2.0, 3.0]
    assert store.read_held("rows", two).collect_schema().names() == ["key", "value"]
    assert store.held("labels") == []


def test_bytes_that_no_snapshot_names_cannot_be_read_as_held(store: SnapshotStore) -> None:
    part = put(store, "2013-01-01", 1).published[0]
    staged = stage(store, "2013-01-02", 2)
    unpublished = PublishedPartition(partition="2013-01-02", digest=staged.digest, rows=1)
    for wrong in (part.model_copy(update={"digest": "0" * 64}), unpublished):
        with pytest.raises(NotFoundError) as caught:
            store.read_held("rows", wrong)
        assert not isinstance(caught.value, RemovedError)


def _restated(store: SnapshotStore) -> tuple[SnapshotRef, PublishedPartition]:
    """A table whose first partition was replaced: the first snapshot, and what only that one names."""
    put(store, "2013-01-02", 9)
    first = put(store, "2013-01-01", 1, 2)
    put(store, "2013-01-01", 3)
    return first.snapshot, first.published[0]


@pytest.mark.parametrize("kind", ["collected", "erased"])
def test_readers_of_purged_bytes_are_told_why_and_everything_else_still_reads(store: SnapshotStore, kind: str) -> None:
    old, part = _restated(store)
    put(store, "2013-01-01", 5, table="labels")
    store.purge(told := tombstone("t1", part, kind=kind))
    assert store.tombstones() == [told]
    for read in (
        lambda: store.scan(old),
        lambda: store.scan(old, ["2013-01-01"], ["value"]),
        lambda: store.read_held("rows", part),
    ):
        with pytest.raises(RemovedError, match="t1") as caught:
            read()
        assert kind in str(caught.value)
        assert "nobody needs it" in str(caught.value)
    assert store.scan(old, ["2013-01-02"]).collect().get_column("value").to_list() == [9.0]
    assert content(store) == {"2013-01-01": [3.0], "2013-01-02": [9.0]}
    assert content(store, "labels") == {"2013-01-01": [5.0]}
    assert part not in store.held("rows")
    assert len(store.held("rows")) == 2
    assert store.partitions(old)["2013-01-01"] == part
    assert len(store.history("rows")) == 3
    assert store.examine() == []


def test_a_purge_again_changes_nothing_and_one_that_found_more_adds_to_the_tombstone(store: SnapshotStore) -> None:
    _, part = _restated(store)
    store.purge(told := tombstone("t1", part))
    later = told.model_copy(update={"at": told.at + timedelta(hours=1)})
    store.purge(later)
    assert store.tombstones() == [told]
    second = put(store, "2013-01-01", 4).published[0]
    put(store, "2013-01-01", 5)
    store.purge(later.model_copy(update={"parts": (second,)}))
    assert store.tombstones() == [told.model_copy(update={"parts": (part, second)})]
    assert second not in store.held("rows")


def test_a_tombstone_whose_names_lead_elsewhere_removes_nothing(store: SnapshotStore) -> None:
    part = put(store, "2013-01-01", 1).published[0]
    told = tombstone("t1", part)
    for forged in (
        {"id": "../t1"},
        {"table": "../rows"},
        {"parts": (part.model_copy(update={"partition": "../2013-01-01"}),)},
        {"parts": (part.model_copy(update={"digest": f"../{part.digest}"}),)},
    ):
        with pytest.raises(NotFoundError):
            store.purge(told.model_copy(update=forged))
    assert store.tombstones() == []
    assert content(store) == {"2013-01-01": [1.0]}


def test_tombstones_come_oldest_first(store: SnapshotStore) -> None:
    _, part = _restated(store)
    first = tombstone("z", part)
    second = tombstone("a", part).model_copy(update={"at": first.at + timedelta(seconds=1)})
    store.purge(second)
    store.purge(first)
    assert store.tombstones() == [first, second]


def test_purged_bytes_that_are_published_again_are_back_in_every_snapshot(store: SnapshotStore) -> None:
    old, part = _restated(store)
    store.purge(tombstone("t1", part))
    again = put(store, "2013-01-01", 1, 2)
    assert again.published == (part,)
    assert content(store) == {"2013-01-01": [1.0, 2.0], "2013-01-02": [9.0]}
    assert store.scan(old, ["2013-01-01"]).collect().get_column("value").to_list() == [1.0, 2.0]
    assert part in store.held("rows")
    assert len(store.tombstones()) == 1
    assert store.examine() == []


def test_bytes_that_are_purged_while_they_are_named_come_back_when_they_are_published_again(
    store: SnapshotStore,
) -> None:
    part = put(store, "2013-01-01", 1).published[0]
    store.purge(tombstone("t1", part))
    with pytest.raises(RemovedError):
        content(store)
    again = put(store, "2013-01-01", 1)
    assert (*again.published, *again.unchanged) == (part,)
    assert content(store) == {"2013-01-01": [1.0]}


def test_a_sweep_takes_what_dead_runs_staged_and_nothing_that_is_published(store: SnapshotStore) -> None:
    old, part = _restated(store)
    store.pin("model-1", old, reason="trained on it")
    dead = stage(store, "2013-01-03", 7)
    assert store.sweep(_EARLIER, dry_run=False) == []
    would = store.sweep(_LATER)
    assert len(would) >= 1
    assert store.read_staged(dead).collect().height == 1
    assert store.sweep(_LATER) == would
    assert store.sweep(_LATER, dry_run=False) == would
    assert store.sweep(_LATER) == []
    with pytest.raises(NotFoundError):
        store.publish("rows", [dead], [audit(dead)], RUN)
    assert content(store) == {"2013-01-01": [3.0], "2013-01-02": [9.0]}
    assert store.scan(old).collect().get_column("value").to_list() == [1.0, 2.0, 9.0]
    assert part in store.held("rows")
    assert len(store.pins()) == 1
    put(store, "2013-01-03", 7)
    assert content(store)["2013-01-03"] == [7.0]


def test_quarantine_outlives_a_sweep(store: SnapshotStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    original = tmp_path_factory.mktemp("landing") / "rows.csv"
    original.write_text("broken")
    staged = stage(store, "2013-01-01", 1)
    entry = store.quarantine(audit(staged, passed=False), staged, [original])
    store.sweep(_LATER, dry_run=False)
    assert store.quarantined("rows") == [entry]
    assert store.originals(entry) == {"rows.csv": b"broken"}


def test_a_new_store_is_well_and_a_finding_that_is_not_true_cannot_be_repaired(store: SnapshotStore) -> None:
    assert store.examine() == []
    put(store, "2013-01-01", 1)
    assert store.examine() == []
    assert store.tombstones() == []
    assert store.sweep(_LATER) == []


def test_the_local_copy_of_a_staged_partition_has_its_bytes_or_none(store: SnapshotStore) -> None:
    staged = stage(store, "2013-01-01", 1, 2)
    path = store.local(staged)
    assert path.stat().st_size == staged.bytes
    assert store.local(staged) == path
    spoil(store, staged)
    with contextlib.suppress(IntegrityError):  # or this machine's verified copy is read
        assert store.read_staged(staged).collect().equals(frame(1, 2))
    store.discard(staged)
    with pytest.raises(NotFoundError):
        store.local(staged)
    with pytest.raises(NotFoundError):
        store.read_staged(staged)

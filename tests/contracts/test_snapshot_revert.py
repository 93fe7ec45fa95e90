"""Going back to an earlier snapshot, without losing what came since."""

from __future__ import annotations

import pytest

from pipelines.errors import ConflictError, NotFoundError, RemovedError
from pipelines.ports import SnapshotStore
from tests.contracts.stores import RUN, audit, content, interpose, put, stage, tombstone


def test_a_revert_is_one_commit_that_makes_the_table_hold_what_it_held(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    to = put(store, "2013-01-02", 2).snapshot
    put(store, "2013-01-01", 5, 6)
    last = put(store, "2013-01-03", 7).snapshot
    done = store.revert(to, RUN, reason="the source sent nonsense")
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}
    assert store.head("rows") == done.snapshot
    assert store.partitions(done.snapshot) == store.partitions(to)
    assert [part.partition for part in done.published] == ["2013-01-01"]
    assert [part.partition for part in done.unchanged] == ["2013-01-02"]
    history = store.history("rows")
    assert len(history) == 5
    assert history[0].snapshot == done.snapshot
    assert history[0].kind == "revert"
    assert history[0].removed == ("2013-01-03",)
    assert history[0].partitions == {"2013-01-01": done.published[0].digest}
    assert history[0].provenance == {"reverted_to": to.id, "reason": "the source sent nonsense"}
    assert store.scan(last).collect().height == 4


def test_a_revert_carries_the_audits_that_first_let_the_bytes_through(store: SnapshotStore) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    store.revert(to, RUN, reason="back")
    put(store, "2013-01-01", 3)
    store.revert(to, RUN, reason="and back again")
    newest, *_, first = store.history("rows")
    assert newest.audits == first.audits
    assert newest.audits.keys() == newest.partitions.keys() == {"2013-01-01"}


def test_a_revert_again_and_a_revert_to_the_newest_make_no_commit(store: SnapshotStore) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    done = store.revert(to, RUN, reason="back")
    for target in (to, done.snapshot):
        again = store.revert(target, RUN, reason="back")
        assert again.snapshot == done.snapshot
        assert again.published == ()
        assert again.unchanged == done.published
    assert len(store.history("rows")) == 3


def test_a_revert_can_be_reverted(store: SnapshotStore) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    later = put(store, "2013-01-02", 2).snapshot
    store.revert(to, RUN, reason="back")
    assert content(store) == {"2013-01-01": [1.0]}
    store.revert(later, RUN, reason="it was right after all")
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}
    put(store, "2013-01-02", 3)
    assert content(store)["2013-01-02"] == [3.0]


def test_a_revert_leaves_the_other_tables_alone(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 4, table="labels")
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    put(store, "2013-01-01", 5, table="labels")
    store.revert(to, RUN, reason="back")
    assert content(store, "labels") == {"2013-01-01": [5.0]}


def test_a_revert_to_purged_bytes_is_refused_and_changes_nothing(store: SnapshotStore) -> None:
    first = put(store, "2013-01-01", 1)
    put(store, "2013-01-01", 2)
    store.purge(tombstone("t1", *first.published))
    with pytest.raises(RemovedError, match="t1"):
        store.revert(first.snapshot, RUN, reason="back")
    assert content(store) == {"2013-01-01": [2.0]}
    assert len(store.history("rows")) == 2


def test_a_revert_to_a_snapshot_that_never_was_is_not_found(store: SnapshotStore) -> None:
    head = put(store, "2013-01-01", 1).snapshot
    for change in ({"version": "99"}, {"table": "nothing"}, {"use_case": "other"}):
        with pytest.raises(NotFoundError):
            store.revert(head.model_copy(update=change), RUN, reason="back")


@pytest.mark.parametrize("day", ["2013-01-01", "2013-01-02", "2013-01-09"])
def test_a_publish_in_the_middle_of_a_revert_wins(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    put(store, "2013-01-02", 3)
    rival = stage(store, day, 8)
    interpose(monkeypatch, "revert.prepared", lambda: store.publish("rows", [rival], [audit(rival)], RUN))
    with pytest.raises(ConflictError):
        store.revert(to, RUN, reason="back")
    assert content(store) == {"2013-01-01": [2.0], "2013-01-02": [3.0], day: [8.0]}
    store.revert(to, RUN, reason="back")
    assert content(store) == {"2013-01-01": [1.0]}


@pytest.mark.parametrize("day", ["2013-01-01", "2013-01-02"])
def test_a_revert_in_the_middle_of_a_publish_wins_over_the_partitions_it_changed(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    put(store, "2013-01-02", 3)
    mine = stage(store, day, 8)
    interpose(monkeypatch, "publish.linked", lambda: store.revert(to, RUN, reason="back"))
    with pytest.raises(ConflictError):
        store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}


def test_what_was_staged_before_a_revert_must_be_staged_again(store: SnapshotStore) -> None:
    to = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-01", 2)
    staged = stage(store, "2013-01-01", 3)
    store.revert(to, RUN, reason="back")
    with pytest.raises(ConflictError):
        store.publish("rows", [staged], [audit(staged)], RUN)
    put(store, "2013-01-01", 3)
    assert content(store) == {"2013-01-01": [3.0]}

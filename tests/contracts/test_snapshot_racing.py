"""Staging is a compare-and-set, readers see one whole snapshot, and a range is staged one partition at a time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipelines.errors import ConflictError, NotFoundError
from pipelines.ports import Draft, SnapshotStore
from tests.contracts.stores import RUN, audit, content, frame, put, stage


def test_what_was_staged_before_another_run_published_is_refused_and_staging_again_helps(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    mine, rival = stage(store, "2013-01-01", 2), stage(store, "2013-01-01", 3)
    store.publish("rows", [rival], [audit(rival)], RUN)
    with pytest.raises(ConflictError, match="2013-01-01"):
        store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store) == {"2013-01-01": [3.0]}
    put(store, "2013-01-01", 2)
    assert content(store) == {"2013-01-01": [2.0]}


def test_of_two_first_publishes_of_a_partition_the_later_is_refused(store: SnapshotStore) -> None:
    put(store, "2013-01-09", 0)
    mine, rival = stage(store, "2013-01-01", 2), stage(store, "2013-01-01", 3)
    store.publish("rows", [rival], [audit(rival)], RUN)
    with pytest.raises(ConflictError):
        store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store)["2013-01-01"] == [3.0]


def test_one_lost_partition_refuses_the_whole_publish(store: SnapshotStore) -> None:
    drafts = [Draft(partition=f"2013-01-0{day}", frame=frame(day)) for day in (1, 2, 3)]
    staged = store.stage("rows", drafts, RUN)
    put(store, "2013-01-02", 9)
    with pytest.raises(ConflictError, match="2013-01-02"):
        store.publish("rows", staged, [audit(part) for part in staged], RUN)
    assert content(store) == {"2013-01-02": [9.0]}


def test_two_runs_that_stage_the_same_bytes_both_succeed_with_one_commit(store: SnapshotStore) -> None:
    mine, rival = stage(store, "2013-01-01", 2), stage(store, "2013-01-01", 2)
    store.publish("rows", [rival], [audit(rival)], RUN)
    again = store.publish("rows", [mine], [audit(mine)], RUN)
    assert again.unchanged
    assert len(store.history("rows")) == 1


def test_what_was_staged_together_can_be_published_in_parts(store: SnapshotStore) -> None:
    drafts = [Draft(partition=f"2013-01-0{day}", frame=frame(day)) for day in (1, 2, 3)]
    first, second, third = store.stage("rows", drafts, RUN)
    store.publish("rows", [second], [audit(second)], RUN)
    assert content(store) == {"2013-01-02": [2.0]}
    store.publish("rows", [first, third], [audit(first), audit(third)], RUN)
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [2.0], "2013-01-03": [3.0]}


def test_drafts_are_asked_for_one_at_a_time_and_let_go(store: SnapshotStore) -> None:
    frames: list[weakref.ref[pl.DataFrame]] = []
    alive: list[int] = []

    def drafts() -> Iterator[Draft]:
        for day in range(1, 6):
            alive.append(sum(each() is not None for each in frames))
            made = frame(day)
            frames.append(weakref.ref(made))
            draft = Draft(partition=f"2013-01-0{day}", frame=made)
            del made
            yield draft
            del draft

    staged = store.stage("rows", drafts(), RUN)
    assert [part.partition for part in staged] == [f"2013-01-0{day}" for day in range(1, 6)]
    assert max(alive) <= 1


def test_a_bad_name_among_the_drafts_makes_nothing_visible(store: SnapshotStore) -> None:
    with pytest.raises(NotFoundError):
        store.stage(
            "rows", [Draft(partition="2013-01-01", frame=frame(1)), Draft(partition="../x", frame=frame(1))], RUN
        )
    assert store.head("rows") is None


def test_first_publishes_at_the_same_moment_make_one_table(store: SnapshotStore) -> None:
    barrier, failures = threading.Barrier(4), []

    def publish(day: int) -> None:
        staged = stage(store, f"2013-01-0{day}", day)
        barrier.wait()
        try:
            store.publish("rows", [staged], [audit(staged)], RUN)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(day,)) for day in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert content(store) == {f"2013-01-0{day}": [float(day)] for day in range(1, 5)}
    assert len(store.history("rows")) == 4


def test_an_old_snapshot_reads_the_same_while_others_publish(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    old = put(store, "2013-01-02", 2).snapshot
    done, seen, heads = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            seen.append(store.scan(old).collect().get_column("value").to_list())
            heads.append(content(store))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in range(3, 8):
            drafts = [Draft(partition=f"2013-01-0{day}", frame=frame(value)) for day in (1, 2)]
            staged = store.stage("rows", drafts, RUN)
            store.publish("rows", staged, [audit(part) for part in staged], RUN)
    finally:
        done.set()
        reader.join()
    assert {tuple(values) for values in seen} == {(1.0, 2.0)}
    # Both partitions change in each commit: a reader that saw two numbers saw a state between two snapshots.
    assert all(len({part[0] for part in each.values()}) == 1 for each in heads if each["2013-01-01"] != [1.0])


def test_a_scan_is_lazy_and_columns_and_predicates_reach_the_files(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1, 2)
    head = put(store, "2013-01-02", 3, 4).snapshot
    scan = store.scan(head)
    assert isinstance(scan, pl.LazyFrame)
    assert scan.collect_schema().names() == ["partition", "key", "value"]
    query = scan.filter(pl.col("value") > 3).select("value")
    plan = query.explain()
    assert "FILTER" not in plan.replace("SELECTION", "")
    assert "SELECTION" in plan
    assert query.collect().get_column("value").to_list() == [4.0]
    only = scan.filter(pl.col("partition") == "2013-01-01").collect()
    assert only.rows() == [("2013-01-01", "k0", 1.0), ("2013-01-01", "k1", 2.0)]
    assert store.scan(head, ["2013-01-02"]).explain().count("2013-01-01") == 0


def test_rows_come_in_key_order_and_then_as_staged(store: SnapshotStore) -> None:
    put(store, "2013-01-02", 9, 7, 8)
    put(store, "2013-01-03", 1)
    head = put(store, "2013-01-01", 5, 4).snapshot
    values = store.scan(head).collect().get_column("value").to_list()
    assert values == [5.0, 4.0, 9.0, 7.0, 8.0, 1.0]
    picked = store.scan(head, ["2013-01-03", "2013-01-02"]).collect().get_column("value").to_list()
    assert picked == [9.0, 7.0, 8.0, 1.0]
    assert store.scan(head, ["2013-01-03", "2013-01-03"]).collect().height == 1


def test_history_says_when_and_what_kind(store: SnapshotStore) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    first = put(store, "2013-01-01", 1).snapshot
    staged = stage(store, "2013-01-01", 2)
    store.publish("rows", [staged], [audit(staged)], RUN, kind="erase", provenance={"tombstone": "t1"})
    store.revert(first, RUN, reason="back")
    history = store.history("rows")
    assert [commit.kind for commit in history] == ["revert", "erase", "publish"]
    assert history[1].provenance == {"tombstone": "t1"}
    assert all(commit.table == "rows" and commit.run == RUN for commit in history)
    times = [commit.at for commit in history]
    assert times == sorted(times, reverse=True)
    assert all(before < at < datetime.now(UTC) + timedelta(minutes=5) for at in times)
    assert store.history("labels") == []

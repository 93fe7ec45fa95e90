"""The contract of `SnapshotStore`, run on every backend."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import AuditError, ConflictError, IntegrityError, NotFoundError, SchemaMismatch
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Check, SnapshotRef
from tests.contracts.stores import EXAMPLES, RUN, audit, content, frame, interpose, open_store, put, spoil, stage


def test_a_staged_partition_is_invisible_until_it_is_published(store: SnapshotStore) -> None:
    staged = stage(store, "2013-01-01", 1, 2)
    assert store.head("rows") is None
    store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0, 2.0]}


def test_the_same_frame_gives_the_same_digest_and_another_frame_another(store: SnapshotStore) -> None:
    first, again, other = (stage(store, "2013-01-01", *v) for v in ((1, 2), (1, 2), (1, 3)))
    assert first.digest == again.digest != other.digest


def test_publishing_the_same_bytes_again_makes_no_commit(store: SnapshotStore) -> None:
    first = put(store, "2013-01-01", 1, 2)
    again = put(store, "2013-01-01", 1, 2)
    assert again.snapshot == first.snapshot
    assert not again.published
    assert [part.partition for part in again.unchanged] == ["2013-01-01"]
    assert len(store.history("rows")) == 1


def test_a_restated_partition_replaces_its_rows_and_the_old_snapshot_still_reads(store: SnapshotStore) -> None:
    old = put(store, "2013-01-01", 1, 2).snapshot
    put(store, "2013-01-02", 5)
    new = put(store, "2013-01-01", 3).snapshot
    assert content(store) == {"2013-01-01": [3.0], "2013-01-02": [5.0]}
    assert store.scan(old).collect().get_column("value").to_list() == [1.0, 2.0]
    assert [commit.snapshot for commit in store.history("rows")][::2] == [new, old]


def test_going_back_to_earlier_bytes_is_a_new_commit(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    put(store, "2013-01-01", 2)
    put(store, "2013-01-01", 1)
    assert content(store) == {"2013-01-01": [1.0]}
    assert len(store.history("rows")) == 3


def test_many_partitions_are_published_in_one_commit_with_every_audit(store: SnapshotStore) -> None:
    staged = store.stage("rows", [Draft(partition=f"2013-01-{day:02d}", frame=frame(day)) for day in range(1, 11)], RUN)
    done = store.publish("rows", staged, [audit(part) for part in staged], RUN, provenance={"why": "history"})
    (commit,) = store.history("rows")
    assert commit.snapshot == done.snapshot
    assert commit.provenance == {"why": "history"}
    assert commit.run == RUN
    assert commit.partitions == {part.partition: part.digest for part in staged}
    assert {name: entry.rows for name, entry in commit.audits.items()} == {part.partition: 1 for part in staged}


@pytest.mark.parametrize(
    "spoil",
    [
        {"passed": False},
        {"digest": "0" * 64},
        {"partition": "2013-01-02"},
        {"table": "labels"},
        {"use_case": "other"},
        {"rows": 99},
        {"checks": ()},
        {"checks": (Check(name="x", passed=False, observed="no"),)},
    ],
    ids=lambda spoil: next(iter(spoil)),
)
def test_publishing_without_a_passing_audit_of_exactly_these_bytes_is_refused(
    store: SnapshotStore, spoil: dict[str, object]
) -> None:
    staged = stage(store, "2013-01-01", 1)
    with pytest.raises(AuditError):
        store.publish("rows", [staged], [audit(staged).model_copy(update=spoil)], RUN)
    with pytest.raises(AuditError):
        store.publish("rows", [staged], [], RUN)
    assert store.head("rows") is None


def test_an_audit_by_another_suite_than_the_one_that_is_asked_for_is_refused(store: SnapshotStore) -> None:
    staged = stage(store, "2013-01-01", 1)
    report = audit(staged)
    with pytest.raises(AuditError, match="another suite"):
        store.publish("rows", [staged], [report], RUN, suite="f" * 64)
    assert store.head("rows") is None
    store.publish("rows", [staged], [report], RUN, suite=report.suite_digest)
    assert content(store) == {"2013-01-01": [1.0]}


def test_a_staged_file_that_changed_after_its_audit_is_refused(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    staged = stage(store, "2013-01-01", 2)
    spoil(store, staged)
    with pytest.raises(IntegrityError):
        store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}


def test_a_partition_with_other_columns_is_refused_and_names_them(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    (staged,) = store.stage(
        "rows", [Draft(partition="2013-01-02", frame=pl.DataFrame({"key": ["k"], "surprise": [1.0]}))], RUN
    )
    with pytest.raises(SchemaMismatch, match="surprise"):
        store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}


def test_a_partition_with_another_column_type_is_refused(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    (staged,) = store.stage(
        "rows", [Draft(partition="2013-01-02", frame=pl.DataFrame({"key": ["k"], "value": ["text"]}))], RUN
    )
    with pytest.raises(SchemaMismatch, match="value"):
        store.publish("rows", [staged], [audit(staged)], RUN)


WIDE = pl.DataFrame({"key": ["k0"], "more": [True], "value": [2.0]})


def put_wide(store: SnapshotStore, *days: str, wide: pl.DataFrame = WIDE) -> SnapshotRef:
    staged = store.stage("rows", [Draft(partition=day, frame=wide) for day in days], RUN)
    return store.publish("rows", staged, [audit(part) for part in staged], RUN, wider=True).snapshot


def test_a_partition_may_bring_a_column_where_the_publisher_says_so_and_older_ones_hold_nulls(
    store: SnapshotStore,
) -> None:
    before = put(store, "2013-01-01", 1).snapshot
    put(store, "2013-01-02", 1)
    (staged,) = store.stage("rows", [Draft(partition="2013-01-02", frame=WIDE)], RUN)
    with pytest.raises(SchemaMismatch, match="more"):
        store.publish("rows", [staged], [audit(staged)], RUN)
    after = put_wide(store, "2013-01-02", "2013-01-03")
    rows = store.scan(after).collect()
    assert rows.columns == ["partition", "key", "more", "value"]
    assert rows.rows() == [
        ("2013-01-01", "k0", None, 1.0),
        ("2013-01-02", "k0", True, 2.0),
        ("2013-01-03", "k0", True, 2.0),
    ]
    assert store.scan(after, ["2013-01-01"], ["more"]).collect().rows() == [("2013-01-01", None)]
    assert store.scan(after, []).collect().schema == rows.schema
    assert store.history("rows")[0].snapshot == after
    # Snapshots and bytes from before are what they were.
    assert store.scan(before).collect().columns == ["partition", "key", "value"]
    assert store.read_held("rows", store.partitions(after)["2013-01-01"]).collect().equals(frame(1))
    assert store.examine() == []


def test_a_wider_table_keeps_its_columns_and_is_wide_after_a_revert(store: SnapshotStore) -> None:
    before = put(store, "2013-01-01", 1).snapshot
    after = put_wide(store, "2013-01-02")
    narrow = stage(store, "2013-01-03", 3)
    for wider in (False, True):
        with pytest.raises(SchemaMismatch, match="more"):
            store.publish("rows", [narrow], [audit(narrow)], RUN, wider=wider)
    with pytest.raises(SchemaMismatch, match="value"):
        put_wide(store, "2013-01-03", wide=WIDE.drop("value"))
    with pytest.raises(SchemaMismatch, match="more"):
        put_wide(store, "2013-01-03", wide=WIDE.with_columns(more=pl.lit("text")))
    store.revert(before, RUN, reason="test")
    head = store.head("rows")
    assert head is not None
    assert store.scan(head).collect().rows() == [("2013-01-01", "k0", None, 1.0)]
    assert put_wide(store, "2013-01-01") not in (head, after)


def test_of_two_runs_that_bring_the_same_column_both_are_published(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    staged = [store.stage("rows", [Draft(partition=f"2013-01-0{day}", frame=WIDE)], RUN) for day in (1, 2, 3)]
    for parts in staged:
        store.publish("rows", parts, [audit(part) for part in parts], RUN, wider=True)
    head = store.head("rows")
    assert head is not None
    assert store.scan(head).collect().get_column("more").to_list() == [True, True, True]


def test_of_runs_that_bring_the_same_column_at_once_each_is_published(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    days = [f"2013-01-0{day}" for day in range(2, 6)]
    barrier = threading.Barrier(len(days))

    def publish(day: str) -> None:
        staged = store.stage("rows", [Draft(partition=day, frame=WIDE)], RUN)
        barrier.wait()
        store.publish("rows", staged, [audit(part) for part in staged], RUN, wider=True)

    threads = [threading.Thread(target=publish, args=(day,)) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = store.head("rows")
    assert head is not None
    assert store.scan(head).collect().get_column("more").to_list() == [None, True, True, True, True]
    assert len(store.history("rows")) == 5


def test_absent_publishes_once_and_refuses_other_bytes(store: SnapshotStore) -> None:
    first = stage(store, "e000001", 1, table="log")
    store.publish("log", [first], [audit(first)], RUN, absent=True)
    again = stage(store, "e000001", 1, table="log")
    assert store.publish("log", [again], [audit(again)], RUN, absent=True).unchanged
    other = stage(store, "e000001", 2, table="log")
    with pytest.raises(ConflictError):
        store.publish("log", [other], [audit(other)], RUN, absent=True)


def test_of_many_promoters_of_one_epoch_one_wins_and_the_others_are_told(store: SnapshotStore) -> None:
    put(store, "e000000", 0, table="log")
    barrier = threading.Barrier(6)
    outcomes: list[str] = []

    def promote(number: int) -> None:
        staged = stage(store, "e000001", number, table="log")
        barrier.wait()
        try:
            store.publish("log", [staged], [audit(staged)], RUN, absent=True)
            outcomes.append(f"won {number}")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if outcome != "lost"]
    assert len(winners) == 1
    assert len(outcomes) == 6
    assert content(store, "log")["e000001"] == [float(winners[0].split()[1])]


def test_concurrent_publishes_of_different_partitions_all_succeed(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 0)
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def publish(day: int) -> None:
        staged = stage(store, f"2013-01-{day:02d}", day)
        barrier.wait()
        try:
            store.publish("rows", [staged], [audit(staged)], RUN)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(day,)) for day in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert content(store) == {f"2013-01-{day:02d}": [float(day if day > 1 else 0)] for day in range(1, 8)}


@pytest.mark.parametrize("day", ["2013-01-01", "2013-01-02"])
def test_a_publish_that_was_prepared_before_another_won_is_refused(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    """The interleaving that threads seldom hit: both prepare, one commits, then the other commits.

    The second day is new: both publishes only add a file.
    """
    put(store, "2013-01-01", 1)
    rival = stage(store, day, 2)
    mine = stage(store, day, 3)
    interpose(monkeypatch, "publish.linked", lambda: store.publish("rows", [rival], [audit(rival)], RUN))
    with pytest.raises(ConflictError):
        store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store) == {"2013-01-01": [1.0], day: [2.0]}


def test_scan_reads_partitions_and_columns_and_names_what_is_missing(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    head = put(store, "2013-01-02", 2, 3).snapshot
    picked = store.scan(head, ["2013-01-02"], ["value"]).collect()
    assert picked.columns == ["partition", "value"]
    assert picked.rows() == [("2013-01-02", 2.0), ("2013-01-02", 3.0)]
    assert store.scan(head, []).collect().height == 0
    assert store.scan(head, [], ["value"]).collect().columns == ["partition", "value"]
    with pytest.raises(NotFoundError, match="2013-01-09"):
        store.scan(head, ["2013-01-09"])


def test_an_empty_partition_is_published_visibly(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    head = put(store, "2013-01-02").snapshot
    assert store.partitions(head)["2013-01-02"].rows == 0


def test_a_snapshot_that_never_was_is_not_found(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    for wrong in (
        SnapshotRef(store="delta", use_case="uc", table="rows", version="99"),
        SnapshotRef(store="delta", use_case="uc", table="nothing", version="1"),
        SnapshotRef(store="delta", use_case="other", table="rows", version="1"),
    ):
        with pytest.raises(NotFoundError):
            store.partitions(wrong)


@pytest.mark.parametrize("name", ["../rows", "a/b", "", "..", "%2e%2e", "a\0b", "x" * 200, "/etc"])
def test_names_that_could_leave_the_folder_are_refused(store: SnapshotStore, name: str) -> None:
    with pytest.raises(NotFoundError):
        stage(store, name, 1)
    with pytest.raises(NotFoundError):
        store.head(name)


def test_quarantine_keeps_the_report_and_the_original_and_is_never_data(store: SnapshotStore, tmp_path: Path) -> None:
    original = tmp_path / "rows.csv"
    original.write_text("broken")
    staged = stage(store, "2013-01-01", 1)
    report = audit(staged, passed=False)
    entry = store.quarantine(report, staged, [original])
    assert store.originals(entry) == {"rows.csv": b"broken"}
    assert store.quarantined("rows") == [entry]
    assert store.quarantine(report, None, [original]) == entry
    assert store.head("rows") is None


def test_a_discarded_partition_cannot_be_published(store: SnapshotStore) -> None:
    staged = stage(store, "2013-01-01", 1)
    store.discard(staged)
    store.discard(staged)
    with pytest.raises(NotFoundError):
        store.publish("rows", [staged], [audit(staged)], RUN)


def test_a_publish_repeated_after_its_commit_finds_its_own_rows(store: SnapshotStore) -> None:
    """What a retry sees when the worker died after the commit: the staged file is gone, the rows are there."""
    staged = stage(store, "2013-01-01", 1)
    first = store.publish("rows", [staged], [audit(staged)], RUN)
    again = store.publish("rows", [staged], [audit(staged)], RUN)
    assert again.snapshot == first.snapshot
    assert again.unchanged == first.published


_DAYS = ["2013-01-01", "2013-01-02", "2013-01-03"]


def test_the_order_of_publishes_does_not_matter(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    for order in itertools.islice(itertools.permutations(_DAYS), EXAMPLES[backend]):
        store = open_store(backend, tmp_path_factory.mktemp("order"))
        for day in order:
            put(store, day, int(day[-1]))
        assert content(store) == {day: [float(day[-1])] for day in _DAYS}


_PLANS = st.lists(st.tuples(st.sampled_from(_DAYS), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=6)


def test_any_sequence_of_publishes_reads_like_a_dictionary(
    backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=EXAMPLES[backend], deadline=None, database=None)
    @given(plan=_PLANS)
    def reads_like_a_dictionary(plan: list[tuple[str, list[int]]]) -> None:
        store = open_store(backend, tmp_path_factory.mktemp("plan"))
        model: dict[str, list[float]] = {}
        for day, values in plan:
            put(store, day, *values)
            model[day] = [float(value) for value in values]
            head = store.head("rows")
            assert head is not None
            rows = {key: part.rows for key, part in store.partitions(head).items()}
            assert rows == {key: len(values) for key, values in model.items()}
        assert content(store) == {day: values for day, values in model.items() if values}

    reads_like_a_dictionary()

"""Whether a training's data had passed its audit, on every store: after erasures, reverts and healed partitions too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from pipelines.backends.lakefs import LakeFSStore
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Audit, Commit, DataAudit, SnapshotRef, StagedPartition, TrainingSet
from pipelines.steps.evaluation.data import Proofs, audit
from pipelines.steps.inputs import REPLACES
from tests.contracts import stores
from tests.contracts.stores import RUN, frame, put

DAYS = ("2013-01-01", "2013-01-02", "2013-01-03")


def training_set(*snapshots: SnapshotRef, reads: Sequence[tuple[str, str]] = ((DAYS[0], DAYS[-1]),)) -> TrainingSet:
    span = (DAYS[0], DAYS[-1])
    return TrainingSet(
        use_case="uc",
        folder="nowhere",
        as_of=DAYS[-1],
        snapshots=snapshots,
        train=span,
        validation=span,
        holdout=span,
        reads={snapshot.table: tuple(reads) for snapshot in snapshots},
        rows={},
        digest="",
    )


def looked(store: SnapshotStore, **reads: Sequence[tuple[str, str]]) -> DataAudit:
    """The audit of a training on what readers see now."""
    head = store.head("rows")
    assert head is not None
    return audit(store, training_set(head, **reads))


def fill(store: SnapshotStore) -> None:
    for number, day in enumerate(DAYS):
        put(store, day, number)


def set_aside(store: SnapshotStore, day: str, *values: float, suite: str = "1" * 64) -> None:
    staged = stores.stage(store, day, *values)
    report = stores.audit(staged, passed=False).model_copy(update={"suite_digest": suite})
    store.quarantine(report, staged, [])


def erase(store: SnapshotStore, day: str, *left: float, of: str) -> StagedPartition:
    """What an erasure publishes: the partition without some rows, which names what it replaced."""
    staged = stores.stage(store, day, *left)
    store.publish("rows", [staged], [stores.audit(staged)], RUN, provenance={REPLACES: {day: of}}, kind="erase")
    return staged


def heal(store: SnapshotStore, day: str, *values: float) -> None:
    """Publishes what was set aside, a second later: lakeFS tells the time of a commit in seconds."""
    time.sleep(1.01 if isinstance(store, LakeFSStore) else 0.01)
    put(store, day, *values)


def digest(store: SnapshotStore, day: str) -> str:
    head = store.head("rows")
    assert head is not None
    return store.partitions(head)[day].digest


def test_every_partition_that_was_read_had_passed_and_others_do_not_count(store: SnapshotStore) -> None:
    fill(store)
    put(store, DAYS[0], 5, table="labels")
    rows, labels = store.head("rows"), store.head("labels")
    assert rows is not None
    assert labels is not None
    assert audit(store, training_set(rows, labels)) == DataAudit(partitions=4)
    set_aside(store, DAYS[1], 7)
    set_aside(store, DAYS[2], 2)
    assert looked(store) == DataAudit(partitions=3, quarantined=(f"rows/{DAYS[2]}",)), "other bytes are not these"
    assert looked(store, reads=[(DAYS[0], DAYS[1])]) == DataAudit(partitions=2)


def test_a_training_set_that_does_not_say_what_it_read_is_no_proof(store: SnapshotStore) -> None:
    fill(store)
    head = store.head("rows")
    assert head is not None
    with pytest.raises(ValueError, match="does not say what it read"):
        audit(store, training_set(head).model_copy(update={"reads": {}}))


def test_a_partition_that_was_healed_under_corrected_expectations_has_passed(store: SnapshotStore) -> None:
    fill(store)
    set_aside(store, "2013-01-04", 9)
    heal(store, "2013-01-04", 9)
    assert looked(store, reads=[(DAYS[0], "2013-01-04")]) == DataAudit(partitions=4)


def test_published_bytes_that_stricter_expectations_refuse_are_in_quarantine_whatever_was_before(
    store: SnapshotStore,
) -> None:
    fill(store)
    set_aside(store, DAYS[1], 9)
    heal(store, DAYS[1], 9)
    assert looked(store) == DataAudit(partitions=3)
    set_aside(store, DAYS[1], 9, suite="2" * 64)
    assert looked(store) == DataAudit(partitions=3, quarantined=(f"rows/{DAYS[1]}",))


def test_a_revert_brings_bytes_back_with_the_audit_that_they_had(store: SnapshotStore) -> None:
    fill(store)
    before = store.head("rows")
    assert before is not None
    put(store, DAYS[1], 8, 9)
    store.revert(before, RUN, reason="restated by mistake")
    assert looked(store) == DataAudit(partitions=3)
    set_aside(store, DAYS[1], 1)
    assert looked(store).quarantined == (f"rows/{DAYS[1]}",)


def test_what_an_erasure_left_is_as_good_as_what_it_was_made_of(store: SnapshotStore) -> None:
    put(store, DAYS[0], 1, 2, 3)
    put(store, DAYS[1], 4, 5, 6)
    first = digest(store, DAYS[0])
    once = erase(store, DAYS[0], 1, 2, of=first)
    erase(store, DAYS[0], 1, of=once.digest)
    assert looked(store) == DataAudit(partitions=2)
    erased = store.head("rows")
    put(store, DAYS[0], 7)
    assert erased is not None
    store.revert(erased, RUN, reason="back to what was erased")
    assert looked(store) == DataAudit(partitions=2)
    set_aside(store, DAYS[0], 1, 2, 3)
    assert looked(store) == DataAudit(partitions=2, quarantined=(f"rows/{DAYS[0]}",)), "what it was made of is bad"


def test_an_erasure_does_not_make_good_what_nobody_had_audited(store: SnapshotStore) -> None:
    put(store, DAYS[0], 1, 2)
    erase(store, DAYS[0], 1, of="f" * 64)
    assert looked(store) == DataAudit(partitions=1, unaudited=(f"rows/{DAYS[0]}",))


def test_an_older_snapshot_is_judged_by_its_own_bytes(store: SnapshotStore) -> None:
    fill(store)
    old = store.head("rows")
    assert old is not None
    put(store, DAYS[1], 8)
    set_aside(store, DAYS[1], 1)
    assert looked(store) == DataAudit(partitions=3)
    assert audit(store, training_set(old)).quarantined == (f"rows/{DAYS[1]}",)


def test_two_tables_of_one_digest_are_not_each_others_proof(store: SnapshotStore) -> None:
    """The same bytes under another key were never audited as that partition."""
    put(store, DAYS[0], 1)
    proofs = Proofs.of(store, "rows")
    known = digest(store, DAYS[0])
    assert proofs.audited((DAYS[0], known))
    assert not proofs.audited((DAYS[1], known))
    assert not Proofs.of(store, "labels").audited((DAYS[0], known))


def test_bytes_that_were_written_past_the_store_are_named(tmp_path: Path) -> None:
    store = stores.open_store("delta", tmp_path)
    fill(store)
    stray = frame(66).with_columns(pl.lit("2013-01-04").alias("partition"))
    write_deltalake(tmp_path / "snapshots" / "uc" / "rows", stray.to_arrow(), mode="append", partition_by=["partition"])
    found = looked(store, reads=[(DAYS[0], "2013-01-04")])
    assert found == DataAudit(partitions=4, unaudited=("rows/2013-01-04",))


def test_a_revert_alone_proves_nothing() -> None:
    proofs = Proofs()
    one = Audit(digest="a", suite="s", suite_digest="s", checks=1, rows=1)
    snapshot = SnapshotRef(store="delta", use_case="uc", table="rows", version="1")
    commit = {"table": "rows", "run": RUN, "partitions": {DAYS[0]: "d"}, "audits": {DAYS[0]: one}}
    about = {**commit, "snapshot": snapshot, "at": "2026-01-01T00:00:00Z"}
    proofs._learn(Commit.model_validate({**about, "kind": "revert"}))
    assert not proofs.audited((DAYS[0], "d"))
    proofs._learn(Commit.model_validate({**about, "audits": {}}))
    assert not proofs.audited((DAYS[0], "d")), "a digest without its audit is no proof"
    proofs._learn(Commit.model_validate(about))
    assert proofs.audited((DAYS[0], "d"))


def test_a_year_of_partitions_is_looked_through_with_one_look_at_the_history(store: SnapshotStore) -> None:
    drafts = [Draft(partition=f"2013-{m:02}-{d:02}", frame=frame(m, d)) for m in range(1, 13) for d in range(1, 4)]
    staged = store.stage("rows", drafts, RUN)
    store.publish("rows", staged, [stores.audit(part) for part in staged], RUN)
    assert looked(store, reads=[("2013-01-01", "2013-12-31")]) == DataAudit(partitions=36)

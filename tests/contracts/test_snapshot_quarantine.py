"""Bad partitions lie apart with their report and their original files, until those are expunged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import NotFoundError
from pipelines.ports import SnapshotStore
from pipelines.records import Check, Quarantined
from tests.contracts.stores import audit, stage


def _set_aside(store: SnapshotStore, folder: Path, partition: str = "2013-01-01", *values: float) -> Quarantined:
    original = folder / f"{partition}.csv"
    original.write_text(f"broken {values}")
    staged = stage(store, partition, *values)
    return store.quarantine(audit(staged, passed=False), staged, [original])


def test_entries_come_oldest_partition_first_and_by_table(store: SnapshotStore, tmp_path: Path) -> None:
    later = _set_aside(store, tmp_path, "2013-01-02", 1)
    sooner = _set_aside(store, tmp_path, "2013-01-01", 2)
    assert store.quarantined("rows") == [sooner, later]
    assert store.quarantined("labels") == []
    assert later.report.failed


def test_what_was_set_aside_is_not_staged_any_more(store: SnapshotStore, tmp_path: Path) -> None:
    staged = stage(store, "2013-01-01", 1)
    store.quarantine(audit(staged, passed=False), staged, [])
    with pytest.raises(NotFoundError):
        store.local(staged)


def test_two_originals_of_one_name_are_both_kept(store: SnapshotStore, tmp_path: Path) -> None:
    files = [tmp_path / "a" / "rows.csv", tmp_path / "b" / "rows.csv", tmp_path / "quarantined.json"]
    for number, path in enumerate(files):
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
    staged = stage(store, "2013-01-01", 1)
    entry = store.quarantine(audit(staged, passed=False), staged, files)
    assert sorted(store.originals(entry).values()) == [b"0", b"1", b"2"]
    assert store.quarantined("rows") == [entry]


def test_expunging_removes_the_originals_and_replaces_the_report(store: SnapshotStore, tmp_path: Path) -> None:
    other = _set_aside(store, tmp_path, "2013-01-02", 1)
    entry = _set_aside(store, tmp_path, "2013-01-01", 2)
    redacted = entry.report.model_copy(update={"checks": (Check(name="erased", passed=False, observed="erased"),)})
    for _ in range(2):
        store.expunge(entry, redacted)
        assert store.originals(entry) == {}
        kept, untouched = store.quarantined("rows")
        assert kept == entry.model_copy(update={"report": redacted})
        assert untouched == other
    assert store.originals(other) == {"2013-01-02.csv": b"broken (1,)"}


def test_expunged_files_do_not_come_back_with_a_rerun(store: SnapshotStore, tmp_path: Path) -> None:
    entry = _set_aside(store, tmp_path, "2013-01-01", 2)
    store.expunge(entry, entry.report)
    again = _set_aside(store, tmp_path, "2013-01-01", 2)
    assert again == entry
    assert store.originals(again) == {}


def test_an_entry_that_points_elsewhere_opens_nothing(store: SnapshotStore, tmp_path: Path) -> None:
    entry = _set_aside(store, tmp_path, "2013-01-01", 2)
    for forged in ({"partition": "../.."}, {"table": "../rows"}, {"folder": "/etc"}):
        with pytest.raises(NotFoundError):
            store.originals(entry.model_copy(update=forged))

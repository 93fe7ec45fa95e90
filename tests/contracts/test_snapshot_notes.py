"""What the writer of a partition file noted in it, on every backend: read back without the rows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from pipelines.errors import NotFoundError, RemovedError
from pipelines.parquet import Writer
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Publication
from tests.contracts.stores import RUN, audit, content, frame, put, tombstone

DAYS = tuple(f"2013-01-{day:02d}" for day in range(1, 13))


def _write(notes: dict[str, str], values: tuple[float, ...], path: Path) -> int:
    rows = frame(*values)
    with Writer(path, rows.schema) as file:
        file.write(rows)
        return file.close(notes)


def put_noted(store: SnapshotStore, notes: dict[str, dict[str, str]], *values: float) -> Publication:
    """Publishes partitions of the same rows, each with its notes."""
    drafts = [Draft(partition=key, write=partial(_write, told, values)) for key, told in notes.items()]
    staged = store.stage("rows", drafts, RUN)
    return store.publish("rows", staged, [audit(part) for part in staged], RUN)


def test_notes_of_the_named_partitions_are_read_and_no_others(store: SnapshotStore) -> None:
    text = json.dumps({"größe": "a\"b'\n\\", "long": "x" * 20_000})
    head = put_noted(store, {day: {"n": f"{text}{day}", "m": "other"} for day in DAYS}, 1, 2).snapshot
    assert store.notes(head, DAYS[1:3], "n") == {day: f"{text}{day}" for day in DAYS[1:3]}
    assert store.notes(head, [DAYS[4], DAYS[4]], "m") == {DAYS[4]: "other"}
    # So many that they are read at once.
    assert store.notes(head, DAYS[::-1], "n") == {day: f"{text}{day}" for day in DAYS}
    assert store.notes(head, [], "n") == {}
    assert content(store) == {key: [1.0, 2.0] for key in DAYS}


def test_where_nothing_was_noted_under_the_name_there_is_no_entry(store: SnapshotStore) -> None:
    put_noted(store, {DAYS[0]: {"n": "told"}, DAYS[1]: {}, DAYS[2]: {"m": "told"}}, 1)
    head = put(store, DAYS[3], 1).snapshot  # a plain frame
    assert store.notes(head, DAYS[:4], "n") == {DAYS[0]: "told"}
    assert store.notes(head, DAYS[:4], "never") == {}


def test_a_file_without_rows_has_its_notes(store: SnapshotStore) -> None:
    head = put_noted(store, {DAYS[0]: {"n": "nothing came"}}).snapshot
    assert store.notes(head, [DAYS[0]], "n") == {DAYS[0]: "nothing came"}


def test_notes_are_part_of_the_bytes(store: SnapshotStore) -> None:
    first = put_noted(store, {DAYS[0]: {"n": "first"}}, 1)
    again = put_noted(store, {DAYS[0]: {"n": "first"}}, 1)
    assert (again.snapshot, again.published) == (first.snapshot, ())
    second = put_noted(store, {DAYS[0]: {"n": "second"}}, 1)
    assert second.published[0].digest != first.published[0].digest
    assert store.notes(first.snapshot, [DAYS[0]], "n") == {DAYS[0]: "first"}
    assert store.notes(second.snapshot, [DAYS[0]], "n") == {DAYS[0]: "second"}


def test_an_unknown_partition_or_snapshot_is_not_found(store: SnapshotStore) -> None:
    head = put_noted(store, {DAYS[0]: {"n": "told"}}, 1).snapshot
    with pytest.raises(NotFoundError, match=DAYS[5]):
        store.notes(head, [DAYS[0], DAYS[5]], "n")
    for changed in ({"table": "labels"}, {"use_case": "other"}, {"version": "99"}):
        with pytest.raises(NotFoundError):
            store.notes(head.model_copy(update=changed), [DAYS[0]], "n")


def test_notes_of_removed_bytes_are_removed_with_them_and_the_others_stay(store: SnapshotStore) -> None:
    old = put_noted(store, {DAYS[0]: {"n": "a"}, DAYS[1]: {"n": "b"}}, 1)
    new = put_noted(store, {DAYS[0]: {"n": "c"}}, 2).snapshot
    gone = next(part for part in old.published if part.partition == DAYS[0])
    store.purge(tombstone("t1", gone))
    with pytest.raises(RemovedError, match="t1"):
        store.notes(old.snapshot, DAYS[:2], "n")
    assert store.notes(old.snapshot, [DAYS[1]], "n") == {DAYS[1]: "b"}
    assert store.notes(new, DAYS[:2], "n") == {DAYS[0]: "c", DAYS[1]: "b"}


def test_after_a_revert_the_notes_are_those_of_the_bytes_that_came_back(store: SnapshotStore) -> None:
    to = put_noted(store, {DAYS[0]: {"n": "first"}}, 1).snapshot
    last = put_noted(store, {DAYS[0]: {"n": "second"}, DAYS[1]: {"n": "new"}}, 2).snapshot
    head = store.revert(to, RUN, reason="nonsense").snapshot
    assert store.notes(head, [DAYS[0]], "n") == {DAYS[0]: "first"}
    with pytest.raises(NotFoundError):
        store.notes(head, [DAYS[1]], "n")
    assert store.notes(last, DAYS[:2], "n") == {DAYS[0]: "second", DAYS[1]: "new"}

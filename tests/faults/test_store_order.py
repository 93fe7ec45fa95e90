"""Reruns, restatements and backfills of two tables, one made from the other, in every order that a night can bring."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ConflictError
from pipelines.ports import SnapshotStore
from pipelines.records import StagedPartition
from tests.contracts.stores import RUN, audit, content, open_store
from tests.faults.harness import publish, stage_all

_ONE, _TWO = "2013-01-01", "2013-01-02"
_FILES = {_ONE: (1.0, 2.0), _TWO: (5.0,)}
_RESTATED = (3.0,)
#: Every store is real, and servers take their time: every so manieth order is played.
_EACH = {"delta": 1}


def _ingest(store: SnapshotStore, day: str, values: tuple[float, ...]) -> None:
    publish(store, {day: values})


def _score(store: SnapshotStore, day: str) -> None:
    """Makes predictions from the rows as they are now, and says from which."""
    rows = store.head("rows")
    assert rows is not None
    scores = store.scan(rows, [day], ["value"]).collect().get_column("value") / 2
    made_from = {day: store.partitions(rows)[day].digest}
    publish(store, {day: tuple(scores)}, "predictions", inputs=rows.id, digests=made_from)


def _orders() -> Iterator[tuple[str, ...]]:
    """Every order of one day's ingest, score, restatement and score, and of another day's ingest and score."""
    for places in itertools.combinations(range(6), 2):
        first, second = iter(("ingest", "score", "restate", "score")), iter(("backfill", "score it"))
        yield tuple(next(second) if place in places else next(first) for place in range(6))


def _play(store: SnapshotStore, order: tuple[str, ...], *, times: int) -> None:
    """Every task runs so many times, as a scheduler that retries and repeats may have it."""
    tasks = {
        "ingest": lambda: _ingest(store, _ONE, _FILES[_ONE]),
        "restate": lambda: _ingest(store, _ONE, _RESTATED),
        "score": lambda: _score(store, _ONE),
        "backfill": lambda: _ingest(store, _TWO, _FILES[_TWO]),
        "score it": lambda: _score(store, _TWO),
    }
    for task in order:
        for _ in range(times):
            tasks[task]()


def _state(store: SnapshotStore) -> dict[str, Any]:
    """Both tables, and from which bytes each partition of predictions was made."""
    lineage: dict[str, Any] = {}
    for commit in reversed(store.history("predictions")):
        lineage.update(commit.provenance["digests"])
    heads = {table: store.head(table) for table in ("rows", "predictions")}
    return {
        "lineage": lineage,
        "content": {table: content(store, table) for table in heads},
        "partitions": {table: store.partitions(head) for table, head in heads.items() if head is not None},
        "commits": {table: len(store.history(table)) for table in heads},
    }


def test_restatements_and_backfills_of_two_tables_end_in_the_same_state_in_any_order(
    backend: str, tmp_path: Path
) -> None:
    orders = list(_orders())
    assert len(orders) == 15
    reference = open_store("delta", tmp_path / "reference")
    _play(reference, orders[0], times=1)
    wanted = _state(reference)
    assert wanted["content"]["predictions"] == {_ONE: [1.5], _TWO: [2.5]}
    assert wanted["lineage"] == {day: part.digest for day, part in wanted["partitions"]["rows"].items()}
    seen = {}
    for number, order in enumerate(orders[:: _EACH.get(backend, 7)]):
        store = open_store(backend, tmp_path / f"order{number}")
        _play(store, order, times=1 + number % 2)
        seen[order] = _state(store)
    assert seen == dict.fromkeys(seen, wanted)


@pytest.mark.parametrize("late", ["the rows", "the predictions"])
def test_a_run_that_was_overtaken_by_a_restatement_changes_nothing(backend: str, late: str, tmp_path: Path) -> None:
    store = open_store(backend, tmp_path)
    table = "rows" if late == "the rows" else "predictions"
    _play(store, ("ingest", "score"), times=1)
    slow: tuple[StagedPartition, ...] = stage_all(store, {_ONE: (8.0,)}, table)
    _play(store, ("restate", "score"), times=1)
    before = _state(store)
    with pytest.raises(ConflictError, match=_ONE):
        store.publish(table, slow, [audit(part) for part in slow], RUN)
    assert _state(store) == before

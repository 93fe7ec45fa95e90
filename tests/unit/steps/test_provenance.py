"""What was recorded, read back from stores of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.provenance import Books, Part
from tests.contracts.stores import RUN, audit, open_store, put, stage
from tests.registries import open_registry

DAY = "2013-01-01"


@pytest.fixture
def store(backend: str, tmp_path: Path) -> SnapshotStore:
    return open_store(backend, tmp_path)


def books(spec: UseCase, store: SnapshotStore, tmp_path: Path) -> Books:
    registry = open_registry(spec.name, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "models")
    return Books(spec=spec, store=store, registry=registry)


def head(store: SnapshotStore, table: str) -> SnapshotRef:
    found = store.head(table)
    assert found is not None
    return found


def test_a_state_of_a_table_is_the_same_whichever_commit_names_it(
    store: SnapshotStore, flights_spec: UseCase, tmp_path: Path
) -> None:
    """Where all tables share one history, the newest snapshot of one is often named by a commit of another."""
    made = put(store, DAY, 1).snapshot
    put(store, DAY, 1, table="labels")
    named = head(store, "rows")
    put(store, DAY, 2)
    told = books(flights_spec, store, tmp_path)
    assert told.same(named, made)
    assert told.same(made, named)
    assert not told.same(named, head(store, "rows"))
    assert not told.same(named, head(store, "labels"))
    commit = told.commit(named)
    assert commit is not None
    assert commit.snapshot == made


def test_bytes_are_told_by_the_publish_that_made_them_whatever_reverts_brought_them_back(
    store: SnapshotStore, flights_spec: UseCase, tmp_path: Path
) -> None:
    first = put(store, DAY, 1).snapshot
    second = put(store, DAY, 2).snapshot
    store.revert(first, RUN, reason="test")
    digests = [store.partitions(ref)[DAY].digest for ref in (first, second)]
    told = books(flights_spec, store, tmp_path)
    for digest, ref in zip(digests, (first, second), strict=True):
        origin = told.origin(Part(table="rows", partition=DAY, digest=digest))
        assert origin is not None
        assert (origin.kind, origin.snapshot) == ("publish", ref)
    assert told.origin(Part(table="rows", partition=DAY, digest="0" * 64)) is None
    assert [commit.kind for commit in told.published("rows", DAY)] == ["revert", "publish", "publish"]


def test_what_an_erasure_left_of_predictions_was_made_from_what_those_before_were(
    store: SnapshotStore, flights_spec: UseCase, tmp_path: Path
) -> None:
    rows = put(store, DAY, 1).snapshot
    read = store.partitions(rows)[DAY].digest
    notes = {"model": 3, "inputs": "x", "read": {"rows": [DAY, DAY]}}
    provenance = {
        "artifact": "a" * 64,
        "training": "run",
        "snapshots": [rows.id],
        "read": {"rows": {DAY: read}},
        "predictions": {DAY: notes},
    }
    whole = stage(store, DAY, 1, 2, table="predictions")
    store.publish("predictions", [whole], [audit(whole)], RUN, provenance=provenance)
    left = stage(store, DAY, 1, table="predictions")
    erased = {"replaces": {DAY: whole.digest}, "predictions": {DAY: {**notes, "replay": "erased"}}}
    store.publish("predictions", [left], [audit(left)], RUN, provenance=erased, kind="erase")
    told = books(flights_spec, store, tmp_path).scoring(Part(table="predictions", partition=DAY, digest=left.digest))
    assert told is not None
    assert (told.version, told.artifact, told.snapshots) == (3, "a" * 64, {"rows": rows})
    assert told.read == (Part(table="rows", partition=DAY, digest=read),)
    assert told.commit.kind == "erase"

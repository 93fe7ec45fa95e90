"""kill -9 at every failpoint of the store, then the same again: the state equals a clean run's."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.errors import RemovedError
from pipelines.ports import SnapshotStore
from pipelines.records import Check
from tests.contracts.stores import (
    RUN,
    UNREACHED,
    audit,
    content,
    open_store,
    put,
    stage,
    tombstone,
)

#: Children are forked from a process that has imported everything and done nothing: each is as good as a new one.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.faults.test_store_killed"])

_Action = Callable[[SnapshotStore, Path], object]


def _killed_at(point: str, backend: str, folder: Path, action: _Action) -> None:
    """Runs an action in a process of its own that dies at the failpoint; skips what the backend never reaches."""
    if point in UNREACHED.get(backend, set()):
        pytest.skip(f"{backend} has no {point}")
    environment = {**os.environ, "OVERNIGHT_FAILPOINT": point}
    process = _PROCESSES.Process(target=_act, args=(environment, backend, folder, action))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"did not reach {point}"


def _act(environment: dict[str, str], backend: str, folder: Path, action: _Action) -> None:
    os.environ.update(environment)
    action(open_store(backend, folder), folder)


def _sweep(store: SnapshotStore) -> list[str]:
    """What is left over once everything has ended."""
    return store.sweep(datetime.now(UTC) + timedelta(days=1), dry_run=False)


def _publish(store: SnapshotStore, _: Path) -> None:
    put(store, "2013-01-02", 7, 8)


@pytest.mark.parametrize(
    ("point", "visible"),
    {
        "stage.scratched": False,
        "stage.written": False,
        "publish.verified": False,
        "publish.linked": False,
        "publish.committed": True,
    }.items(),
)
def test_a_publish_killed_anywhere_leaves_the_old_or_the_new_state_and_a_rerun_converges(
    backend: str, point: str, visible: bool, tmp_path: Path
) -> None:
    """`visible`: whether readers see the new rows after a death at this point."""
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    before = put(store, "2013-01-02", 5).snapshot
    _killed_at(point, backend, tmp_path, _publish)
    old, new = {"2013-01-01": [1.0], "2013-01-02": [5.0]}, {"2013-01-01": [1.0], "2013-01-02": [7.0, 8.0]}
    assert content(store) == (new if visible else old)
    _publish(store, tmp_path)
    assert content(store) == new
    assert len(store.history("rows")) == 3
    assert store.scan(before).collect().get_column("value").to_list() == [1.0, 5.0]
    assert store.examine() == []
    _sweep(store)
    assert content(store) == new
    assert len(store.held("rows")) == 3
    assert _sweep(store) == []


@pytest.mark.parametrize("point", ["stage.scratched", "stage.written", "publish.linked"])
def test_what_a_dead_run_left_is_swept_when_nobody_runs_it_again(backend: str, point: str, tmp_path: Path) -> None:
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    _killed_at(point, backend, tmp_path, _publish)
    assert _sweep(store) != []
    assert _sweep(store) == []
    assert content(store) == {"2013-01-01": [1.0]}
    _publish(store, tmp_path)
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [7.0, 8.0]}


def _revert(store: SnapshotStore, _: Path) -> None:
    store.revert(store.history("rows")[-1].snapshot, RUN, reason="back")


@pytest.mark.parametrize(("point", "visible"), {"revert.prepared": False, "revert.committed": True}.items())
def test_a_revert_killed_anywhere_leaves_the_old_or_the_new_state_and_a_rerun_converges(
    backend: str, point: str, visible: bool, tmp_path: Path
) -> None:
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    put(store, "2013-01-01", 2)
    put(store, "2013-01-02", 3)
    _killed_at(point, backend, tmp_path, _revert)
    old, new = {"2013-01-01": [2.0], "2013-01-02": [3.0]}, {"2013-01-01": [1.0]}
    assert content(store) == (new if visible else old)
    _revert(store, tmp_path)
    assert content(store) == new
    assert len(store.history("rows")) == 4
    assert store.examine() == []


def _purge(store: SnapshotStore, _: Path) -> None:
    first, second = (store.partitions(commit.snapshot) for commit in store.history("rows")[:0:-1])
    store.purge(tombstone("t1", first["2013-01-01"], second["2013-01-01"], kind="erased"))


@pytest.mark.parametrize("point", ["purge.told", "purge.removed"])
def test_a_purge_killed_anywhere_tells_readers_and_a_rerun_removes_the_rest(
    backend: str, point: str, tmp_path: Path
) -> None:
    store = open_store(backend, tmp_path)
    olds = [put(store, "2013-01-01", value).snapshot for value in (1, 2)]
    put(store, "2013-01-01", 3)
    _killed_at(point, backend, tmp_path, _purge)
    assert [told.id for told in store.tombstones()] == ["t1"]
    for old, values in zip(olds, ([1.0], [2.0]), strict=True):
        try:
            assert store.scan(old).collect().get_column("value").to_list() == values
        except RemovedError as error:
            assert "t1" in str(error)  # noqa: PT017 (either outcome is right; a raw error is not)
    assert content(store) == {"2013-01-01": [3.0]}
    _purge(store, tmp_path)
    for old in olds:
        with pytest.raises(RemovedError, match="t1"):
            store.scan(old)
    assert content(store) == {"2013-01-01": [3.0]}
    assert len(store.tombstones()) == 1
    assert len(store.held("rows")) == 1
    assert store.examine() == []


def _quarantine(store: SnapshotStore, folder: Path) -> None:
    staged = stage(store, "2013-01-02", 7, 8)
    store.quarantine(audit(staged, passed=False), staged, [folder / "rows.csv"])


def test_a_quarantine_killed_halfway_is_not_there_and_a_rerun_makes_it_whole(backend: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("broken")
    _killed_at("quarantine.written", backend, tmp_path, _quarantine)
    store = open_store(backend, tmp_path)
    assert store.quarantined("rows") == []
    _quarantine(store, tmp_path)
    (entry,) = store.quarantined("rows")
    assert store.originals(entry) == {"rows.csv": b"broken"}


def test_a_quarantine_that_nobody_repeats_is_swept_with_its_originals(backend: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("broken")
    _killed_at("quarantine.written", backend, tmp_path, _quarantine)
    store = open_store(backend, tmp_path)
    assert len(_sweep(store)) >= 2
    assert _sweep(store) == []
    _quarantine(store, tmp_path)
    (entry,) = store.quarantined("rows")
    assert store.originals(entry) == {"rows.csv": b"broken"}


def _expunge(store: SnapshotStore, _: Path) -> None:
    (entry,) = store.quarantined("rows")
    check = Check(name="erased", passed=False, observed="erased")
    store.expunge(entry, entry.report.model_copy(update={"checks": (check,)}))


def test_an_expunging_killed_halfway_is_finished_by_a_rerun(backend: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("broken")
    store = open_store(backend, tmp_path)
    _quarantine(store, tmp_path)
    _killed_at("expunge.told", backend, tmp_path, _expunge)
    _expunge(store, tmp_path)
    (entry,) = store.quarantined("rows")
    assert [check.name for check in entry.report.checks] == ["erased"]
    assert store.originals(entry) == {}

"""A server that refuses, hangs, dies, or does the work and loses the reply, at each step of a publish."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.errors import TransientError
from pipelines.ports import SnapshotStore
from pipelines.records import StagedPartition
from tests.contracts.stores import RUN, audit, content, open_store, put, stage
from tests.faults.harness import REMOTE, be_impatient, clean, record, spoiled
from tests.faults.proxy import Kind, Request

#: Every request of a publish that changes something: method and path.
STEPS: dict[str, dict[str, tuple[str, str]]] = {
    "delta-s3": {
        "upload": ("PUT", r"/_staging/rows/.*\.parquet"),
        "copy": ("PUT", r"/rows/partition(=|%3D)"),
        "commit": ("PUT", r"/rows/_delta_log/\d+\.json"),
        "clean up": ("DELETE", r"/_staging/"),
    },
}
#: Kind of fault, how many requests it spoils, and whether held requests reach the server before the call is repeated
#: (else after it).
FAULTS: dict[str, tuple[Kind, int | None, bool]] = {
    "503 once": ("refuse", 1, False),
    "no connection": ("cut", None, False),
    "reply lost once": ("drop", 1, False),
    "every reply lost": ("drop", None, False),
    "dead after the work": ("die", 1, False),
    "done after the call was repeated": ("late", 1, False),
    "done before the call is repeated": ("late", None, True),
}
_CASES = [
    pytest.param(backend, step, fault, id=f"{backend}-{step}-{fault}")
    for backend in REMOTE
    for step in STEPS[backend]
    for fault in FAULTS
]
_BEFORE = {"2013-01-01": [1.0], "2013-01-02": [5.0]}
_AFTER = {"2013-01-01": [1.0], "2013-01-02": [7.0, 8.0]}
_PUTS = (("2013-01-01", (1.0,)), ("2013-01-02", (5.0,)), ("2013-01-02", (7.0, 8.0)))


@dataclass
class Task:
    """A task that stages and publishes, and is run again until it succeeds, each time in a new process' store."""

    backend: str
    root: Path
    staged: StagedPartition | None = None

    def run(self) -> None:
        store = open_store(self.backend, self.root)
        if self.staged is None:
            self.staged = stage(store, "2013-01-02", 7, 8)
        store.publish("rows", [self.staged], [audit(self.staged)], RUN)


@pytest.fixture
def direct(backend: str, tmp_path: Path) -> SnapshotStore:
    """A store that goes past the proxy: what the server really holds."""
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    put(store, "2013-01-02", 5)
    return store


@pytest.mark.parametrize(("backend", "step", "fault"), _CASES, indirect=["backend"])
def test_a_publish_succeeds_or_can_be_repeated_whatever_the_server_does(
    backend: str, step: str, fault: str, direct: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, times, before_repeat = FAULTS[fault]
    be_impatient(monkeypatch, backend)
    task = Task(backend, tmp_path)
    with spoiled(backend, monkeypatch) as proxy:
        proxy.spoil(*STEPS[backend][step], kind, times=times)
        try:
            task.run()
        except TransientError:
            assert content(direct) in (_BEFORE, _AFTER)
        seen = proxy.requests()
        assert any(request.fate == kind for request in seen), f"no such request in {seen}"
        proxy.heal()
        if before_repeat:
            proxy.release()
            assert content(direct) in (_BEFORE, _AFTER)
        task.run()
        assert content(direct) == _AFTER
        proxy.release()
    assert record(direct) == clean(tmp_path, *_PUTS)
    put(direct, "2013-01-02", 9)
    assert record(direct) == clean(tmp_path / "and", *_PUTS, ("2013-01-02", (9.0,)))


@pytest.mark.parametrize("backend", REMOTE, indirect=True)
def test_the_steps_are_all_that_a_publish_changes(
    backend: str, direct: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a fault at a step that nobody thought of goes untested."""
    with spoiled(backend, monkeypatch) as proxy:
        Task(backend, tmp_path).run()
        changes = [request for request in proxy.requests() if request.method not in ("GET", "HEAD")]
    assert {_step(backend, request) for request in changes} == set(STEPS[backend])


def _step(backend: str, request: Request) -> str | Request:
    for step, (method, path) in STEPS[backend].items():
        if re.fullmatch(method, request.method) and re.search(path, request.path):
            return step
    return request

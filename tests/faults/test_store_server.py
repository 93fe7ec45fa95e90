"""A server that refuses, hangs, dies, or does the work and loses the reply, at each step of a publish."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.errors import TransientError
from pipelines.ports import SnapshotStore
from pipelines.records import Publication, StagedPartition
from tests.contracts.stores import RUN, audit, content, open_store, put, stage
from tests.faults.harness import endpoint, impatient, lakefs_on, record
from tests.faults.proxy import Kind, Proxy, Request, proxying

#: Every request of a publish that changes something: method and path.
STEPS: dict[str, dict[str, tuple[str, str]]] = {
    "delta-s3": {
        "upload": ("PUT", r"/_staging/rows/.*\.parquet"),
        "copy": ("PUT", r"/rows/partition(=|%3D)"),
        "commit": ("PUT", r"/rows/_delta_log/\d+\.json"),
        "clean up": ("DELETE", r"/_staging/"),
    },
    "lakefs": {
        "branch": ("POST", r"/branches$"),
        "upload": ("POST", r"/branches/run-[^/]*/objects\?"),
        "commit": ("POST", r"/branches/run-[^/]*/commits"),
        "merge": ("POST", r"/refs/[^/]*/merge/main"),
        "clean up": ("DELETE", r"/branches/run-"),
    },
    # Here the proxy stands between lakeFS and its S3.
    "lakefs-s3": {"blocks": ("PUT", r"/data/"), "ranges": ("PUT", r"/_lakefs/[0-9a-f]{64}")},
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
#: Each of them, where rows become visible; elsewhere one of each kind.
_DECISIVE = {("delta-s3", "commit"), ("lakefs", "merge")}
_SOME = ("503 once", "every reply lost", "dead after the work", "done before the call is repeated")
#: lakeFS is patient with its S3, so that nothing comes late.
_BELOW = ("503 once", "no connection", "every reply lost", "dead after the work")
_CASES = [pytest.param(backend, step, id=f"{backend}-{step}") for backend in STEPS for step in STEPS[backend]]


@dataclass
class Task:
    """A task that stages and publishes, and is tried again, each time in a new process, until it succeeds."""

    values: tuple[float, ...]
    staged: StagedPartition | None = None

    def run(self, store: SnapshotStore) -> Publication:
        if self.staged is None:
            self.staged = stage(store, "2013-01-02", *self.values)
        return store.publish("rows", [self.staged], [audit(self.staged)], RUN)


@pytest.fixture(scope="module")
def before_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Proxy]]:
    """The proxy before a backend's server; for lakeFS on S3, before a lakeFS server's S3."""
    with ExitStack() as running:
        proxies: dict[str, Proxy] = {}

        def of(backend: str) -> Proxy:
            if backend not in proxies:
                below = backend == "lakefs-s3"
                proxy = running.enter_context(proxying(os.environ["AWS_ENDPOINT_URL"] if below else endpoint(backend)))
                if below:
                    folder = tmp_path_factory.mktemp("lakefs-proxied")
                    running.enter_context(lakefs_on(folder, proxy.endpoint))
                proxies[backend] = proxy
            return proxies[backend]

        yield of


@pytest.mark.parametrize(("backend", "step"), _CASES, indirect=["backend"])
def test_a_publish_succeeds_or_can_be_repeated_whatever_the_server_does(
    backend: str,
    step: str,
    tmp_path: Path,
    before_server: Callable[[str], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One table suffers every fault, and is compared with one that suffers none."""
    proxy, wanted, direct = (
        before_server(backend),
        open_store("delta", tmp_path / "clean"),
        open_store(backend, tmp_path),
    )
    for store in (wanted, direct):
        put(store, "2013-01-01", 1)
    address = endpoint(backend) if backend == "lakefs-s3" else proxy.endpoint
    some = _BELOW if backend == "lakefs-s3" else _SOME
    for number, fault in enumerate(FAULTS if (backend, step) in _DECISIVE else some):
        kind, times, before_repeat = FAULTS[fault]
        old = content(direct)
        put(wanted, "2013-01-02", number, number)
        new = content(wanted)
        task = Task((number, number))
        for attempt in range(5):  # on a busy machine the client may give up before it comes to this step
            with monkeypatch.context() as patch:
                proxy.spoil(*STEPS[backend][step], kind, times=times)
                try:
                    done = task.run(impatient(backend, tmp_path, address, patch))
                    assert done.snapshot == direct.head("rows"), fault
                    if attempt == 0:  # the commit is this call's, also when it had to be looked up
                        assert [part.partition for part in done.published] == ["2013-01-02"], fault
                except TransientError:
                    pass
            proxy.heal()
            assert content(direct) in (old, new), fault
            if any(request.fate == kind for request in proxy.requests()):
                break
        else:
            raise AssertionError(f"{fault}: no such request was made")
        if before_repeat:
            proxy.release()
            assert content(direct) in (old, new), fault
        task.run(open_store(backend, tmp_path))
        assert content(direct) == new, fault
        proxy.release()
        assert record(direct) == record(wanted), fault


@pytest.mark.parametrize("backend", ["delta-s3", "lakefs"], indirect=True)
def test_the_steps_are_all_that_a_publish_changes(
    backend: str, tmp_path: Path, before_server: Callable[[str], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a fault at a step that nobody thought of goes untested."""
    proxy = before_server(backend)
    put(open_store(backend, tmp_path), "2013-01-01", 1)
    proxy.requests()
    Task((2.0,)).run(impatient(backend, tmp_path, proxy.endpoint, monkeypatch))
    changes = [request for request in proxy.requests() if request.method not in ("GET", "HEAD")]
    assert {_step(backend, request) for request in changes} == set(STEPS[backend])


def _step(backend: str, request: Request) -> str | Request:
    for step, (method, path) in STEPS[backend].items():
        if re.fullmatch(method, request.method) and re.search(path, request.path):
            return step
    return request

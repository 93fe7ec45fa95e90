"""What the fault tests share: states to compare, failpoints as gates, servers behind a proxy, short patience."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.failpoints import failpoint
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import SnapshotRef, StagedPartition
from tests.contracts.stores import BACKENDS, RUN, audit, content, frame, open_store
from tests.faults.proxy import Proxy, proxying

#: The environment variable that names each backend's server.
ENDPOINTS = {
    "delta-s3": "AWS_ENDPOINT_URL",
    "lakefs": "OVERNIGHT_LAKEFS_ENDPOINT",
    "lakefs-s3": "OVERNIGHT_LAKEFS_ENDPOINT",
}
#: Backends that talk to a server.
REMOTE = tuple(backend for backend in BACKENDS if backend in ENDPOINTS)


def record(store: SnapshotStore, table: str = "rows") -> dict[str, Any]:
    """Everything about a table that does not depend on the clock or the backend: two equal records, two equal states."""
    head = store.head(table)
    return {
        "rows": content(store, table),
        "partitions": {} if head is None else store.partitions(head),
        "history": [commit.model_dump(exclude={"snapshot", "at"}) for commit in store.history(table)],
    }


def clean(tmp_path: Path, *puts: tuple[str, tuple[float, ...]]) -> dict[str, Any]:
    """The record of a run without faults: the same on every backend, so made on the quickest."""
    store = open_store("delta", tmp_path / "clean")
    for partition, values in puts:
        publish(store, {partition: values})
    return record(store)


def publish(
    store: SnapshotStore, parts: dict[str, tuple[float, ...]], table: str = "rows", **provenance: object
) -> SnapshotRef:
    """Stages, audits and publishes partitions in one commit."""
    staged = stage_all(store, parts, table)
    reports = [audit(part) for part in staged]
    return store.publish(table, staged, reports, RUN, provenance=provenance).snapshot


def stage_all(
    store: SnapshotStore, parts: dict[str, tuple[float, ...]], table: str = "rows"
) -> tuple[StagedPartition, ...]:
    """Stages partitions together."""
    return store.stage(table, [Draft(partition=key, frame=frame(*values)) for key, values in parts.items()], RUN)


def on_failpoints(patch: pytest.MonkeyPatch, hook: Callable[[str], None]) -> None:
    """Calls `hook` with each failpoint's name as this process passes it, on the thread that passes."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pipelines.") and getattr(module, "failpoint", None) is failpoint:
            patch.setattr(module, "failpoint", hook)


def be_impatient(patch: pytest.MonkeyPatch, backend: str) -> None:
    """Makes clients give up after a second or two, so that a test can wait for it."""
    if backend.endswith("-s3") and backend.startswith("delta"):
        import pipelines.backends.delta_s3 as s3

        patch.setattr(s3, "_ATTEMPTS", 2)
        patch.setattr(s3, "_READ_SECONDS", 1)
        patch.setattr(s3, "_CONNECT_SECONDS", 1)


@contextmanager
def spoiled(backend: str, patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the backend's server. Stores that are opened, and first used, from now on talk through it."""
    name = ENDPOINTS[backend]
    with proxying(os.environ[name]) as proxy:
        patch.setenv(name, proxy.endpoint)
        yield proxy

"""What the fault tests share: states to compare, failpoints as gates, short patience with a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.backends.lakefs import LakeFSStore
from pipelines.failpoints import failpoint
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import SnapshotRef, StagedPartition
from tests.contracts.stores import RUN, audit, content, frame, lakefs_store, open_store, repository
from tests.servers.lakefs import _serving, _told, server_of
from tests.servers.seaweed import BUCKET


def record(store: SnapshotStore, table: str = "rows") -> dict[str, Any]:
    """Everything about a table that depends on neither the clock nor the backend: equal records, equal states."""
    head = store.head(table)
    return {
        "rows": content(store, table),
        "partitions": {} if head is None else store.partitions(head),
        "history": [commit.model_dump(exclude={"snapshot", "at"}) for commit in store.history(table)],
    }


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


def impatient(backend: str, root: Path, endpoint: str, patch: pytest.MonkeyPatch) -> SnapshotStore:
    """A store that talks to its server at another address, and gives up within a second or so.

    To be used while the patch lasts.
    """
    if backend.startswith("lakefs"):
        return lakefs_store(backend, root, endpoint=endpoint, timeout=0.4, deadline=0.8)
    import pipelines.backends.delta_s3 as s3

    patch.setattr(s3, "_ATTEMPTS", 2)
    patch.setattr(s3, "_READ_SECONDS", 0.4)
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    return open_store(backend, root)


@contextmanager
def lakefs_on(folder: Path, s3: str) -> Iterator[None]:
    """A lakeFS server of the test's own, whose S3 is at this address, in the place of the session's."""
    environment = {
        "LAKEFS_BLOCKSTORE_TYPE": "s3",
        "LAKEFS_BLOCKSTORE_S3_ENDPOINT": s3,
        "LAKEFS_BLOCKSTORE_S3_FORCE_PATH_STYLE": "true",
        "LAKEFS_BLOCKSTORE_S3_DISCOVER_BUCKET_REGION": "false",
        "LAKEFS_BLOCKSTORE_S3_REGION": os.environ["AWS_REGION"],
        "LAKEFS_BLOCKSTORE_S3_CREDENTIALS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "LAKEFS_BLOCKSTORE_S3_CREDENTIALS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    with _serving(folder, environment, f"s3://{BUCKET}/{folder.name}", None) as server, _told("lakefs-s3", server):
        yield


def endpoint(backend: str) -> str:
    """Where the backend's server listens."""
    return server_of(backend).endpoint if backend.startswith("lakefs") else os.environ["AWS_ENDPOINT_URL"]


def tamper(
    store: SnapshotStore, staged: StagedPartition, change: Callable[[bytes], bytes | None], *, deep: bool
) -> None:
    """Changes a staged file behind the store's back; `change` gives its new bytes, or None for a file that is gone.

    Args:
        deep: in lakeFS's block store instead of through its API. The other backends know one way only.
    """
    if isinstance(store, LakeFSStore):
        lake, path = repository(store), f"{staged.table}/partition={staged.partition}/part.parquet"
        found = lake.stat(staged.area, path)
        assert found is not None
        if not deep:
            content = change(lake.read(staged.area, path) or b"")
            if content is None:
                lake.delete(staged.area, [path])
            else:
                lake.upload(staged.area, path, content, found.metadata)
            lake.commit(staged.area, "tampered with")
            return
        uri = f"{lake.namespace}/data/{found.address.rpartition('/data/')[2]}"
        if not uri.startswith("s3://"):
            uri = str(_blocks(store) / uri.removeprefix("local://"))
    else:
        uri = f"{staged.area}/{staged.digest}.parquet"
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        client = boto3.client("s3")
        content = change(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        if content is None:
            client.delete_object(Bucket=bucket, Key=key)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=content)
        return
    file, content = Path(uri), change(Path(uri).read_bytes())
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def _blocks(store: LakeFSStore) -> Path:
    folder = store._blocks._folder
    if folder is None:
        pytest.skip("this lakeFS server's block folder is not on this machine")
    return folder

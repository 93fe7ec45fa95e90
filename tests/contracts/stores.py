"""What the contract tests of `SnapshotStore` share: frames, audits, and the store of each backend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import polars as pl
from pydantic import SecretStr

from pipelines.backends.delta import DeltaStore
from pipelines.backends.lakefs import LakeFSStore
from pipelines.backends.lakefs_client import Repository
from pipelines.backends.lakefs_http import Server
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import (
    Check,
    Publication,
    PublishedPartition,
    RunInfo,
    StagedPartition,
    Tombstone,
    ValidationReport,
)
from tests.cases import REPOSITORY
from tests.servers.lakefs import server_of
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    import pytest

BACKENDS = ("delta", "delta-s3", "lakefs", "lakefs-s3")
#: The session fixture (tests/conftest.py) that starts what a backend needs.
SERVERS: dict[str, str] = {"delta-s3": "seaweed", "lakefs": "lakefs_server", "lakefs-s3": "lakefs_on_s3"}
#: Examples of a Hypothesis test: every request to a server takes its time.
EXAMPLES: dict[str, int] = {"delta": 15, "delta-s3": 4, "lakefs": 4, "lakefs-s3": 2}
#: Failpoints that a backend never passes.
UNREACHED: dict[str, set[str]] = {}
RUN = RunInfo(run_id="test", dag_id="contract", code_version="abc")


def open_store(backend: str, root: Path) -> SnapshotStore:
    """The store of a backend under a folder, prefix or repository of the test's own, which the folder's name gives.

    Subprocesses call this too: what they need to know of servers is in the environment.
    """
    if backend == "delta-s3":
        return DeltaStore(f"s3://{BUCKET}/{_prefix(root)}", "uc", root / "cache")
    if backend.startswith("lakefs"):
        return lakefs_store(backend, root)
    assert backend == "delta"
    return DeltaStore(root / "snapshots", "uc", root / "cache")


def lakefs_store(backend: str, root: Path, **changes: Any) -> LakeFSStore:
    """A store in a repository of the test's own. `changes` are the server's: another endpoint, less patience."""
    server = server_of(backend)
    about = {
        "endpoint": server.endpoint,
        "access_key_id": server.access_key_id,
        "secret_access_key": SecretStr(server.secret_access_key),
        "deadline": 20.0,
    }
    return LakeFSStore(
        Server(**{**about, **changes}),
        "uc",
        storage=server.storage,
        gate=REPOSITORY / "include" / "lakefs",
        cache=root / "cache",
        blocks=Path(server.blocks) if server.blocks is not None else None,
        prefix=f"t{hashlib.sha256(f'{server.session} {root}'.encode()).hexdigest()[:16]}-",
    )


def repository(store: SnapshotStore) -> Repository:
    """The repository of a lakeFS store, for what is done behind its back."""
    assert isinstance(store, LakeFSStore)
    return store._repository


def spoil(store: SnapshotStore, staged: StagedPartition) -> None:
    """Flips a bit in the middle of a staged file, behind the store's back."""
    if isinstance(store, LakeFSStore):
        lake, path = repository(store), f"{staged.table}/partition={staged.partition}/part.parquet"
        found = lake.stat(staged.area, path)
        assert found is not None
        lake.upload(staged.area, path, _flipped(lake.read(staged.area, path) or b""), found.metadata)
        lake.commit(staged.area, "spoiled")
        return
    uri = f"{staged.area}/{staged.digest}.parquet"
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        client = boto3.client("s3")
        client.put_object(
            Bucket=bucket, Key=key, Body=_flipped(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        )
        return
    Path(uri).write_bytes(_flipped(Path(uri).read_bytes()))


def interpose(patch: pytest.MonkeyPatch, point: str, action: Callable[[], object]) -> None:
    """Does something once, when the store of this process reaches a failpoint, and goes on."""

    def act() -> None:
        patch.delenv("OVERNIGHT_FAILPOINT")
        action()

    patch.setenv("OVERNIGHT_FAILPOINT", point)
    patch.setattr("pipelines.failpoints._die", act)


def _prefix(root: Path) -> str:
    """A folder of the bucket that no other test of the session uses."""
    return "-".join(root.parts[-2:])


def _flipped(raw: bytes) -> bytes:
    spoiled = bytearray(raw)
    spoiled[len(spoiled) // 2] ^= 1
    return bytes(spoiled)


def frame(*values: float) -> pl.DataFrame:
    """A small partition: one row a value."""
    columns = {"key": [f"k{index}" for index in range(len(values))], "value": [float(value) for value in values]}
    return pl.DataFrame(columns, schema={"key": pl.String, "value": pl.Float64})


def audit(staged: StagedPartition, *, passed: bool = True, observed: str = "it") -> ValidationReport:
    """A report of exactly these bytes."""
    return ValidationReport(
        use_case=staged.use_case,
        table=staged.table,
        partition=staged.partition,
        digest=staged.digest,
        suite="suite",
        suite_digest="0" * 64,
        rows=staged.rows,
        passed=passed,
        checks=(Check(name="looked_at", passed=passed, observed=observed),),
    )


def tombstone(name: str, *parts: PublishedPartition, kind: str = "collected") -> Tombstone:
    """A tombstone of parts of `rows`."""
    return Tombstone.model_validate(
        {
            "id": name,
            "kind": kind,
            "table": "rows",
            "parts": parts,
            "reason": "nobody needs it",
            "run": RUN,
            "at": datetime(2026, 1, 2, 3, tzinfo=UTC),
        }
    )


def stage(store: SnapshotStore, partition: str, *values: float, table: str = "rows") -> StagedPartition:
    """Stages one partition of `frame(*values)`."""
    (staged,) = store.stage(table, [Draft(partition=partition, frame=frame(*values))], RUN)
    return staged


def put(store: SnapshotStore, partition: str, *values: float, table: str = "rows") -> Publication:
    """Stages, audits and publishes one partition."""
    staged = stage(store, partition, *values, table=table)
    return store.publish(table, [staged], [audit(staged)], RUN)


def content(store: SnapshotStore, table: str = "rows") -> dict[str, list[float]]:
    """What a reader sees: values by partition."""
    head = store.head(table)
    if head is None:
        return {}
    rows = store.scan(head).collect()
    return {key: part.get_column("value").to_list() for (key,), part in _by_partition(rows)}


def _by_partition(rows: pl.DataFrame) -> Sequence[tuple[tuple[str], pl.DataFrame]]:
    return sorted(rows.partition_by("partition", as_dict=True).items())  # type: ignore[arg-type]

"""kill -9 at every failpoint of a delivery, then the same again: one complete set of rows, and one entry in the log."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from pipelines.backends.sink_files import Manifest
from pipelines.backends.sink_webhook import WebhookSink
from pipelines.ports import Sink
from pipelines.records import Delivered
from pipelines.steps.deliveries import deliveries
from pipelines.steps.delivery import deliver, published
from tests.cases.handed import DAY, RUN, consignment, delivery_of, file_sink, postgres_sink, publish, rows, spec_with
from tests.contracts.stores import open_store
from tests.servers.receiver import receiving
from tests.servers.seaweed import BUCKET

#: Children are forked from a process that has imported everything and done nothing: each is as good as a new one.
_PROCESSES = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "botocore.client",
    "botocore.config",
    "boto3",
    "deltalake.transaction",
    "httpx",
    "psycopg",
    "pyarrow.parquet",
]
_PROCESSES.set_forkserver_preload(["tests.faults.test_delivery_killed", *_PRELOADED])


def old() -> pl.DataFrame:
    """Made when asked for: a process that forks others may import Polars, and do nothing with it."""
    return rows(0.1, 0.7)


def new() -> pl.DataFrame:
    return rows(0.9)


@dataclass(frozen=True)
class Where:
    """A place that a child can open too."""

    sink: str
    address: str
    schema: str = ""

    def open(self, folder: Path) -> Sink:
        if self.sink == "postgres":
            return postgres_sink(self.address, self.schema)
        if self.sink == "webhook":
            return WebhookSink(delivery_of(sink="webhook"), SecretStr(self.address))
        return file_sink(self.address, folder / "cache")


def _deliver(where: Where, folder: Path) -> Delivered:
    store = open_store("delta", folder)
    (done,) = deliver(
        spec_with({"name": "crm", "sink": where.sink, **({"table": "scores"} if where.sink == "postgres" else {})}),
        store,
        {"crm": where.open(folder)},
        published(store, [DAY]),
        RUN,
    )
    return done


def _breaks_off(where: Where, folder: Path) -> None:
    """Dies in the middle of the rows."""
    frame = rows(*[0.5] * 1000)

    def some() -> Iterator[pl.DataFrame]:
        yield frame.head(500)
        os.kill(os.getpid(), signal.SIGKILL)

    where.open(folder).deliver(replace(consignment(frame, "x"), rows=some))


def _killed(act: Callable[..., object], where: Where, folder: Path, point: str = "") -> None:
    environment = {**os.environ, "OVERNIGHT_FAILPOINT": point}
    process = _PROCESSES.Process(target=_act, args=(environment, act, where, folder))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"did not reach {point}"


def _act(environment: dict[str, str], act: Callable[..., object], where: Where, folder: Path) -> None:
    os.environ.update(environment)
    act(where, folder)


def _log(folder: Path) -> list[int]:
    return [entry.number for entry in deliveries(open_store("delta", folder))]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    if request.param == "s3":
        request.getfixturevalue("seaweed")
        return Where("files", f"s3://{BUCKET}/killed-{secrets.token_hex(6)}")
    (tmp_path / "there").mkdir()
    return Where("files", str(tmp_path / "there"))


def _lying(where: Where) -> dict[str, bytes]:
    """Everything that lies in the partition's folder, but for the lock."""
    if where.address.startswith("s3://"):
        client, prefix = boto3.client("s3"), f"{where.address.removeprefix(f's3://{BUCKET}/')}/uc/partition={DAY}/"
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        names = [each["Key"] for each in found]
        return {name.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}
    folder = Path(where.address) / "uc" / f"partition={DAY}"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".overnight.lock"}


def _read(where: Where) -> pl.DataFrame | None:
    """The rows for a reader that waits for `_SUCCESS` and follows the manifest."""
    lying = _lying(where)
    if "_SUCCESS" not in lying:
        return None
    manifest = Manifest.model_validate_json(lying["manifest.json"])
    return pl.concat(pl.read_parquet(lying[file.name]) for file in manifest.files)


@pytest.mark.parametrize(
    ("point", "restated"),
    [
        ("deliver.written", True),
        ("deliver.listed", True),
        ("deliver.marked", True),
        ("deliver.handed", False),
        ("deliver.listed", False),
    ],
)
def test_files_after_a_kill_anywhere_are_the_old_or_the_new_and_a_rerun_ends_in_the_new(
    files: Where, point: str, restated: bool, tmp_path: Path
) -> None:
    store = open_store("delta", tmp_path)
    if restated:
        publish(store, {DAY: old()})
        _deliver(files, tmp_path)
    publish(store, {DAY: new()})
    _killed(_deliver, files, tmp_path, point)
    seen = _read(files)
    if point == "deliver.listed" and not restated:
        assert seen is None
    else:
        assert seen is not None
        assert seen.equals(old() if point == "deliver.written" else new())
    done = _deliver(files, tmp_path)
    assert done.state == ("unchanged" if point in ("deliver.marked", "deliver.handed") else "delivered")
    assert _read(files).equals(new())  # type: ignore[union-attr]
    assert len(_lying(files)) == 3
    assert _log(tmp_path) == ([1, 2] if restated else [1])
    assert _deliver(files, tmp_path).state == "unchanged"


def test_a_half_written_file_is_nowhere_after_the_rerun(files: Where, tmp_path: Path) -> None:
    publish(open_store("delta", tmp_path), {DAY: old()})
    _killed(_breaks_off, files, tmp_path)
    assert "_SUCCESS" not in _lying(files)
    _deliver(files, tmp_path)
    assert _read(files).equals(old())  # type: ignore[union-attr]
    assert len(_lying(files)) == 3


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(warehouse: str) -> Where:
    schema = f"k{secrets.token_hex(6)}"
    with psycopg.connect(warehouse, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    return Where("postgres", warehouse, schema)


def _scores(where: Where) -> list[Any] | None:
    with psycopg.connect(where.address, autocommit=True) as connection:
        name = sql.Identifier(where.schema, "scores")
        try:
            found = connection.execute(sql.SQL('SELECT score FROM {} ORDER BY "order"').format(name))
        except psycopg.errors.UndefinedTable:
            return None
        return [pytest.approx(score) for (score,) in found]


def _told(where: Where) -> list[Any]:
    with psycopg.connect(where.address, autocommit=True) as connection:
        name = sql.Identifier(where.schema, "overnight_deliveries")
        return connection.execute(sql.SQL("SELECT partition, rows FROM {}").format(name)).fetchall()


@pytest.mark.parametrize(
    ("point", "there"), {"deliver.copied": False, "deliver.committed": True, "deliver.handed": True}.items()
)
@pytest.mark.parametrize("restated", [False, True])
def test_rows_after_a_kill_anywhere_are_the_old_or_the_new_and_a_rerun_ends_in_the_new(
    table: Where, point: str, there: bool, restated: bool, tmp_path: Path
) -> None:
    """`there`: whether the new rows are, after a death at this point."""
    store = open_store("delta", tmp_path)
    if restated:
        publish(store, {DAY: old()})
        _deliver(table, tmp_path)
    publish(store, {DAY: new()})
    _killed(_deliver, table, tmp_path, point)
    assert _scores(table) == ([0.9] if there else [0.1, 0.7] if restated else None)
    assert _deliver(table, tmp_path).state == ("unchanged" if there else "delivered")
    assert _scores(table) == [0.9]
    assert _told(table) == [(DAY, 1)]
    assert _log(tmp_path) == ([1, 2] if restated else [1])


def test_rows_that_break_off_with_their_process_are_not_there(table: Where, tmp_path: Path) -> None:
    publish(open_store("delta", tmp_path), {DAY: old()})
    _killed(_breaks_off, table, tmp_path)
    assert _scores(table) is None
    _deliver(table, tmp_path)
    assert _scores(table) == [0.1, 0.7]


# -- webhook -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["deliver.answered", "deliver.handed"])
@pytest.mark.parametrize(("repeat", "state"), {200: "delivered", 409: "unchanged"}.items())
def test_a_receiver_that_honours_keys_acts_once_whatever_died_after_its_answer(
    point: str, repeat: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publish(open_store("delta", tmp_path), {DAY: old()})
    with receiving() as receiver:
        receiver.repeat = repeat
        where = Where("webhook", receiver.address)
        _killed(_deliver, where, tmp_path, point)
        assert _log(tmp_path) == []
        assert _deliver(where, tmp_path).state == state
        assert _deliver(where, tmp_path).state == "unchanged"
        assert (receiver.acted, len(receiver.requests), len({body for _, body in receiver.requests})) == (1, 2, 1)
        assert _log(tmp_path) == [1]
        publish(open_store("delta", tmp_path), {DAY: new()})
        assert _deliver(where, tmp_path).state == "delivered"
        assert receiver.acted == 2

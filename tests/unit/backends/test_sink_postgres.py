"""Rows in a real PostgreSQL server."""

from __future__ import annotations

import logging
import secrets
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from pipelines.backends.sink_postgres import PostgresSink
from pipelines.errors import OvernightError, SchemaMismatch, ServiceRefused, SpecError, UnavailableError
from pipelines.ports import Consignment
from tests.cases.handed import CANARY, DAY, NEXT, consignment, deliver_by, delivery_of, postgres_sink, rows
from tests.contracts.stores import interpose


class Database:
    """A schema of the test's own, as the business's people see it."""

    def __init__(self, address: str) -> None:
        self.address, self.schema = address, f"s{secrets.token_hex(6)}"
        self.ask("CREATE SCHEMA {schema}")

    def ask(self, text: Any, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.address, autocommit=True) as connection:
            query = sql.SQL(text).format(schema=sql.Identifier(self.schema))
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def sink(self, **said: Any) -> PostgresSink:
        return postgres_sink(self.address, self.schema, **said)

    def scores(self, partition: str = DAY) -> list[tuple[str, float]]:
        found = self.ask('SELECT "order", score FROM {schema}.scores WHERE partition = %s ORDER BY 1', partition)
        return [(name, score) for name, score in found]

    def ledger(self) -> list[tuple[Any, ...]]:
        return self.ask("SELECT delivery, partition, key, rows FROM {schema}.overnight_deliveries ORDER BY 1, 2")


@pytest.fixture
def database(warehouse: str) -> Database:
    return Database(warehouse)


def _held(frame: pl.DataFrame) -> list[tuple[str, float]]:
    return [(name, pytest.approx(score)) for name, score in frame.select("order", "score").sort("order").rows()]


def test_a_table_is_made_of_the_predictions_columns_and_says_what_was_delivered(database: Database) -> None:
    frame = rows(0.1, 0.7, 0.3)
    done = database.sink().deliver(consignment(frame, "a"))
    assert database.scores() == _held(frame)
    assert database.ledger() == [("crm", DAY, "a" * 64, 3)]
    kinds = dict(
        database.ask(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'scores' "
            "AND table_schema = %s",
            database.schema,
        )
    )
    assert kinds == {
        "partition": "text",
        "order": "text",
        "score": "real",
        "prediction": "boolean",
        "model_version": "bigint",
        "scored_at": "timestamp with time zone",
    }
    host = urlsplit(database.address)
    where = f"postgresql://127.0.0.1:{host.port}/postgres {database.schema}.scores"
    assert (done.state, done.rows, done.where) == ("delivered", 3, where)


def test_the_same_key_again_changes_no_row(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1, 0.7), "a")
    before = database.ask("SELECT xmin::text, * FROM {schema}.scores ORDER BY 3")
    told = database.ask("SELECT * FROM {schema}.overnight_deliveries")
    assert deliver_by(database.sink(), rows(0.1, 0.7), "a") == "unchanged"
    assert database.ask("SELECT xmin::text, * FROM {schema}.scores ORDER BY 3") == before
    assert database.ask("SELECT * FROM {schema}.overnight_deliveries") == told


def test_a_restated_partition_takes_the_place_of_the_former_and_no_other(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1, 0.7), "a")
    deliver_by(database.sink(), rows(0.2), "n", partition=NEXT)
    assert deliver_by(database.sink(), rows(0.9), "b") == "delivered"
    assert database.scores() == _held(rows(0.9))
    assert database.scores(NEXT) == _held(rows(0.2))
    assert deliver_by(database.sink(), rows(0.1, 0.7), "a") == "delivered"
    assert database.scores() == _held(rows(0.1, 0.7))
    assert database.ledger() == [("crm", DAY, "a" * 64, 2), ("crm", NEXT, "n" * 64, 1)]


def test_until_the_commit_readers_have_the_former_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver_by(database.sink(), rows(0.1, 0.7), "a")
    seen: list[Any] = []
    interpose(monkeypatch, "deliver.copied", lambda: seen.append(database.scores()))
    deliver_by(database.sink(), rows(0.9), "b")
    assert seen == [_held(rows(0.1, 0.7))]


def test_rows_that_break_off_leave_the_former(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1, 0.7), "a")
    broken = consignment(rows(0.9, 0.8, 0.7), "b")

    def lost() -> Iterator[pl.DataFrame]:
        yield rows(0.9)
        raise UnavailableError("the store went away")

    with pytest.raises(UnavailableError, match="the store went away"):
        database.sink().deliver(_with_rows(broken, lost))
    assert database.scores() == _held(rows(0.1, 0.7))
    assert database.ledger() == [("crm", DAY, "a" * 64, 2)]


def _with_rows(sent: Consignment, made: Any) -> Consignment:
    from dataclasses import replace

    return replace(sent, rows=made)


@pytest.mark.parametrize(("one", "other"), [("a", "a"), ("a", "b")])
def test_two_at_once_leave_one_set_of_rows(database: Database, one: str, other: str) -> None:
    """Both make the tables, too."""
    frames = {"a": rows(0.1, 0.7, 0.2), "b": rows(0.9)}
    ready, states, failed = threading.Barrier(2), [], []

    def act(key: str) -> None:
        ready.wait()
        try:
            states.append(deliver_by(database.sink(), frames[key], key))
        except OvernightError as error:
            failed.append(error)

    threads = [threading.Thread(target=act, args=(key,)) for key in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    ((_, _, key, count),) = database.ledger()
    assert database.scores() == _held(frames[key[0]])
    assert count == frames[key[0]].height
    assert sorted(states) == (["delivered", "unchanged"] if one == other else ["delivered", "delivered"])


def test_partitions_that_make_and_widen_a_table_at_once_are_all_there(database: Database) -> None:
    days = [f"2024-03-{day:02d}" for day in range(1, 9)]
    ready, failed = threading.Barrier(len(days)), []

    def act(index: int, day: str) -> None:
        frame = rows(0.1, 0.7) if index % 2 else rows(0.1, 0.7).with_columns(low=pl.lit(0.5))
        ready.wait()
        try:
            deliver_by(database.sink(), frame, str(index), partition=day)
        except OvernightError as error:
            failed.append(error)

    threads = [threading.Thread(target=act, args=each) for each in enumerate(days)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = database.ask("SELECT partition, count(*), count(low) FROM {schema}.scores GROUP BY 1 ORDER BY 1")
    assert found == [(day, 2, 0 if index % 2 else 2) for index, day in enumerate(days)]


def test_every_type_and_value_arrives_as_it_was(database: Database) -> None:
    at = datetime(2024, 3, 2, 4, 30, 0, 5, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            'per cent %s "quoted"': ["a,b", 'say "x"', "two\r\nlines", "", None, "\\.", "\\N", "=1+1"],
            "double": [0.1, 1 / 3, -1e22, 5e-324, float("nan"), float("inf"), float("-inf"), None],
            "single": pl.Series([0.1, 1 / 3, -1e22, 1e-38, 0, 1, 2, None], dtype=pl.Float32),
            "whole": [2**62, -1, 0, None, 1, 2, 3, 4],
            "large": pl.Series([2**64 - 1, 0, None, 1, 2, 3, 4, 5], dtype=pl.UInt64),
            "yes": [True, False, None, True, True, True, True, True],
            "day": [date(2024, 2, 29)] + [None] * 7,
            "at": pl.Series([at] * 7 + [None]).dt.convert_time_zone("America/New_York"),
            "kind": pl.Series(["x"] * 8, dtype=pl.Enum(["x"])),
            "reasons": [[{"column": "amount", "value": 0.5}], []] + [None] * 6,
        }
    )
    database.sink().deliver(consignment(frame, "a"))
    found = database.ask("SELECT * FROM {schema}.scores")
    columns = [list(column) for column in zip(*found, strict=True)][1:]
    want = [frame.get_column(name).to_list() for name in frame.columns]
    assert [columns[0], columns[3], columns[5], columns[6], columns[8]] == [want[0], want[3], want[5], want[6], want[8]]
    assert [None if value is None else int(value) for value in columns[4]] == want[4]
    assert pl.Series(columns[1]).equals(frame["double"], null_equal=True)
    assert pl.Series(columns[2], dtype=pl.Float32).equals(frame["single"], null_equal=True)
    assert [None if value is None else value.astimezone(UTC) for value in columns[7]] == [at] * 7 + [None]
    assert columns[9][:2] == [[{"column": "amount", "value": 0.5}], []]


def test_new_columns_are_added_and_are_null_in_former_partitions(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1), "a")
    wide = rows(0.2).with_columns(low=pl.lit(0.1, pl.Float64), **{'50% "x"': pl.lit("so", pl.String)})
    deliver_by(database.sink(), wide, "b", partition=NEXT)
    deliver_by(database.sink(), rows(0.3), "c", partition="2024-03-03")
    found = database.ask('SELECT partition, low, "50% ""x""" FROM {schema}.scores ORDER BY 1')
    assert found == [(DAY, None, None), (NEXT, 0.1, "so"), ("2024-03-03", None, None)]


def test_a_column_of_another_type_is_a_terminal_error_that_names_it(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1), "a")
    with pytest.raises(SchemaMismatch, match=r"score is real, the predictions' is text"):
        deliver_by(database.sink(), rows(0.2).cast({"score": pl.String}), "b", partition=NEXT)
    assert database.scores() == _held(rows(0.1))


def test_a_column_that_the_database_cannot_have_is_refused(database: Database) -> None:
    with pytest.raises(SchemaMismatch, match="too long"):
        deliver_by(database.sink(), rows(0.1).with_columns(pl.lit(1).alias("é" * 32)), "a")
    with pytest.raises(SchemaMismatch, match="'took' is Duration"):
        deliver_by(database.sink(), rows(0.1).with_columns(took=pl.duration(hours=1)), "a")


def test_somebody_elses_table_is_left_alone(database: Database) -> None:
    database.ask("CREATE TABLE {schema}.scores (id int)")
    with pytest.raises(SchemaMismatch, match="none of a delivery"):
        deliver_by(database.sink(), rows(0.1), "a")
    database.ask("DROP TABLE {schema}.scores")
    deliver_by(database.sink(), rows(0.1), "a")
    with pytest.raises(ServiceRefused, match="the table is that of uc: crm"):
        deliver_by(database.sink(), rows(0.2), "b", delivery="other")
    assert database.scores() == _held(rows(0.1))


def test_a_table_that_was_dropped_is_delivered_again(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1), "a")
    database.ask("DROP TABLE {schema}.scores")
    assert deliver_by(database.sink(), rows(0.1), "a") == "delivered"
    assert database.scores() == _held(rows(0.1))


def test_an_empty_partition_is_delivered_as_no_rows(database: Database) -> None:
    deliver_by(database.sink(), rows(0.1), "a")
    assert deliver_by(database.sink(), rows(), "b") == "delivered"
    assert (database.scores(), database.ledger()) == ([], [("crm", DAY, "b" * 64, 0)])


# -- secrets -----------------------------------------------------------------------------------------------------------


@contextmanager
def _silent(caplog: pytest.LogCaptureFixture, *words: str) -> Iterator[list[OvernightError]]:
    """Catches an error that holds none of the words, anywhere, nor any log line."""
    caught: list[OvernightError] = []
    caplog.set_level(logging.DEBUG)
    try:
        yield caught
    except OvernightError as error:
        caught.append(error)
        told = "".join(traceback.format_exception(error)) + repr(error) + caplog.text
        assert [word for word in words if word in told] == []


def test_a_refused_login_tells_no_password(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    port = urlsplit(database.address).port
    sink = postgres_sink(f"postgresql://airflow:{CANARY}@127.0.0.1:{port}/postgres", database.schema)
    with _silent(caplog, CANARY) as caught:
        deliver_by(sink, rows(0.1), "a")
    assert isinstance(caught[0], ServiceRefused)
    assert CANARY not in sink.where + repr(sink) + repr(vars(sink))


def test_a_server_that_is_away_is_unavailable_and_tells_no_password(caplog: pytest.LogCaptureFixture) -> None:
    sink = postgres_sink(f"postgresql://u:{CANARY}@127.0.0.1:9/d?sslpassword={CANARY}&connect_timeout=2", "public")
    with _silent(caplog, CANARY) as caught:
        deliver_by(sink, rows(0.1), "a")
    assert isinstance(caught[0], UnavailableError)
    assert sink.where == "postgresql://127.0.0.1:9/d public.scores"


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://u:{CANARY}/x@host:{CANARY}/d",
        f"postgresql://u:w@host/d?{CANARY}=1",
        f"host=localhost password={CANARY}",
        f"mysql://u:{CANARY}@host/d",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_being_told(address: str) -> None:
    with pytest.raises(SpecError, match="'there' is no address of a PostgreSQL database") as caught:
        PostgresSink(delivery_of(sink="postgres", table="scores"), SecretStr(address))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_values_that_the_database_refuses_are_not_told(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with _silent(caplog, CANARY) as caught:
        deliver_by(database.sink(), rows(0.1).with_columns(order=pl.lit(f"{CANARY}\0")), "a")
    assert isinstance(caught[0], ServiceRefused)
    assert "SQLSTATE 22021" in str(caught[0])
    deliver_by(database.sink(), rows(0.1), "a")
    database.ask("ALTER TABLE {schema}.scores ADD CONSTRAINT small CHECK (score < 0.5)")
    with _silent(caplog, CANARY) as caught:
        deliver_by(database.sink(), rows(0.9).with_columns(order=pl.lit(CANARY)), "b")
    assert "SQLSTATE 23514" in str(caught[0])
    assert database.scores() == _held(rows(0.1))


def test_a_schema_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(ServiceRefused, match="InvalidSchemaName"):
        deliver_by(postgres_sink(database.address, "nowhere"), rows(0.1), "a")


def test_a_large_partition_is_never_in_memory_as_a_whole(database: Database) -> None:
    alive: list[weakref.ref[pl.DataFrame]] = []
    most = 0

    def made() -> Iterator[pl.DataFrame]:
        nonlocal most
        for _ in range(30):
            frame = rows(*[0.5] * 1000)
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            most = max(most, sum(each() is not None for each in alive))

    sent = _with_rows(consignment(rows(*[0.5] * 1000), "a"), made)
    assert database.sink().deliver(sent).rows == 30_000
    assert len(alive) == 30
    assert most <= 2

"""The book of alerts: an incident is told once, whoever tells it, and whatever happened to a writer before."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.alerts import AlertBook
from pipelines.records import Alert

_DUE = datetime(2013, 9, 2, 3, tzinfo=UTC)
_NOW = datetime(2013, 9, 2, 3, 0, 5, tzinfo=UTC)


def _late(partition: str = "2013-09-01", since: datetime = _DUE, run: str = "flights_ingest/night") -> Alert:
    return Alert(
        kind="late",
        state="open",
        use_case="flights",
        partition=partition,
        since=since,
        at=_NOW,
        missing="its rows are not published",
        remedy="have the file sent",
        run=run,
    )


@pytest.fixture
def book(tmp_path: Path) -> AlertBook:
    return AlertBook(tmp_path / "alerts" / "flights.jsonl")


def test_an_incident_is_told_once_by_whatever_run(book: AlertBook) -> None:
    assert book.tell(_late())
    assert not book.tell(_late(run="flights_score/night"))
    assert book.tell(_late("2013-09-02"))
    assert book.tell(_late(since=_DUE.replace(hour=4))), "another deadline is another incident"
    assert [alert.partition for alert in book.open()] == ["2013-09-01", "2013-09-02", "2013-09-01"]


def test_what_is_over_stays_over_and_is_not_told_again(book: AlertBook) -> None:
    book.tell(_late())
    book.tell(_late("2013-09-02"))
    (over,) = book.resolve({"2013-09-01", "2013-09-09"}, at=_NOW, run="flights_score/rerun", how="published")
    assert (over.state, over.run, over.since, over.remedy) == ("resolved", "flights_score/rerun", _DUE, "")
    assert book.resolve({"2013-09-01"}, at=_NOW, run="flights_score/again", how="published") == ()
    assert not book.tell(_late())
    assert [alert.partition for alert in book.open()] == ["2013-09-02"]
    assert [alert.state for alert in book.entries()] == ["open", "open", "resolved"]


def test_a_night_without_alerts_writes_nothing(book: AlertBook) -> None:
    assert book.resolve({"2013-09-01"}, at=_NOW, run="flights_score/night", how="published") == ()
    assert not book.path.parent.exists()


@pytest.mark.parametrize("lost", [1, 40, 200])
def test_half_a_line_of_a_killed_writer_is_no_alert_and_spoils_no_other(book: AlertBook, lost: int) -> None:
    book.tell(_late())
    book.tell(_late("2013-09-02"))
    book.path.write_bytes(book.path.read_bytes()[:-lost])
    assert [alert.partition for alert in book.entries()] == ["2013-09-01"]
    assert book.tell(_late("2013-09-02"))
    assert [alert.partition for alert in book.entries()] == ["2013-09-01", "2013-09-02"]


def test_a_line_that_is_no_alert_is_passed_over_and_stays(book: AlertBook) -> None:
    book.tell(_late())
    with book.path.open("a") as file:
        file.write("seen, I call the source\n")
    assert not book.tell(_late())
    assert book.tell(_late("2013-09-02"))
    assert [alert.partition for alert in book.entries()] == ["2013-09-01", "2013-09-02"]
    assert "I call the source" in book.path.read_text()


def _tell_twenty(path: Path) -> int:
    return sum(AlertBook(path).tell(_late(f"2013-09-{day:02d}")) for day in range(1, 21))


def test_processes_that_tell_the_same_at_once_write_each_incident_once(book: AlertBook) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sum(pool.map(_tell_twenty, [book.path] * 4)) == 20
    assert sorted(alert.partition for alert in book.entries()) == [f"2013-09-{day:02d}" for day in range(1, 21)]

"""The book of alerts: an incident is told once, whoever tells it, and whatever happened to a writer before."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.alerts import AlertBook, message, subject
from pipelines.records import Alert, Condition

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
        what="its rows are not published",
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


# -- what a monitor run says -------------------------------------------------------------------------------------------


def _raised(partition: str, kind: str = "inputs") -> Condition:
    return Condition(kind=kind, state="raised", partition=partition, what="wind drifts", remedy="mend it")


def _over(kind: str = "inputs") -> Condition:
    return Condition(kind=kind, state="over")


def _update(book: AlertBook, *conditions: Condition, run: str = "flights_monitor/night") -> list[tuple[str, str]]:
    lines = book.update(
        "flights", conditions, granularity="day", at=_NOW, run=run, evidence={"inputs": "flights/drift/a.html"}
    )
    return [(line.partition, line.state) for line in lines]


def test_a_storm_is_one_message_and_its_end_another(book: AlertBook) -> None:
    days = [f"2013-09-{day:02}" for day in range(1, 31)]
    told = [_update(book, _raised("2013-09-01"), _raised("2013-09-01", "scores"), run=day) for day in days]
    assert told == [[("2013-09-01", "open")] * 2, *[[]] * 29]
    assert _update(book, _over(), _raised("2013-09-01", "scores")) == [("2013-09-01", "resolved")]
    assert [alert.kind for alert in book.open()] == ["scores"]


def test_while_one_is_open_no_other_of_its_kind_is_told_and_the_next_begins_anew(book: AlertBook) -> None:
    assert _update(book, _raised("2013-09-01")) == [("2013-09-01", "open")]
    assert _update(book, _raised("2013-09-05")) == [], "it began anew while it was told already"
    assert _update(book, _over()) == [("2013-09-01", "resolved")]
    assert _update(book, _over()) == []
    assert _update(book, _raised("2013-09-01")) == [], "a repeat of the old night is no news"
    assert _update(book, _raised("2013-09-09")) == [("2013-09-09", "open")]


def test_what_cannot_be_seen_leaves_an_incident_open(book: AlertBook) -> None:
    _update(book, _raised("2013-09-01"))
    assert _update(book, Condition(kind="inputs", state="unknown")) == []
    assert len(book.open()) == 1


def test_scores_that_are_there_end_no_incident_of_another_kind(book: AlertBook) -> None:
    _update(book, _raised("2013-09-01"))
    book.tell(_late())
    (over,) = book.resolve({"2013-09-01"}, at=_NOW, run="flights_score/night", how="published")
    assert over.kind == "late"
    assert [alert.kind for alert in book.open()] == ["inputs"]


def test_a_message_says_what_since_when_how_bad_what_to_do_and_where_it_is_shown(book: AlertBook) -> None:
    _update(book, _raised("2013-09-01"))
    (alert,) = book.open()
    assert subject(alert) == "flights: alarm: inputs drift, since 2013-09-01"
    assert message(alert, "http://host/run").splitlines() == [
        "What: wind drifts",
        "Since: 2013-09-01 (2013-09-01 00:00 UTC)",
        "How bad: alarm",
        "What to do: mend it",
        "Evidence: flights/drift/a.html",
        "Run: flights_monitor/night http://host/run",
    ]
    _update(book, _over())
    over = book.entries()[-1]
    assert subject(over) == "flights: over: inputs drift, since 2013-09-01"
    assert "Over: 2013-09-02 03:00 UTC" in message(over, "")


def test_a_channel_is_told_once_and_of_an_end_only_if_it_knew_of_the_begin(book: AlertBook) -> None:
    book.tell(_late())
    with book.channel("team") as turn:
        (first,) = turn.unsaid
        turn.done(first)
    _update(book, _raised("2013-09-03"))
    _update(book, _over())
    book.resolve({"2013-09-01"}, at=_NOW, run="flights_score/night", how="published")
    with book.channel("team") as turn:
        assert [(alert.kind, alert.state) for alert in turn.unsaid] == [("late", "resolved")]
    with book.channel("team") as turn:
        assert len(turn.unsaid) == 1, "it was not told: it is told next time"
        turn.done(turn.unsaid[0])
    with book.channel("team") as turn:
        assert turn.unsaid == ()
    with book.channel("new") as turn:
        assert turn.unsaid == (), "all of it was over before this channel came"


def _say(path: Path) -> int:
    with AlertBook(path).channel("team") as turn:
        for alert in turn.unsaid:
            turn.done(alert)
        return len(turn.unsaid)


def test_of_eight_processes_one_tells_a_channel(book: AlertBook) -> None:
    book.tell(_late())
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sum(pool.map(_say, [book.path] * 8, chunksize=1)) == 1

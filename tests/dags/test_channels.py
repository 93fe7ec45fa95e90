"""Channels are told over Airflow's own notifiers, by real HTTP and SMTP: once, as text, and later if not now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.alerts import AlertBook
from pipelines.errors import UnavailableError
from pipelines.records import Alert, Condition
from pipelines.spec import UseCase, load_spec
from tests.dags.conftest import load_plugin
from tests.servers.channels import Place, Post, serving

PROJECT = Path(__file__).resolve().parents[2]
_NOW = datetime(2013, 9, 2, 3, tzinfo=UTC)
#: Text out of data that would be a template, a mention, a tag, or another header.
HOSTILE = "{{ conf.get('core', 'fernet_key') }} <!channel> <script>alert(1)</script> & {% for x in y %}"


@pytest.fixture
def place() -> Iterator[Place]:
    with serving(Place()) as server:
        yield server


@pytest.fixture
def post() -> Iterator[Post]:
    with serving(Post()) as server:
        yield server


@pytest.fixture
def channels(place: Place, post: Post, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin, with connections to these servers."""
    slack = {
        "conn_type": "slackwebhook",
        "host": f"http://127.0.0.1:{place.server_address[1]}/services",
        "password": "T0/B0/token",
    }
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": post.server_address[1],
        "extra": {"from_email": "nights@example.com", "disable_ssl": True, "disable_tls": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_PAGER", place.connection)
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_NIGHTS", json.dumps(slack))
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_NIGHTS", json.dumps(smtp))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/nights")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return load_plugin("overnight_channels")


@pytest.fixture
def book(tmp_path: Path) -> AlertBook:
    return AlertBook(tmp_path / "flights.jsonl")


def told_of(*alerts: dict[str, Any]) -> UseCase:
    raw = load_spec(PROJECT / "include" / "use_cases" / "flights.yaml").model_dump(mode="json")
    return UseCase.model_validate({**raw, "alerts": alerts})


SLACK = {"name": "team", "to": "slack", "connection": "slack_nights"}
PAGER = {"name": "pager", "to": "webhook", "connection": "pager", "endpoint": "/events"}
EMAIL = {"name": "on_call", "to": "email", "connection": "smtp_nights", "recipients": ["one@example.com"]}


def begins(book: AlertBook, what: str = "wind drifts", kind: str = "inputs", partition: str = "2013-09-01") -> Alert:
    condition = Condition(kind=kind, state="raised", partition=partition, what=what, remedy="mend it")
    (alert,) = book.update(
        "flights",
        [condition],
        granularity="day",
        at=_NOW,
        run="flights_monitor/scheduled__2013-09-02T03:00:00+00:00",
        evidence={"inputs": "flights/drift/2013-09-01-champion-3.html"},
    )
    return alert


def ends(book: AlertBook, kind: str = "inputs") -> None:
    over = Condition(kind=kind, state="over")
    book.update("flights", [over], granularity="day", at=_NOW, run="flights_monitor/next", evidence={})


RUN = "https://airflow.example.com/nights/dags/flights_monitor/runs/scheduled__2013-09-02T03%3A00%3A00%2B00%3A00"
REPORT = "https://airflow.example.com/nights/overnight/reports/flights/drift/2013-09-01-champion-3.html"


def test_each_kind_of_channel_is_told_once_what_is_wrong_and_that_it_is_over(
    channels: ModuleType, book: AlertBook, place: Place, post: Post
) -> None:
    spec = told_of(SLACK, PAGER, EMAIL)
    begins(book)
    assert channels.tell(spec, book) == 3
    assert channels.tell(spec, book) == 0, "it was told"
    slack, pager = sorted(place.got, key=lambda one: one[0], reverse=True)
    assert slack[0] == "/services/T0/B0/token"
    text = json.loads(slack[2])["text"]
    assert text.splitlines()[:2] == ["*flights: alarm: inputs drift, since 2013-09-01*", "What: wind drifts"]
    assert f"Evidence: {REPORT}" in text
    assert RUN in text
    assert (pager[0], pager[1]["Content-Type"]) == ("/events", "application/json")
    event = json.loads(pager[2])
    assert (event["kind"], event["state"], event["what"], event["link"]) == ("inputs", "open", "wind drifts", RUN)
    (mail,) = post.got
    assert (mail["Subject"], mail["From"]) == ("flights: alarm: inputs drift, since 2013-09-01", "nights@example.com")
    assert "What to do: mend it" in mail.get_body().get_content()
    ends(book)
    assert channels.tell(spec, book) == 3
    assert post.got[1]["Subject"] == "flights: over: inputs drift, since 2013-09-01"
    keys = [headers["Idempotency-Key"] for path, headers, _ in place.got if path == "/events"]
    assert len(set(keys)) == 2, "begin and end are two events"


def test_text_out_of_data_stays_text(channels: ModuleType, book: AlertBook, place: Place, post: Post) -> None:
    begins(book, HOSTILE)
    assert channels.tell(told_of(SLACK, PAGER, EMAIL), book) == 3
    said = {path: json.loads(body) for path, _, body in place.got}
    assert said["/events"]["what"] == HOSTILE
    slack = said["/services/T0/B0/token"]["text"]
    assert "{{ conf.get" in slack
    assert "&lt;!channel&gt;" in slack
    assert "<" not in slack
    body = post.got[0].get_body().get_content()
    assert "&lt;script&gt;" in body
    assert "<script>" not in body


def test_a_channel_that_is_ill_stops_no_other_and_is_told_later(
    channels: ModuleType, book: AlertBook, place: Place, post: Post
) -> None:
    spec, place.ill = told_of(PAGER, EMAIL), True
    begins(book)
    with pytest.raises(UnavailableError, match="pager: ") as caught:
        channels.tell(spec, book)
    assert "Remedy" in str(caught.value)
    assert (len(post.got), place.got) == (1, [])
    channels.quietly(spec, book, ["something new"])  # whoever must not fail for it
    place.ill = False
    assert channels.tell(spec, book) == 1
    assert (len(post.got), len(place.got)) == (1, 1)


def test_a_connection_that_is_not_there_is_named(channels: ModuleType, book: AlertBook) -> None:
    begins(book)
    with pytest.raises(UnavailableError, match=r"pager: .*nowhere"):
        channels.tell(told_of({**PAGER, "connection": "nowhere"}), book)


def test_a_channel_hears_what_it_asked_for(channels: ModuleType, book: AlertBook, place: Place) -> None:
    spec = told_of({**PAGER, "kinds": ["decay"], "resolved": False})
    begins(book)
    begins(book, "worse", "decay")
    assert channels.tell(spec, book) == 1
    ends(book, "decay")
    assert channels.tell(spec, book) == 0
    assert [json.loads(body)["kind"] for _, _, body in place.got] == ["decay"]


def test_the_triggerer_tells_by_its_event_loop(channels: ModuleType, book: AlertBook, place: Place, post: Post) -> None:
    begins(book)
    spec = told_of(SLACK, PAGER, EMAIL)
    assert asyncio.run(channels.tell_from_triggerer(spec, book)) == 3
    assert asyncio.run(channels.tell_from_triggerer(spec, book)) == 0
    assert channels.tell(spec, book) == 0, "a task sees that it was told"
    assert (len(place.got), len(post.got)) == (2, 1)
    ends(book)
    place.ill = True
    with pytest.raises(UnavailableError, match=r"team: .*pager: "):
        asyncio.run(channels.tell_from_triggerer(spec, book))
    assert len(post.got) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({**EMAIL, "recipients": ["one@example.com\nBcc: all@example.com"]}, "no address of e-mail"),
        ({**EMAIL, "recipients": []}, "at least 1 item"),
        ({**PAGER, "endpoint": "/{{ conf }}"}, "String should match pattern"),
        ({**PAGER, "connection": "http://user:password@host"}, "String should match pattern"),
        ({**PAGER, "kinds": ["storm"]}, "Input should be 'late'"),
        ({**PAGER, "to": "pigeon"}, "pigeon"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        told_of(wrong)
    with pytest.raises(ValueError, match="a name is given twice"):
        told_of(PAGER, {**EMAIL, "name": "pager"})

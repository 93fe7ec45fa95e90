"""Announcements to a real HTTP server that drops answers, is slow, fails, or has had them before."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from pipelines.backends.sink_webhook import WebhookSink
from pipelines.errors import ServiceRefused, SpecError, UnavailableError
from tests.cases.handed import CANARY, DAY, consignment, deliver_by, delivery_of, rows
from tests.servers.receiver import Receiver, receiving

FRAME = rows(0.1, 0.7)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as made:
        yield made


def _sink(address: str, timeout: float = 10) -> WebhookSink:
    return WebhookSink(delivery_of(sink="webhook", timeout=timeout), SecretStr(address))


def test_a_request_says_what_was_published_under_its_key_and_holds_no_rows(receiver: Receiver) -> None:
    done = _sink(receiver.address).deliver(consignment(FRAME, "a"))
    ((headers, body),) = receiver.requests
    assert headers["Idempotency-Key"] == "a" * 64
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "event": "predictions.published",
        "key": "a" * 64,
        "use_case": "uc",
        "delivery": "crm",
        "partition": DAY,
        "rows": 2,
        "model_version": 1,
        "snapshot": "delta:uc/predictions@3",
        "digest": "d" * 64,
    }
    assert (done.state, done.rows, done.where) == ("delivered", 2, receiver.address)


def test_an_answer_that_was_lost_leads_to_the_same_request_and_the_receiver_acts_once(receiver: Receiver) -> None:
    receiver.plan, receiver.repeat = ["drop"], 409
    with pytest.raises(UnavailableError, match="RemoteProtocolError"):
        deliver_by(_sink(receiver.address), FRAME, "a")
    assert deliver_by(_sink(receiver.address), FRAME, "a") == "unchanged"
    assert receiver.acted == 1
    bodies = {body for _, body in receiver.requests}
    assert len(bodies) == 1


def test_a_receiver_that_is_slow_is_given_up_after_the_timeout_and_asked_again(receiver: Receiver) -> None:
    receiver.plan = ["slow"]
    with pytest.raises(UnavailableError, match="ReadTimeout"):
        deliver_by(_sink(receiver.address, timeout=0.2), FRAME, "a")
    receiver.go.set()
    assert deliver_by(_sink(receiver.address), FRAME, "a") == "delivered"
    assert receiver.acted == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_receiver_that_is_not_ready_is_unavailable_until_it_is(receiver: Receiver, status: int) -> None:
    receiver.plan = [status]
    with pytest.raises(UnavailableError, match=f"it answered {status}"):
        deliver_by(_sink(receiver.address), FRAME, "a")
    assert deliver_by(_sink(receiver.address), FRAME, "a") == "delivered"
    assert receiver.acted == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 422])
def test_a_receiver_that_refuses_or_has_moved_is_a_matter_for_a_person(receiver: Receiver, status: int) -> None:
    receiver.plan = [status]
    with pytest.raises(ServiceRefused, match=f"it answered {status}"):
        deliver_by(_sink(receiver.address), FRAME, "a")
    assert len(receiver.requests) == 1  # a redirection is not followed


def test_what_the_log_has_as_told_is_not_told_again(receiver: Receiver) -> None:
    assert deliver_by(_sink(receiver.address), FRAME, "a", before="a" * 64) == "unchanged"
    assert receiver.requests == []
    assert deliver_by(_sink(receiver.address), FRAME, "b", before="a" * 64) == "delivered"


def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="no answer: ConnectError"):
        deliver_by(_sink("http://127.0.0.1:9/"), FRAME, "a")


def test_tokens_in_an_address_are_used_and_never_told(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    # Whoever set them to be talkative before: their INFO line is the whole address.
    logging.getLogger("httpx").setLevel(logging.DEBUG)
    address = receiver.address.replace("http://", f"http://me:{CANARY}@") + f"/hooks/{CANARY}?token={CANARY}"
    sink = _sink(address)
    receiver.plan = [503, 404, "drop"]
    told = repr(sink) + repr(vars(sink))
    for expected in (UnavailableError, ServiceRefused, UnavailableError):
        with pytest.raises(expected) as caught:
            deliver_by(sink, FRAME, "a")
        told += "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    told += sink.deliver(consignment(FRAME, "b")).model_dump_json() + caplog.text
    assert CANARY not in told
    assert all(headers["Authorization"].startswith("Basic ") for headers, _ in receiver.requests)


@pytest.mark.parametrize(
    "address",
    [
        f"http://example.org/{CANARY}",
        f"ftp://{CANARY}@example.org",
        f"https://u:{CANARY}/x@example.org",
        f"https:///{CANARY}",
        f"/{CANARY}",
        f"https://[{CANARY}",
    ],
)
def test_an_address_that_is_no_webhooks_is_refused_without_being_told(address: str) -> None:
    with pytest.raises(SpecError, match="'there' is no address of a webhook") as caught:
        _sink(address)
    assert CANARY not in "".join(traceback.format_exception(caught.value))

"""Predictions announced by HTTP: a POST of JSON that says what was published, and holds no rows.

    POST <target>
    Content-Type: application/json
    Idempotency-Key: <key>

    {"event": "predictions.published", "key": ..., "use_case": ..., "delivery": ..., "partition": ..., "rows": ...,
     "model_version": ..., "snapshot": ..., "digest": ...}

An answer may be lost, and then the same request is sent again: exactly once is what the receiver makes of it. It must
take a key that it has had for done, and answer 2xx or 409 then. The same content has the same key and the same body,
always; our log of deliveries (`steps.deliveries`) spares the receiver what it has confirmed before. After a partition
was taken back to former content, the former key is sent a second time: whoever needs to know that reads the snapshot.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pipelines import __version__
from pipelines.errors import ServiceRefused, SpecError, UnavailableError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Consignment
from pipelines.records import Delivered
from pipelines.spec import WebhookDelivery

if TYPE_CHECKING:
    from pydantic import SecretStr

EVENT = "predictions.published"
_TAKEN = 409
_PASSING = (408, 425, 429)
_HERE = ("127.0.0.1", "::1", "localhost")
#: They write the whole address, which may hold a password or be one.
_TALKATIVE = ("httpx", "httpcore")


class WebhookSink:
    """Delivers announcements."""

    def __init__(self, delivery: WebhookDelivery, address: SecretStr) -> None:
        """Connects to nothing.

        Args:
            address: `https://...`; `http://` on this machine only. User and password in it are sent as HTTP Basic.

        Raises:
            SpecError: the address is of another kind.
        """
        self._delivery = delivery
        self._address = address
        self.where = _origin(delivery, address)
        """Scheme, host and port: paths and parameters are where tokens are."""

    def deliver(self, consignment: Consignment) -> Delivered:
        """See `Sink.deliver`."""
        told = consignment.prediction
        known = consignment.before == consignment.key
        state = "unchanged" if known else self._post(consignment)
        return Delivered(
            delivery=consignment.delivery,
            sink="webhook",
            partition=told.partition,
            key=consignment.key,
            rows=told.rows_scored,
            where=self.where,
            state=state,
        )

    def _post(self, consignment: Consignment) -> Literal["delivered", "unchanged"]:
        import httpx

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": consignment.key,
            "User-Agent": f"overnight/{__version__}",
        }
        try:
            with (
                httpx.Client(timeout=self._delivery.timeout, follow_redirects=False) as client,
                # The answer's body is not read: it may be of any length.
                client.stream(
                    "POST", self._address.get_secret_value(), content=body(consignment), headers=headers
                ) as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Not its words: they may quote the address.
            what = f"no answer: {type(error).__name__}"
            raise UnavailableError(explain(self.where, what, remedy="it is sent again under the same key")) from None
        failpoint("deliver.answered")
        return self._judge(status)

    def _judge(self, status: int) -> Literal["delivered", "unchanged"]:
        if 200 <= status < 300:
            return "delivered"
        if status == _TAKEN:
            return "unchanged"
        if status in _PASSING or status >= 500:
            raise UnavailableError(
                explain(self.where, f"it answered {status}", remedy="it is sent again under the same key")
            )
        remedy = "ask whoever runs it; a redirection is not followed: put the new address into OVERNIGHT_TARGETS"
        raise ServiceRefused(explain(self.where, f"it answered {status}", allowed="2xx, 409", remedy=remedy))


def body(consignment: Consignment) -> bytes:
    """What is sent: the same bytes for the same key."""
    told = consignment.prediction
    said = {
        "event": EVENT,
        "key": consignment.key,
        "use_case": consignment.use_case,
        "delivery": consignment.delivery,
        "partition": told.partition,
        "rows": told.rows_scored,
        "model_version": told.model_version,
        "snapshot": told.snapshot.id,
        "digest": told.digest,
    }
    return json.dumps(said).encode()


def _origin(delivery: WebhookDelivery, address: SecretStr) -> str:
    try:
        parts = urlsplit(address.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError:  # it quotes what it could not read
        host = port = None
    else:
        if host and (parts.scheme == "https" or (parts.scheme == "http" and host in _HERE)):
            shown = f"[{host}]" if ":" in host else host
            return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")
    raise SpecError(
        explain(
            f"delivery {delivery.name}",
            f"target {delivery.target!r} is no address of a webhook",
            allowed="https://..., or http:// on this machine",
            remedy="correct it in OVERNIGHT_TARGETS",
        )
    )

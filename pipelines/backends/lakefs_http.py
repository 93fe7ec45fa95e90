"""Calls to a lakeFS server through `lakefs_sdk`: each with a timeout, and what became of it.

A call ends in one of four ways: an answer; `Refused`, the server's definite no; `UnavailableError` after retries with
jitter up to a deadline; and, for a call that may not be made twice, `Unanswered`: it may have happened or not, and
may still.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from pipelines.errors import TerminalError, UnavailableError, explain

if TYPE_CHECKING:
    from lakefs_sdk.client import LakeFSClient
    from pydantic import SecretStr
    from urllib3 import BaseHTTPResponse

Answer = TypeVar("Answer")

#: With 400, as if the caller were to blame: what the server says when its own storage fails, such as a full disk.
_WRITE_FAILED = "failed to write to storage"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where lakeFS is, and how patient to be with it."""

    endpoint: str
    """Such as http://127.0.0.1:8000."""
    access_key_id: str
    secret_access_key: SecretStr
    timeout: float = 60.0
    """Seconds that the server may take to answer one call."""
    deadline: float = 60.0
    """Seconds after which a call that keeps failing is given up."""


class Refused(TerminalError):
    """The server's definite no: nothing was done."""

    def __init__(self, status: int, text: str) -> None:
        """Keeps the status, and what the server said."""
        super().__init__(f"lakeFS refused: {status} {text}".strip())
        self.status = status
        self.text = text


class Unanswered(UnavailableError):
    """A timeout, a dropped connection or a 5xx: the work may have been done."""


class Calls:
    """Calls to one server. Connects when first used, so that it may be made before a fork. Safe for threads."""

    def __init__(self, server: Server) -> None:
        """Connects to nothing."""
        self.server = server

    @cached_property
    def lake(self) -> LakeFSClient:
        """The client whose methods `once` and `call` take."""
        from lakefs_sdk import Configuration
        from lakefs_sdk.client import LakeFSClient

        configuration = Configuration(
            host=f"{self.server.endpoint.rstrip('/')}/api/v1",
            username=self.server.access_key_id,
            password=self.server.secret_access_key.get_secret_value(),
        )
        # With None, urllib3 would repeat calls by itself, without asking what became of them.
        configuration.retries = False
        return LakeFSClient(configuration)

    def once(self, method: Callable[..., Answer], *args: Any, **named: Any) -> Answer:
        """Makes a call, once.

        Args:
            method: of the client; gets the rest, and `_request_timeout`.

        Raises:
            Refused: a definite no. Unanswered: it may have happened. TerminalError: the access key is refused.
        """
        from http.client import HTTPException

        from lakefs_sdk.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        limits = (min(5.0, self.server.timeout), self.server.timeout)
        try:
            return method(*args, _request_timeout=limits, **named)
        except ApiException as error:
            # Status 0: the client's own trouble with TLS, which its reason begins with.
            status = int(error.status or 0)
            text = _said(error.body) if status else str(error.reason).partition("\n")[0]
        except (HTTPError, HTTPException, OSError) as error:
            status, text = 0, type(error).__name__
        except ValueError as error:
            status, text = 0, f"an answer that lakefs_sdk cannot read, {type(error).__name__}"
        # Raised out here, without a cause or context: those hold what was sent.
        if status in (0, 429) or status >= 500 or _WRITE_FAILED in text:
            raise Unanswered(f"{status or ''} {text}".strip())
        if status == 401 or (status == 403 and "protected" not in text):
            raise TerminalError(
                explain(
                    f"lakeFS {self.server.endpoint}",
                    f"the server refused the access key ({status} {text})",
                    remedy="check OVERNIGHT_LAKEFS_ACCESS_KEY_ID and OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY",
                )
            )
        raise Refused(status, text)

    def call(self, method: Callable[..., Answer], *args: Any, **named: Any) -> Answer:
        """Makes a call that may be repeated, until it is answered.

        Raises:
            Refused: a definite no. UnavailableError: no proper answer before the deadline.
        """
        wait = self.patience()
        while True:
            try:
                return self.once(method, *args, **named)
            except Unanswered as error:
                problem = str(error)
            if not wait():
                raise self.unavailable(problem)

    def streamed(
        self,
        method: str,
        place: str,
        query: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        _request_timeout: tuple[float, float],
    ) -> BaseHTTPResponse:
        """A method for `once` and `call` that holds no body whole; the answer's is yet to be read.

        The client's own methods do: `upload_object` reads a file into a form, and `get_object` reads the answer even
        when told not to. So this goes one level deeper, to the connections below them.
        """
        from lakefs_sdk.exceptions import ApiException
        from lakefs_sdk.rest import RESTResponse
        from urllib3 import Timeout

        client = self.lake.objects_api.api_client
        sent = {**client.default_headers, "Accept": "application/json", **(headers or {})}
        client.update_params_for_auth(sent, None, ["basic_auth"], place, method, None)
        connect, read = _request_timeout
        answer: BaseHTTPResponse = client.rest_client.pool_manager.request(
            method,
            f"{client.configuration.host}{place}?{urlencode(query)}",
            body=body,
            headers=sent,
            timeout=Timeout(connect=connect, read=read),
            preload_content=False,
        )
        if answer.status >= 300:
            raise ApiException(http_resp=RESTResponse(answer))
        return answer

    def patience(self) -> Callable[[], bool]:
        """Waits a little longer each time it is called, with jitter; False when the deadline would pass."""
        end = time.monotonic() + self.server.deadline
        pause = 0.05

        def wait() -> bool:
            nonlocal pause
            seconds = random.uniform(pause / 2, pause)  # noqa: S311 (jitter is no secret)
            if time.monotonic() + seconds > end:
                return False
            time.sleep(seconds)
            pause = min(pause * 2, 5.0)
            return True

        return wait

    def unavailable(self, problem: str) -> UnavailableError:
        """The error for a server that does not answer as it should; it says so when the server's disk is full."""
        if "no space left on device" in problem:
            remedy = "free some space and run it again"
            return UnavailableError(
                explain(f"lakeFS {self.server.endpoint}", f"its disk is full ({problem})", remedy=remedy)
            )
        return UnavailableError(
            explain(
                f"lakeFS {self.server.endpoint}",
                f"no proper answer for {self.server.deadline:g} s ({problem})",
                remedy="see that the server is up and reachable; the same call again finds out what happened",
            )
        )


def _said(body: str | bytes | None) -> str:
    """The message in an error's body, cut short in the middle; a proxy's page says nothing to us."""
    try:
        text = str(json.loads(body or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return text if len(text) <= 500 else f"{text[:200]} ... {text[-300:]}"  # what caused it stands at the end

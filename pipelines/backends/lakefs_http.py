"""HTTP to a lakeFS server: each call with a timeout, and what became of it.

A call ends in one of four ways: an answer; `Refused`, the server's definite no; `UnavailableError` after retries with
jitter up to a deadline; and, for a call that may not be made twice, `Unanswered`: it may have happened or not, and
may still.

Plain HTTP (the API is `/api/v1` of any lakeFS 1.x): decision 0010 says why not through `lakefs_sdk`.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pipelines.errors import TerminalError, UnavailableError, explain

if TYPE_CHECKING:
    from pydantic import SecretStr
    from urllib3 import BaseHTTPResponse, PoolManager

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
    def _pool(self) -> PoolManager:
        from urllib3 import PoolManager

        # urllib3 would repeat calls by itself, without asking what became of them.
        return PoolManager(maxsize=8, retries=False)

    def once(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        whole: bool = True,
    ) -> BaseHTTPResponse:
        """Makes a call, once.

        Args:
            body: sent as JSON.
            content: sent as it is; a file is streamed.
            whole: whether to read the answer's body now.

        Raises:
            Refused: a definite no. Unanswered: it may have happened. TerminalError: the access key is refused.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        url = f"{self.server.endpoint.rstrip('/')}/api/v1{place}" + (f"?{urlencode(query)}" if query else "")
        data: bytes | Path = b"" if content is None else content
        sent = {"Accept": "application/json", "Authorization": self._authorization(), **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/octet-stream"
        elif body is not None:
            sent["Content-Type"], data = "application/json", json.dumps(body).encode()
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if method in ("POST", "PUT"):
            sent["Content-Length"] = str(size)
        timeout = Timeout(connect=min(5.0, self.server.timeout), read=self.server.timeout)
        # Causes are cut off: they carry what was sent.
        try:
            with data.open("rb") if isinstance(data, Path) else contextlib.nullcontext(data or None) as stream:
                answer = self._pool.request(
                    method, url, body=stream, headers=sent, timeout=timeout, preload_content=whole
                )
            if answer.status < 300:
                return answer
            text = _said(answer.data)
        except (HTTPError, OSError) as error:
            raise Unanswered(type(error).__name__) from None
        if answer.status == 401 or (answer.status == 403 and "protected" not in text):
            raise TerminalError(
                explain(
                    f"lakeFS {self.server.endpoint}",
                    f"the server refused the access key ({answer.status} {text})",
                    remedy="check OVERNIGHT_LAKEFS_ACCESS_KEY_ID and OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY",
                )
            )
        if answer.status == 429 or answer.status >= 500 or _WRITE_FAILED in text:
            raise Unanswered(f"{answer.status} {text}".strip())
        raise Refused(answer.status, text)

    def _authorization(self) -> str:
        pair = f"{self.server.access_key_id}:{self.server.secret_access_key.get_secret_value()}"
        return "Basic " + b64encode(pair.encode()).decode()

    def call(self, method: str, place: str, **named: Any) -> BaseHTTPResponse:
        """Makes a call that may be repeated, until it is answered.

        Raises:
            Refused: a definite no. UnavailableError: no proper answer before the deadline.
        """
        wait = self.patience()
        while True:
            try:
                return self.once(method, place, **named)
            except Unanswered as error:
                problem = str(error)
            if not wait():
                raise self.unavailable(problem)

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


def _said(body: bytes) -> str:
    """The message in an error's body, cut short in the middle; a proxy's page says nothing to us."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return text if len(text) <= 500 else f"{text[:200]} ... {text[-300:]}"  # what caused it stands at the end

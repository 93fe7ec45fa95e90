"""A loopback HTTP proxy that spoils chosen requests between a client and a real server.

It is a process of its own, told what to do over its standard input: some calls of delta-rs keep Python's interpreter
lock while they wait for a server, so a proxy in a thread of the client's process would never get to answer.

Everything is forwarded as it came, the Host header included: S3 signatures cover it, and the servers check a signature
against the Host that they receive, not against the address they listen on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

#: `refuse`: 503, the server never sees it · `cut`: the connection ends, the server never sees it · `drop`: the server
#: does it, the reply is lost · `die`: like `drop`, and nothing answers from then on until `heal` · `late`: held until
#: the client gives up, and done only when the test says so.
Kind = Literal["refuse", "cut", "drop", "die", "late"]

_ROOT = Path(__file__).resolve().parents[2]
_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect", "content-length"}
_PATIENCE = 20.0
_BODILESS = {204, 304}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that the proxy saw."""

    method: str
    path: str
    fate: str
    """The server's status, or the fault's kind."""


class Proxy:
    """A running proxy, as the test holds it. Its `endpoint` stands in for the server's."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.endpoint: str = self._read()

    def spoil(self, method: str, path: str, kind: Kind, *, times: int | None = 1, after: int = 0) -> None:
        """From now on, spoils requests.

        Args:
            method: regular expression of the whole method.
            path: regular expression somewhere in the path and query, as they are sent.
            times: how many requests are spoiled; None for all until `heal`.
            after: how many matching requests pass before the first one that is spoiled.
        """
        self._ask("spoil", method=method, path=path, kind=kind, times=times, after=after)

    def heal(self) -> None:
        """No request is spoiled any more; what is held stays held."""
        self._ask("heal")

    def release(self) -> int:
        """Lets the server have the held requests now, whose clients are gone, and waits until it has answered.

        Returns:
            How many they were.
        """
        count: int = self._ask("release")
        return count

    def requests(self) -> list[Request]:
        """What came since the last time this was asked, in the order of arrival at the server."""
        return [Request(method=method, path=path, fate=fate) for method, path, fate in self._ask("requests")]

    def _ask(self, command: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """Runs a proxy before the server at `upstream`, such as http://127.0.0.1:8333."""
    command = [sys.executable, "-m", "tests.faults.proxy", upstream]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Proxy(process)
        finally:
            process.kill()


# -- in the proxy's process ------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Fault:
    method: str
    path: str
    kind: Kind
    times: int | None
    after: int
    matched: int = 0
    fired: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is spoiled; counts it."""
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.matched += 1
        if self.matched <= self.after or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True


@dataclass
class _Desk:
    """What the handlers and the commands share."""

    upstream: str
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[_Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: list[threading.Event] = field(default_factory=list)
    """One for each held request: set to let it go."""
    forwarded: list[threading.Event] = field(default_factory=list)
    """One for each held request: set when the server has answered it."""

    dead: bool = False

    def fate(self, method: str, path: str) -> Kind | None:
        with self.lock:
            if self.dead:
                return "cut"
            kind = next((fault.kind for fault in self.faults if fault.takes(method, path)), None)
            self.dead = kind == "die"
            return kind

    def hold(self) -> tuple[threading.Event, threading.Event]:
        with self.lock:
            self.held.append(threading.Event())
            self.forwarded.append(threading.Event())
            return self.held[-1], self.forwarded[-1]

    def spoil(self, **fault: Any) -> None:
        with self.lock:
            self.faults.append(_Fault(**fault))

    def heal(self) -> None:
        with self.lock:
            self.faults.clear()
            self.dead = False

    def release(self) -> int:
        with self.lock:
            held, forwarded = self.held, self.forwarded
            self.held, self.forwarded = [], []
        for let_go, done in zip(held, forwarded, strict=True):
            let_go.set()
            assert done.wait(_PATIENCE), "a held request was never answered"
        return len(held)

    def requests(self) -> list[tuple[str, str, str]]:
        with self.lock:
            seen, self.seen = self.seen, []
        return seen


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    desk: _Desk


class _Handler(BaseHTTPRequestHandler):
    """One client connection; requests on it come one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        # Whatever the method, and a client that went away is nothing to talk about.
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        desk, body = self.server.desk, self._body()
        kind = desk.fate(self.command, self.path)
        if kind is None:
            status, reply = self._forward(body)
            desk.seen.append((self.command, self.path, str(status)))
            self.wfile.write(reply)
            return
        desk.seen.append((self.command, self.path, kind))
        if kind == "refuse":
            self.wfile.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        self.close_connection = True
        if kind == "late":
            self._hold(body)
        elif kind in ("drop", "die"):
            self._forward(body)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _hold(self, body: bytes) -> None:
        """Waits for the client to give up, then for the test's word; then the server gets the request."""
        let_go, forwarded = self.server.desk.hold()
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and not let_go.is_set():
            ready, _, _ = select.select([self.connection], [], [], 0.05)
            if ready and self.connection.recv(1, socket.MSG_PEEK) == b"":
                break
        let_go.wait()
        try:
            self._forward(body)
        finally:
            forwarded.set()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        """The server's status, and its whole reply as bytes for the client."""
        upstream = urlsplit(self.server.desk.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            if body or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
            lines += [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in _HOP]
            if self.command == "HEAD":
                lines.append(f"Content-Length: {answer.headers.get('Content-Length', 0)}")
            elif answer.status not in _BODILESS:
                lines.append(f"Content-Length: {len(content)}")
            return answer.status, "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def _main(upstream: str) -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.desk = _Desk(upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(f"http://127.0.0.1:{server.server_port}"), flush=True)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        print(json.dumps(getattr(server.desk, command)(**arguments)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])

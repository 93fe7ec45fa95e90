"""What channels of alerts talk to: an HTTP server that takes POSTs, and an SMTP server."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


class Place(ThreadingHTTPServer):
    """Takes POSTs, as Slack and a pager do; says 503 while it is ill."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.got: list[tuple[str, dict[str, str], str]] = []
        self.ill = False

    @property
    def connection(self) -> str:
        """As an Airflow connection, in JSON."""
        return json.dumps({"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": self.server_address[1]})


class _Answers(BaseHTTPRequestHandler):
    server: Place

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if not self.server.ill:
            self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(503 if self.server.ill else 200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Mails(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a client needs to leave a message."""

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.got.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


class Post(socketserver.ThreadingTCPServer):
    """An SMTP server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mails)
        self.daemon_threads = True
        self.got: list[email.message.EmailMessage] = []


_Server = TypeVar("_Server", Place, Post)


@contextmanager
def serving(server: _Server) -> Iterator[_Server]:
    """Serves for as long as the block runs."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

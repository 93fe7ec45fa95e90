"""A webhook's receiver: a real HTTP server that keeps the idempotency keys that it has done, and may misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What it got, and how it will answer: by default, 200 for a new key and `repeat` for one that it has done."""

    plan: list[int | str] = field(default_factory=list)
    """Answers to come: a status; `drop` does the work and closes without a word; `slow` answers when it is let go."""
    repeat: int = 200
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it acted on, by key: once each."""
    acted: int = 0
    address: str = ""
    go: threading.Event = field(default_factory=threading.Event)

    def take(self, headers: dict[str, str], body: bytes) -> int | str:
        """One request."""
        self.requests.append((headers, body))
        answer = self.plan.pop(0) if self.plan else 200
        if answer not in (200, "drop", "slow"):
            return answer
        key = headers["Idempotency-Key"]
        if key in self.done:
            return self.repeat if answer == 200 else answer
        self.done[key] = json.loads(body)
        self.acted += 1
        return answer


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = receiver.take(dict(self.headers.items()), body)
            if answer == "slow":
                receiver.go.wait(30)
            if isinstance(answer, str):
                self.close_connection = True
                return
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", f"{receiver.address}/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.go.set()
        server.shutdown()
        thread.join()
        server.server_close()

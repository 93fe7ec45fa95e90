"""Calls to a lakeFS server that misbehaves: how often each is made, what is said of it, and what stays in memory."""

from __future__ import annotations

import json
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipelines.backends.lakefs_client import Repository
from pipelines.backends.lakefs_http import Refused, Server, Unanswered
from pipelines.errors import TerminalError, UnavailableError

SECRET = "known-to-this-test-only"
_MIB = 1 << 20
Treatment = Callable[[BaseHTTPRequestHandler], None]


def hanging_up(request: BaseHTTPRequestHandler) -> None:
    """Ends the connection without a word."""


@dataclass
class Misbehaving:
    """A server that treats every request in one way."""

    endpoint: str = ""
    treat: Treatment = hanging_up
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""

    def repository(self, **patience: float) -> Repository:
        server = Server(endpoint=self.endpoint, access_key_id="key", secret_access_key=SecretStr(SECRET), **patience)
        return Repository(server, "repo")


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    about = Misbehaving()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.handle_one_request()

        def _any(self) -> None:
            about.seen.append((self.command, self.path, dict(self.headers)))
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                left -= len(self.rfile.read(min(left, _MIB)))
            about.treat(self)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        about.endpoint = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield about
        finally:
            listening.shutdown()
            thread.join()


def answering(status: int, body: bytes, length: int | None = None) -> Treatment:
    def treat(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.send_header("Content-Type", "application/json")
        request.end_headers()
        request.wfile.write(body)

    return treat


UNCLEAR = {
    "hangs up": hanging_up,
    "503": answering(503, b""),
    "429": answering(429, b'{"message": "slow down"}'),
    "a proxy's page": answering(200, b"<html>welcome</html>"),
    "not text": answering(500, b"\xff\xfe"),
    "an answer cut short": answering(200, b'{"reference": "', length=100),
    "an answer of something else": answering(200, b'{"version": "2"}'),
}


@pytest.mark.parametrize("treat", UNCLEAR.values(), ids=UNCLEAR)
def test_a_merge_that_may_have_happened_is_made_once(server: Misbehaving, treat: Treatment) -> None:
    server.treat = treat
    with pytest.raises(Unanswered):
        server.repository().merge("run-1", "publish", {})
    assert [(method, path) for method, path, _ in server.seen] == [
        ("POST", "/api/v1/repositories/repo/refs/run-1/merge/main")
    ]


def test_a_merge_whose_answer_does_not_come_is_made_once(server: Misbehaving) -> None:
    enough = threading.Event()

    def hanging(request: BaseHTTPRequestHandler) -> None:
        enough.wait(20)

    server.treat = hanging
    with pytest.raises(Unanswered):
        server.repository(timeout=0.2).merge("run-1", "publish", {})
    enough.set()
    assert len(server.seen) == 1


def test_a_call_that_may_be_repeated_is_until_it_is_answered(server: Misbehaving) -> None:
    bad = iter([hanging_up, UNCLEAR["503"], UNCLEAR["a proxy's page"]])
    good = answering(200, json.dumps({"id": "main", "commit_id": "c1"}).encode())

    def recovering(request: BaseHTTPRequestHandler) -> None:
        next(bad, good)(request)

    server.treat = recovering
    assert server.repository().head("main") == "c1"
    assert len(server.seen) == 4


def test_it_is_given_up_when_its_time_is_over(server: Misbehaving) -> None:
    server.treat = answering(503, b'{"message": "too busy"}')
    with pytest.raises(UnavailableError, match="too busy"):
        server.repository(deadline=0.3).head("main")
    assert len(server.seen) > 1


def test_nothing_below_repeats_a_call_by_itself(server: Misbehaving) -> None:
    with pytest.raises(UnavailableError):
        server.repository(deadline=0.0).head("main")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 403, 412, 503])
@pytest.mark.parametrize("upload", [True, False])
def test_no_error_holds_the_secret_or_what_was_sent(server: Misbehaving, status: int, upload: bool) -> None:
    server.treat = answering(status, json.dumps({"message": "no" * 1000}).encode())
    repository = server.repository(deadline=0.1)
    with pytest.raises((TerminalError, UnavailableError)) as caught:
        repository.upload("b", "p", b"x") if upload else repository.create_branch("b", "main")
    assert "Authorization" in server.seen[0][2]
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert len(str(error)) < 1000
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next  # this test's own frame knows what the server saw
    shown = "".join(traceback.TracebackException(type(error), error, below, capture_locals=True).format())
    assert "lakefs_http.py" in shown
    assert SECRET not in shown
    assert server.seen[0][2]["Authorization"] not in shown


def test_deleting_fails_when_it_failed_for_one_path(server: Misbehaving) -> None:
    problem = {"status_code": 403, "message": "cannot write to protected branch", "path": "a"}
    server.treat = answering(200, json.dumps({"errors": [problem]}).encode())
    with pytest.raises(Refused, match="protected") as refused:
        server.repository().delete("main", ["a", "b"])
    assert refused.value.status == 403


def test_what_a_newer_server_says_besides_is_passed_over(server: Misbehaving) -> None:
    said = {"id": "main", "commit_id": "c1", "colour": "green", "nested": {"a": [1]}}
    server.treat = answering(200, json.dumps(said).encode())
    assert server.repository().head("main") == "c1"


def test_an_answer_that_the_sdk_is_too_old_for_is_named_so(server: Misbehaving) -> None:
    said = {"id": "0" * 64, "parents": [], "committer": "", "message": "", "creation_date": 1, "meta_range_id": ""}
    server.treat = answering(200, json.dumps({**said, "version": 99}).encode())
    with pytest.raises(UnavailableError, match="lakefs_sdk cannot read"):
        server.repository(deadline=0.0).get_commit("0" * 64)


def test_files_go_up_and_come_down_in_pieces(server: Misbehaving, tmp_path: Path) -> None:
    size = 64 * _MIB
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(size)
    told = {"path": "p", "path_type": "object", "physical_address": "s3://b/1", "checksum": "c", "mtime": 1}
    server.treat = answering(201, json.dumps({**told, "size_bytes": size}).encode())
    repository = server.repository()
    assert repository._calls.lake is not None  # what importing takes is not counted
    tracemalloc.start()
    try:
        stored = repository.upload("run-1", "p", file, {"digest": "d"}, if_absent=True)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 8 * _MIB
        assert (stored.address, stored.size, stored.metadata) == ("s3://b/1", size, {"digest": "d"})
        headers = server.seen[0][2]
        assert (headers["If-None-Match"], headers["x-lakefs-meta-digest"]) == ("*", "d")

        def pouring(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Length", str(size))
            request.end_headers()
            for _ in range(size // _MIB):
                request.wfile.write(bytes(_MIB))

        server.treat = pouring
        assert sum(len(piece) for piece in repository.stream("run-1", "p")) == size
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 8 * _MIB
    finally:
        tracemalloc.stop()


def test_a_download_that_breaks_halfway_is_unanswered(server: Misbehaving) -> None:
    server.treat = answering(200, bytes(100), length=1000)
    with pytest.raises(Unanswered) as broken:
        list(server.repository().stream("run-1", "p"))
    assert broken.value.__cause__ is None

"""What a Celery deployment stands on: PostgreSQL and Redis, real ones, for as long as a test needs them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from include.local import processes
from tests.servers.folders import open_to_all

_SECONDS = 30.0


def _initdb() -> Path | None:
    """PostgreSQL's initdb; Debian keeps it off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve()
    return max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)


_absent = [name for name, found in (("redis-server", shutil.which("redis-server")), ("initdb", _initdb())) if not found]
needs_celery_backing = pytest.mark.skipif(
    bool(_absent), reason=f"not on this machine: {', '.join(_absent)} (apt-get install redis-server postgresql)"
)


def _wait(server: subprocess.Popen[bytes], answers: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            answers()
        except (psycopg.OperationalError, redis.ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{server.args}: exit code {server.poll()}\n{log.read_text()[-2000:]}")


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; its SQLAlchemy URL. It refuses to run as root, so root runs it as somebody else."""
    initdb = _initdb()
    assert initdb is not None
    who = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    port, claim = processes.claim_port(25432)
    with claim, tempfile.TemporaryDirectory(prefix="overnight-postgres-", dir=open_to_all()) as folder:
        root, word = Path(folder), secrets.token_urlsafe(16)
        (root / "word").write_text(word)
        if who:
            for path in (root, root / "word"):
                shutil.chown(path, "nobody", "nogroup")
        data = root / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "airflow", "-A", "scram-sha-256", "--pwfile", root / "word", "--no-sync"],
            check=True,
            cwd=root,
            capture_output=True,
            timeout=_SECONDS,
            **who,
        )
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(
                # What a test writes need not survive a power cut.
                [
                    initdb.with_name("postgres"),
                    "-D",
                    data,
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "-k",
                    root,
                    "-c",
                    "fsync=off",
                ],
                cwd=root,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509 (short, and before any thread of the child)
                **who,
            )
        try:
            where = f"airflow:{word}@127.0.0.1:{port}/postgres"
            _wait(server, lambda: psycopg.connect(f"postgresql://{where}", connect_timeout=2).close(), root / "log")
            yield f"postgresql+psycopg2://{where}"
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for clients
            server.wait(_SECONDS)


@contextmanager
def broker() -> Iterator[str]:
    """A Redis server that keeps nothing on disk; its URL."""
    port, claim = processes.claim_port(26379)
    with claim, tempfile.TemporaryDirectory(prefix="overnight-redis-") as folder:
        word, root = secrets.token_urlsafe(16), Path(folder)
        (root / "redis.conf").write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {word}\nsave ""\nappendonly no\ndir {root}\n'
        )
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(
                ["redis-server", root / "redis.conf"],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509 (as above)
            )
        url = f"redis://:{word}@127.0.0.1:{port}/0"
        try:
            _wait(server, lambda: redis.Redis.from_url(url).ping(), root / "log")
            yield url
        finally:
            server.terminate()
            server.wait(_SECONDS)

"""Shards on a Ray cluster, or on one that is started on this machine for the run.

The driver is a process of its own (`ray_driver`), so that whatever becomes of the cluster ends as an error here. Only
addresses and paths travel; a worker has its secrets in its own environment. What a run that was killed had finished
lies in its folder, whole, and is not done again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipelines.backends.ray_pieces import forget, kept
from pipelines.backends.ray_worker import raised
from pipelines.errors import UnavailableError, explain
from pipelines.ports import ShardJob
from pipelines.records import Piece

_log = logging.getLogger(__name__)
#: What runs the driver; the path of its request is added.
_PROGRAM = (sys.executable, "-m", "pipelines.backends.ray_driver")
_PREFIX, _LOCK = "overnight-ray-", "lock"
_POLL = 0.5
#: Seconds that a driver which has finished may take to leave its cluster: 0.3 on a quiet machine.
_FAREWELL = 30.0
_TAIL = 800
#: Paths of Ray's sockets are this much longer than its folder, and may have 107 characters.
_LONGEST = 107 - 75


class RayPool:
    """`ShardPool` on Ray."""

    def __init__(self, address: str | None, function: str, *, cpus: float = 1.0, patience: float = 60.0) -> None:
        """Connects to nothing yet.

        Args:
            address: host:port of the cluster's head; None starts a cluster of this machine for each run.
            function: `module:name` of what scores a shard, see `pipelines.shard_worker.score`.
            cpus: processors that a shard is given.
            patience: seconds that the cluster may take to answer.
        """
        self._address = address
        self._function = function
        self._cpus = cpus
        self._patience = patience

    def run(self, job: ShardJob, artifact: Path, out: Path) -> list[Piece]:  # noqa: D102
        forget(out.parent)
        done = {shard: piece for shard in job.plan.shards if (piece := kept(out, shard)) is not None}
        missing = [shard for shard in job.plan.shards if shard not in done]
        if done:
            _log.info("%d of %d shards are there already", len(done), len(job.plan.shards))
        if missing:
            asked = {
                "address": self._address,
                "function": self._function,
                "cpus": self._cpus,
                "patience": self._patience,
                "parallel": job.spec.scoring.parallel,
                "spec": job.spec.model_dump_json(),
                "plan": job.plan.model_dump_json(exclude={"shards"}),
                "shards": [shard.model_dump_json() for shard in missing],
                "settings": dict(job.settings),
                "digest": job.plan.model.digest,
                "artifact": str(artifact),
                "out": str(out),
            }
            out.mkdir(parents=True, exist_ok=True)
            self._drive(asked)
        pieces = [done.get(shard) or kept(out, shard) for shard in job.plan.shards]
        if None in pieces:
            raise UnavailableError(explain(str(out), "pieces vanished while the run went on", remedy="run it again"))
        return [piece for piece in pieces if piece is not None]

    def _drive(self, asked: Mapping[str, Any]) -> None:
        with ExitStack() as held:
            folder = held.enter_context(_folder())
            request = folder / "request.json"
            request.write_text(json.dumps(asked), "utf-8")
            words = held.enter_context((folder / "words.txt").open("wb"))
            driver = subprocess.Popen(
                [*_PROGRAM, str(request)],
                # Its end tells the driver of ours, however that came.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                encoding="utf-8",
                errors="replace",
                # Ray ends its processes by their group.
                start_new_session=True,
                env=_environment(folder, self._address),
            )
            held.callback(_stop, driver)
            verdict = self._follow(driver)
            if "finished" in verdict:
                # All pieces are here: what they are for need not wait until Ray has said goodbye to its cluster.
                threading.Thread(target=_see_off, args=(driver, held.pop_all()), name="ray-farewell").start()
                return
            said = (folder / "words.txt").read_text("utf-8", errors="replace").strip()[-_TAIL:]
            raise _error(verdict, driver.returncode, said)

    def _follow(self, driver: subprocess.Popen[str]) -> dict[str, Any]:
        """Waits until the driver has finished or ends; gives what it said of it."""
        assert driver.stdout is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(driver.stdout, lines), daemon=True).start()
        begun, connected = time.monotonic(), False
        verdict: dict[str, Any] = {}
        while True:
            try:
                line = lines.get(timeout=_POLL)
            except queue.Empty:
                if not connected and time.monotonic() - begun > self._patience:
                    _kill(driver)
                    where = f"Ray at {self._address}" if self._address else "Ray on this machine"
                    what = f"it did not answer within {self._patience:g} s"
                    raise UnavailableError(explain(where, what, remedy="look at the cluster's head")) from None
                continue
            if line is None:
                driver.wait()
                return verdict
            told = _values(line)
            connected = connected or "connected" in told
            if "finished" in told:
                return told
            if "error" in told or "trace" in told:
                verdict |= told
            if "lost" in told:
                _log.warning(told["lost"])
            if "kept" in told:
                _log.info("shard %s is scored", told["kept"])


def _environment(folder: Path, address: str | None) -> dict[str, str]:
    """The driver's: no usage statistics; a cluster of its own is protected by a token that nobody else knows."""
    own = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    own.pop("RAY_ADDRESS", None)
    if address is None:
        import secrets

        own |= {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return own


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for a run, Ray's own files included. What runs that were killed have left is removed first."""
    root = Path(_short() or tempfile.gettempdir())
    for left in root.glob(f"{_PREFIX}*"):
        with suppress(OSError), (left / _LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as the run's process lives
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    with (folder / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _short() -> str | None:
    """A folder whose name leaves room for Ray's sockets."""
    return None if len(tempfile.gettempdir()) < _LONGEST - len(f"/{_PREFIX}12345678") else "/tmp"  # noqa: S108


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _values(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        told = json.loads(line)
        if isinstance(told, dict):
            return told
    return {}  # a library printed something


def _see_off(driver: subprocess.Popen[str], held: ExitStack) -> None:
    """Waits until a driver has gone, and lets go of its folder."""
    with held, suppress(subprocess.TimeoutExpired):
        driver.wait(_FAREWELL)


def _stop(driver: subprocess.Popen[str]) -> None:
    _kill(driver)
    for pipe in (driver.stdin, driver.stdout):
        assert pipe is not None
        pipe.close()


def _kill(driver: subprocess.Popen[str]) -> None:
    """Its whole group: a cluster that it started is in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


def _error(verdict: Mapping[str, Any], code: int, said: str) -> Exception:
    if "error" in verdict:
        return raised(verdict)
    if "trace" in verdict:
        return RuntimeError(f"a shard failed:\n{verdict['trace']}")
    return UnavailableError(
        explain("Ray's driver", f"it ended with code {code}: {said}", remedy="look at the cluster; run it again")
    )

"""Several training processes on this machine, by torchrun, seen from the process that wants the result."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pipelines import errors
from pipelines.errors import InterruptedTraining, OvernightError, UnavailableError, explain
from pipelines.ports import OnProgress
from pipelines.training.job import Job
from pipelines.training.signals import Stop, end_with_parent

#: Seconds that processes have for their checkpoint once they were told to stop.
_GRACE = 60.0
_POLL = 0.2
_WORDS = 20


def run(job: Job, processes: int, on_progress: OnProgress, stop: Stop) -> None:
    """Trains a job in so many processes; returns when the artifact is complete.

    The processes and their launcher are a process group of their own, and speak to each other over loopback. None of
    them outlives this call, nor this process.

    Raises:
        OvernightError: what a process raised, with its text.
        InterruptedTraining: `stop` said so.
        UnavailableError: a process died without a word of ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(job.spec.model_dump_json(), "utf-8")
        launcher = subprocess.Popen(
            [*_launcher(processes), *_arguments(job, spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call)
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"},
        )
        try:
            verdict, words = _follow(launcher, on_progress, stop)
        finally:
            _kill(launcher)
    if launcher.returncode != 0:
        raise _error(launcher.returncode, verdict, words, stop())


def _launcher(processes: int) -> list[str]:
    alone = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    return [sys.executable, "-m", "torch.distributed.run", *alone]


def _arguments(job: Job, spec: Path) -> list[str]:
    arguments = ["-m", "pipelines.training", "--spec", str(spec), "--data", str(job.data), "--out", str(job.out)]
    if job.checkpoints:
        arguments += ["--checkpoints", str(job.checkpoints)]
    return [*arguments, "--threads", str(job.threads)] if job.threads else arguments


def _follow(
    launcher: subprocess.Popen[str], on_progress: OnProgress, stop: Stop
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """Passes progress on until the launcher ends; gives the first error that a process told, and the last words."""
    assert launcher.stdout is not None
    assert launcher.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    words: deque[str] = deque(maxlen=_WORDS)
    readers = [
        threading.Thread(target=_read, args=(launcher.stdout, lines), daemon=True),
        threading.Thread(target=_relay, args=(launcher.stderr, words), daemon=True),
    ]
    for reader in readers:
        reader.start()
    verdict: Mapping[str, Any] | None = None
    told, patience = False, _GRACE
    while True:
        try:
            line = lines.get(timeout=_POLL)
        except queue.Empty:
            patience -= _POLL if told else 0.0
            if patience <= 0:
                os.killpg(launcher.pid, signal.SIGKILL)
                patience = _GRACE
            line = ""
        if stop() and not told:
            told = True
            launcher.terminate()  # The launcher tells its processes.
        if line is None:
            break
        if values := _values(line):
            if "error" in values:
                verdict = verdict or values
            else:
                on_progress(values)
    launcher.wait()
    for reader in readers:
        reader.join()
    return verdict, list(words)


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _relay(stream: IO[str], words: deque[str]) -> None:
    for line in stream:
        sys.stderr.write(line)
        if line.strip():
            words.append(line.strip())


def _values(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None  # A library printed something.
    return values if isinstance(values, dict) else None


def _error(code: int, verdict: Mapping[str, Any] | None, words: list[str], told: bool) -> OvernightError:
    if verdict is not None:
        kind = getattr(errors, str(verdict["error"]), OvernightError)
        if isinstance(kind, type) and issubclass(kind, OvernightError):
            return kind(str(verdict["message"]))
    if told:
        return InterruptedTraining(
            explain("training", "its processes were told to stop and ended without a checkpoint")
        )
    return UnavailableError(
        explain(
            "training",
            f"a process died (exit code {code}); last words: {' | '.join(words)}",
            remedy="the same call goes on from the last checkpoint",
        )
    )


def _kill(launcher: subprocess.Popen[str]) -> None:
    try:
        os.killpg(launcher.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    launcher.wait()

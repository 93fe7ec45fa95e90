"""Small tools for processes: which one is meant, who dies with whom, and which port is free."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """Asks the kernel to send SIGTERM to this process when its parent ends, however it ends (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Makes this process the parent of grandchildren whose own parent ends, so that none escapes (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def started(pid: int) -> str | None:
    """When a process began (an opaque text), or None when there is none: pids are used again, this is not.

    A process that has ended and is only waiting to be reaped counts as none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def is_running(pid: int, since: str) -> bool:
    """Whether this very process is still running."""
    return started(pid) == since


def descendants(of: int) -> list[int]:
    """Every process below `of`, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in ("Z", "X"):
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [of]
    while todo:
        children = parents.get(todo.pop(0), [])
        found += children
        todo += children
    return found


def signal_all(pids: Iterable[int], which: signal.Signals) -> None:
    """Sends a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, which)


def stop_descendants(of: int, patience: float) -> None:
    """Ends everything below `of`: the nearest are asked, and what is left after `patience` seconds is killed."""
    nearest = [pid for pid in descendants(of) if os.getpgid(pid) == pid]
    signal_all(nearest, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and descendants(of):
        reap()
        time.sleep(0.05)
    while left := descendants(of):
        signal_all(left, signal.SIGKILL)
        time.sleep(0.05)
        reap()


def reap() -> list[int]:
    """Collects ended children; returns their pids."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended.append(pid)
    return ended


def claim_port(preferred: int, tries: int = 200) -> tuple[int, socket.socket]:
    """The preferred loopback port, or the next one that is free, and the claim on it: to be kept open, not used.

    A server binds its port seconds after the port was chosen. Whoever claims one meanwhile passes this one over,
    because the claim is the UDP port of the same number: one process at a time can have it, of whichever checkout or
    user, and the kernel takes it back however that process ends.

    Raises:
        OSError: none of the next `tries` ports is free.
    """
    for port in range(preferred, preferred + tries):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            return port, claim
    raise OSError(f"no free port on 127.0.0.1 from {preferred} to {preferred + tries - 1}; free one and try again")

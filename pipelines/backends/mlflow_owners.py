"""Who is writing something in MLflow, and whether they still are: what a dead writer left may be removed.

A mark says which process of which machine wrote it, and when. On the same machine a process is looked up, so that what
a killed one left is known at once; of another machine only age tells.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Registering takes seconds, and MLflow's own patience minutes.
GRACE_SECONDS = 24 * 3600.0
_ACTIVE: set[str] = set()


@contextmanager
def writing() -> Iterator[str]:
    """A mark for what this call writes; afterwards the mark counts as a dead writer's."""
    mark = f"{_machine()}:{os.getpid()}:{_started(os.getpid())}:{int(time.time())}:{secrets.token_hex(8)}"
    _ACTIVE.add(mark)
    try:
        yield mark
    finally:
        _ACTIVE.discard(mark)


def abandoned(mark: str | None, created: float, mine: str | None = None) -> bool:
    """Whether nobody is writing what has this mark any more.

    Args:
        mark: what `writing` gave; None where there is none.
        created: when that was made, seconds since the epoch, by MLflow's clock.
        mine: the mark of whoever asks, which counts as abandoned.
    """
    if mark is not None and mark == mine:
        return True
    parts = (mark or "").split(":")
    if len(parts) != 5 or parts[0] != _machine() or parts[0] == "":
        return time.time() - created > GRACE_SECONDS
    if parts[1:3] == [str(os.getpid()), _started(os.getpid())]:
        return mark not in _ACTIVE
    return _started(int(parts[1])) != parts[2]


def _machine() -> str:
    """This boot and this process namespace, in which a process id means one process; empty where nobody can say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""

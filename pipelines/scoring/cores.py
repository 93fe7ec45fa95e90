"""How many cores this process may keep busy: its affinity, and the CPU quota of its cgroup and of those above it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNT, _SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(mount: Path = _MOUNT, membership: Path = _SELF) -> int:
    """Cores that this process may use, 1 at least.

    A quota of 1.5 cores counts as 2: a second thread uses the half that one thread would leave.

    Args:
        mount: where the cgroup file system is.
        membership: what `/proc/self/cgroup` says: one line a hierarchy, `number:controllers:path`.
    """
    cores = len(os.sched_getaffinity(0))
    quota = min(_quotas(mount, membership), default=math.inf)
    return cores if quota >= cores else max(1, math.ceil(quota))


def _quotas(mount: Path, membership: Path) -> Iterator[float]:
    """Every quota that holds for this process, in cores: the tightest one counts, however far up it was set."""
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: all controllers in one hierarchy; beside version 1 it is mounted at unified/
            roots, read = (mount, mount / "unified"), _version2
        elif "cpu" in controllers.split(","):
            roots, read = (mount / controllers, mount / "cpu"), _version1
        else:
            continue
        root = next((root for root in roots if root.is_dir()), mount)
        # Inside a container the mount may begin at the container's own group, and its path is the host's: then the
        # folders of the path are not there, and the root's own files are what holds.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (quota := read(folder)) is not None:
                yield quota


def _version2(folder: Path) -> float | None:
    """`cpu.max` is "<quota or max> <period>", both in microseconds."""
    quota, _, period = _line(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _version1(folder: Path) -> float | None:
    """A quota of -1 is none."""
    return _ratio(_line(folder / "cpu.cfs_quota_us"), _line(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _line(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return ""

"""What this process may use of the machine: cores by its affinity and CPU quota, memory by what is free and its limit.

Control groups hold with all those above them: the tightest counts, however far up it was set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNT, _SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(mount: Path = _MOUNT, membership: Path = _SELF) -> int:
    """Cores that this process may keep busy, 1 at least.

    A quota of 1.5 cores counts as 2: a second thread uses the half that one thread would leave.

    Args:
        mount: where the cgroup file system is.
        membership: what `/proc/self/cgroup` says: one line a hierarchy, `number:controllers:path`.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = (_quota(folder, version) for folder, version in _groups("cpu", mount, membership))
    quota = min((found for found in quotas if found is not None), default=math.inf)
    return cores if quota >= cores else max(1, math.ceil(quota))


def available_memory(mount: Path = _MOUNT, membership: Path = _SELF) -> int:
    """Bytes that this process may still take: the machine's, or less where a control group says so."""
    left = (_left(folder, version) for folder, version in _groups("memory", mount, membership))
    return max(0, min([_free(), *(found for found in left if found is not None)]))


def _groups(controller: str, mount: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """Folders of the process's group and of those above it, with the version of the hierarchy (1 or 2)."""
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: all controllers in one hierarchy; beside version 1 it is mounted at unified/
            roots, version = (mount, mount / "unified"), 2
        elif controller in controllers.split(","):
            roots, version = (mount / controllers, mount / controller), 1
        else:
            continue
        root = next((root for root in roots if root.is_dir()), mount)
        # Inside a container the mount may begin at the container's own group, and its path is the host's: then the
        # folders of the path are not there, and the root's own files are what holds.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield folder, version


def _quota(folder: Path, version: int) -> float | None:
    """In cores. Version 2: `cpu.max` is "<quota or max> <period>"; version 1: two files, a quota of -1 is none."""
    if version == 2:
        quota, _, period = _line(folder / "cpu.max").partition(" ")
    else:
        quota, period = _line(folder / "cpu.cfs_quota_us"), _line(folder / "cpu.cfs_period_us")
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _left(folder: Path, version: int) -> int | None:
    """In bytes. Pages of files count as used, and are given up when memory is asked for."""
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limit, used = (_line(folder / name) for name in names)
    if not (limit.isdigit() and used.isdigit()):
        return None
    reclaimable = "inactive_file " if version == 2 else "total_inactive_file "
    cached = [line.split()[1] for line in _text(folder / "memory.stat").splitlines() if line.startswith(reclaimable)]
    return int(limit) - int(used) + sum(map(int, cached))


def _free() -> int:
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _line(file: Path) -> str:
    return _text(file).strip()


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""

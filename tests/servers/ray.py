"""A Ray cluster of two nodes on this machine, a processor each, for the tests of a module."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cases import REPOSITORY

_MEMORY = 80 * 2**20
#: Seconds, where machines are shared.
_PATIENCE = 240


class Nodes:
    """The cluster; it can lose nodes and get others."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._count = 1
        self._cluster = Cluster()
        self._cluster.add_node(wait=False, **self._options(), include_dashboard=False, include_log_monitor=False)
        self.second = self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        """Another node."""
        self.second = self._cluster.add_node(wait=False, **self._options())
        self._cluster.wait_for_nodes(_PATIENCE)
        return self.second

    def remove(self, *, gracefully: bool = True) -> None:
        """Takes away the node that came last."""
        self._cluster.remove_node(self.second, allow_graceful=gracefully)

    def workers(self) -> list[psutil.Process]:
        """Worker processes of the cluster that run or have run a task."""
        return [process for process in processes(self.folder) if process.name().startswith("ray::")]

    def stop(self) -> None:
        self._cluster.shutdown()

    def _options(self) -> dict[str, Any]:
        self._count += 1
        # 127.0.0.1 would be taken for the machine's own address.
        return {"num_cpus": 1, "object_store_memory": _MEMORY, "node_ip_address": f"127.0.0.{self._count}"}


def processes(folder: Path) -> list[psutil.Process]:
    """Every process that works in a folder of Ray's, by its command line, and what those have started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                # Agents and workers have a title in the place of their command line.
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def alive(those: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run; one that is dead and not buried does not."""
    found = []
    for process in those:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextmanager
def two_nodes(**environment: str) -> Iterator[Nodes]:
    """Starts the cluster, with these variables in its workers' environment, and stops it.

    Its ports are open on every interface, as Ray has it; nobody gets in without the token.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",  # where machines are shared
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "PYTHONPATH": str(REPOSITORY),
            "OVERNIGHT_HOME": str(folder / "worker-home"),
            **environment,
        }.items():
            patch.setenv(name, value)
        nodes = None
        try:
            nodes = Nodes(folder)
            patch.delenv("OVERNIGHT_HOME")
            yield nodes
        finally:
            if nodes is not None:
                nodes.stop()
            for process in processes(folder):  # of a start that failed half-way
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)

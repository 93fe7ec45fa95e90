"""Processes that publish and may be killed at any moment. They fork from a server that has imported what they need.

A new interpreter takes a second or two to import Polars and Delta Lake; a fork takes some milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.contracts.stores import open_store
from tests.faults.harness import publish

#: Imported once, and never used before a fork: what a publish needs.
_PRELOADED = ["tests.faults.harness", "botocore.config", "botocore.client", "polars", "deltalake", "urllib3"]


def values(number: int) -> tuple[float, ...]:
    """The rows of one publish: how many they are, and what, follows from its number."""
    return (float(number),) * (1 + number % 3)


def pair(number: int, *, same_key: bool) -> dict[str, tuple[float, ...]]:
    """Two partitions that change in one commit, or not at all."""
    key = "all" if same_key else f"{number:03d}"
    return {f"{key}-a": values(number), f"{key}-b": values(number)}


class Worker:
    """A process that publishes pairs, one after the other."""

    def __init__(self, backend: str, root: Path, numbers: Sequence[int], *, same_key: bool = False) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._said, says = context.Pipe(duplex=False)
        arguments = (backend, root, list(numbers), same_key, dict(os.environ), says)
        self._process: ForkServerProcess = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        says.close()
        self._said.recv()  # it stands before its first publish

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is cleaned up."""
        self._process.kill()
        self._process.join()

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself in this time."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def finish(self) -> None:
        """Waits for its end, which must be a good one."""
        self._process.join()
        assert self._process.exitcode == 0


def _work(
    backend: str, root: Path, numbers: list[int], same_key: bool, environment: dict[str, str], says: Connection
) -> None:
    os.environ.update(environment)
    store = open_store(backend, root)
    store.head("rows")
    says.send("ready")
    for number in numbers:
        publish(store, pair(number, same_key=same_key))

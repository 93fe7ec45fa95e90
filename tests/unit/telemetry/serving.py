"""An exporter of this process, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.runtime import Runtime
from pipelines.telemetry.exporter import Exporter
from pipelines.telemetry.look import look
from pipelines.telemetry.readings import Look
from tests.scrapes import parsed, scrape, values

PATIENCE = 30.0


def wait(asked: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not asked():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def fresh(runtime: Runtime) -> Look:
    """A look with nothing in memory, as the command takes it."""
    return look(Runtime(runtime.spec, runtime.settings, runtime.run))


@contextmanager
def serving(names: tuple[str, ...], looking: Callable[[str], Look], every: float = 0.1) -> Iterator[str]:
    exporter = Exporter(names, looking, every=every)
    url = exporter.start("127.0.0.1", 0)
    try:
        yield url
    finally:
        exporter.stop()


def success(url: str) -> dict[str, float]:
    return values(parsed(scrape(url)), "overnight_read_success", by="use_case")

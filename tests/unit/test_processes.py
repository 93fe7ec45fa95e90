"""Processes that score shards keep to their share of the cores."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from pipelines import processes
from pipelines.machine import usable_cores

if TYPE_CHECKING:
    import pytest


def test_each_process_has_its_share_and_one_core_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 8)
    assert [processes.share(count) for count in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


def test_shares_lie_beside_each_other_as_long_as_there_are_cores() -> None:
    """In processes of their own: a process that has settled stays there."""
    context = multiprocessing.get_context("spawn")
    places, found = context.Value("i", 0), context.Queue()
    for _ in range(3):
        child = context.Process(target=_settled, args=(places, found))
        child.start()
        child.join(60)
        assert child.exitcode == 0
    cores = sorted(os.sched_getaffinity(0))
    expected = [[cores[place % len(cores)]] for place in range(3)]
    assert [found.get(timeout=5) for _ in range(3)] == [(mine, 1) for mine in expected]
    assert sorted(os.sched_getaffinity(0)) == cores, "whoever started them has all"


def _settled(places: object, found: object) -> None:
    processes._settle(places, 1)  # type: ignore[arg-type]
    found.put((sorted(os.sched_getaffinity(0)), usable_cores()))  # type: ignore[attr-defined]

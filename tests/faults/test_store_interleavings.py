"""Runs that publish the same partition at the same time, in every order in which their steps can come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.stores import content, open_store, put
from tests.faults.interleave import COMMIT, PREPARE, STAGE, VERIFY, Stage, interleavings, predicted

_LOCAL = ("delta", "lakefs")


def test_the_interleavings_are_complete() -> None:
    assert interleavings(2, 2) == [(0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0)]
    assert len(interleavings(2, 4)) == 70 / 2
    assert len(interleavings(3, 2)) == 90 / 6


@pytest.mark.parametrize("found", ["no table", "no such partition", "a partition"])
def test_of_two_publishers_those_win_whose_base_is_still_there(
    backend: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (STAGE, VERIFY, PREPARE, COMMIT) if backend in _LOCAL else (STAGE, PREPARE, COMMIT)
    _play(backend, found, 2, steps, tmp_path, monkeypatch)


def test_of_three_publishers_those_win_whose_base_is_still_there(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(backend, "a partition", 3, (PREPARE, COMMIT), tmp_path, monkeypatch)


def _play(
    backend: str, found: str, publishers: int, steps: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each interleaving has a partition, or a table, of its own, and all are looked at at the end."""
    reader = open_store(backend, tmp_path)
    stage = Stage(monkeypatch, lambda: open_store(backend, tmp_path))
    base = 1.0 if found == "a partition" else None
    values = [float(10 + number) for number in range(publishers)]
    wanted: dict[str, object] = {}
    seen: dict[str, object] = {}
    if found != "no table":
        put(reader, "other", 0)
    orders = interleavings(publishers, len(steps))
    for number, order in enumerate(orders):
        table = f"rows{number}" if found == "no table" else "rows"
        key = f"{number}-{''.join(map(str, order))}"
        if base is not None:
            put(reader, key, base)
        outcomes = stage.play(order, steps, partition=key, values=values, table=table)
        winners = predicted(order, steps, base, values)
        assert "won" in winners
        last = [values[who] for who in order if winners[who] == "won"][-1]
        wanted[key] = winners, [last], winners.count("won") + (base is not None)
        commits = sum(key in commit.partitions for commit in reader.history(table))
        seen[key] = outcomes, content(reader, table).get(key), commits
    assert seen == wanted

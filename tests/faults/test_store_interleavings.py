"""Runs that publish the same partition at the same time, in every order in which their steps can come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.stores import open_store, put
from tests.faults.interleave import COMMIT, PREPARE, STAGE, VERIFY, Stage, interleavings, predicted


def test_the_interleavings_are_complete() -> None:
    assert interleavings(2, 2) == [(0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0)]
    assert len(interleavings(2, 4)) == 70 / 2
    assert len(interleavings(3, 2)) == 90 / 6


_ALL = (STAGE, VERIFY, PREPARE, COMMIT)
#: A server takes its time: there, every order of every step once; and what lies on S3 has the same code before it.
_TWO = [
    *(("delta", found, _ALL) for found in ("no table", "no part", "a part")),
    ("lakefs", "a part", _ALL),
    *(("lakefs", found, (STAGE, PREPARE, COMMIT)) for found in ("no table", "no part")),
    *((backend, found, (PREPARE, COMMIT)) for backend in ("delta-s3", "lakefs-s3") for found in ("no table", "a part")),
]


@pytest.mark.parametrize(
    ("backend", "found", "steps"),
    _TWO,
    ids=lambda value: str(len(value)) if isinstance(value, tuple) else value,
    indirect=["backend"],
)
def test_of_two_publishers_those_win_whose_base_is_still_there(
    backend: str, found: str, steps: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(backend, found, 2, steps, tmp_path, monkeypatch)


@pytest.mark.parametrize("backend", ["delta", "lakefs"], indirect=True)
def test_of_three_publishers_those_win_whose_base_is_still_there(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(backend, "a part", 3, (PREPARE, COMMIT), tmp_path, monkeypatch)


def _play(
    backend: str, found: str, publishers: int, steps: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each interleaving has a partition, or a table, of its own, and all are looked at at the end."""
    reader = open_store(backend, tmp_path)
    stage = Stage(monkeypatch, lambda: open_store(backend, tmp_path))
    base = 1.0 if found == "a part" else None
    values = [float(10 + number) for number in range(publishers)]
    wanted: dict[str, tuple[list[str], list[float], int]] = {}
    seen: dict[str, tuple[list[str | None], list[float], str]] = {}
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
        head = reader.head(table)
        assert head is not None
        rows = reader.scan(head, [key], ["value"]).collect().get_column("value").to_list()
        seen[key] = outcomes, rows, table
    history = {table: reader.history(table) for table in {table for _, _, table in seen.values()}}
    commits = {key: sum(key in commit.partitions for commit in history[seen[key][2]]) for key in seen}
    assert {key: (*seen[key][:2], commits[key]) for key in seen} == wanted

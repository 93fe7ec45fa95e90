"""Pieces of scores: whole or not there, and gone when nobody needs them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.steps import pieces

NOW = datetime(2024, 6, 2, tzinfo=UTC)


def write(path: Path, age: timedelta) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"scores")
    for each in (path, path.parent):
        os.utime(each, ((NOW - age).timestamp(),) * 2)


def test_a_piece_that_was_not_written_to_its_end_is_not_there_and_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with pieces.writing(tmp_path / "plan" / "a.parquet", "uc") as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list((tmp_path / "plan").iterdir()) == []


def test_of_two_attempts_at_a_piece_none_writes_into_the_others_file(tmp_path: Path) -> None:
    piece = tmp_path / "plan" / "a.parquet"
    with pieces.writing(piece, "uc") as first:
        first.write_bytes(b"whole")
        with pieces.writing(piece, "uc") as second:
            second.write_bytes(b"whole too")
        assert piece.read_bytes() == b"whole too"
    assert piece.read_bytes() == b"whole"
    assert list(piece.parent.iterdir()) == [piece]


def test_pieces_of_dead_plans_are_swept_whole_and_those_that_grow_are_left(tmp_path: Path) -> None:
    write(tmp_path / "dead" / "a.parquet", timedelta(days=3))
    write(tmp_path / "dead" / "b.0011.tmp", timedelta(days=2))
    write(tmp_path / "growing" / "a.parquet", timedelta(days=3))
    write(tmp_path / "growing" / "b.parquet", timedelta(hours=1))
    before = NOW - timedelta(days=1)
    assert pieces.sweep(tmp_path, before) == [str(tmp_path / "dead")]
    assert len(list(tmp_path.rglob("*.*"))) == 4, "a dry run"
    assert pieces.sweep(tmp_path, before, dry_run=False) == [str(tmp_path / "dead")]
    assert {path.name for path in tmp_path.rglob("*")} == {"growing", "a.parquet", "b.parquet"}
    assert pieces.sweep(tmp_path / "nowhere", NOW) == []

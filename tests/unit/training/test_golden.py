"""The numbers of a fixed training stay what they were; see golden.py for how to write them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import golden
from .conftest import TASKS

#: Instructions of another processor round otherwise: plain SSE against AVX-512 differed by less than 1e-6.
_TOLERANCE = 1e-4


@pytest.mark.parametrize("task", TASKS)
def test_the_losses_are_the_kept_ones_and_the_same_bits_a_second_time(task: str, tmp_path: Path) -> None:
    first = golden.curves(task, tmp_path / "first")
    kept = json.loads(golden.KEPT.read_text("utf-8"))[task]
    assert [row.keys() for row in first] == [row.keys() for row in kept]
    for row, expected in zip(first, kept, strict=True):
        assert row == pytest.approx(expected, rel=_TOLERANCE)
    assert golden.curves(task, tmp_path / "second") == first
    for name in ("teacher.safetensors", "student.safetensors"):
        one, two = ((tmp_path / run / "out" / name).read_bytes() for run in ("first", "second"))
        assert one == two

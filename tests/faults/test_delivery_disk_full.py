"""A disk that is full at one point after the other of a delivery of files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.test_store_disk_full import _ROOT, small_disk


def test_a_full_disk_leaves_whole_partitions_and_says_so_and_the_same_call_succeeds_when_there_is_room(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    command = [*small_disk(disk), sys.executable, "-m", "tests.faults.full_disk_delivery", str(disk), str(tmp_path)]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    attempts: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(attempts) == 32
    for each in attempts:
        assert each["files"] == ["_SUCC", "manif", "part-"], each
        if each["failed"] is None:
            assert each["state"] == "unchanged", each
            continue
        assert each["failed"] == "UnavailableError", each
        assert "disk is full" in each["said"], each
        assert each["whole"], each
    for kind in ("parquet", "csv"):
        for room in ("pages", "files"):
            some = [each for each in attempts if each["format"] == kind and room in each["room"]]
            assert {each["failed"] for each in some} == {"UnavailableError", None}
        # Nothing is different where the file itself found no room.
        assert any(each["unchanged"] for each in attempts if each["format"] == kind and each["failed"])

"""A disk that is full at one point after the other of a night's scoring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nights import Nights
from tests.faults.test_store_disk_full import _ROOT, small_disk


@pytest.mark.timeout(300)
def test_a_full_disk_changes_no_score_and_says_so_and_the_same_night_succeeds_when_there_is_room(
    made_nights: Nights, tmp_path: Path
) -> None:
    nights = made_nights.copy(tmp_path, scoring={"shard_rows": 1000})
    disk = tmp_path / "disk"
    command = [*small_disk(disk, "size=24m,nr_inodes=3000"), sys.executable, "-m", "tests.faults.scores_full_disk"]
    where = [str(nights.champions.project), str(nights.home), str(disk)]
    ran = subprocess.run([*command, *where], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    attempts: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines()]
    for each in attempts:
        assert each["rows"] == 3000, each
        assert each["commits"] == 1, each
        if each["failed"]:
            assert each["unchanged"], each
            assert each["error"] == "UnavailableError", each
            assert "the disk is full (ENOSPC). Remedy: free some space and run it again." in each["said"], each
            assert each["left"] == [], each
    for shards in (False, True):
        for room in ("pages", "files"):
            found = {each["failed"] for each in attempts if room in each["room"] and each["shards"] == shards}
            assert found == {True, False}, (shards, room)

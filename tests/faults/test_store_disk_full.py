"""A disk that is full at one point after the other of a publish."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SIZE = "size=4m,nr_inodes=1000"
#: A mount namespace of its own: the small disk goes when its last process ends.
_IN_SMALL_DISK = f'mount -t tmpfs -o {_SIZE} overnight "$0" && exec "$@"'


def small_disk(folder: Path) -> list[str]:
    """The beginning of a command that sees a disk of 4 MiB at `folder`."""
    folder.mkdir()
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", _IN_SMALL_DISK, str(folder)]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()[-200:]}")
    return command


def test_a_full_disk_changes_nothing_and_says_so_and_the_same_call_succeeds_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    command = [*small_disk(disk), sys.executable, "-m", "tests.faults.full_disk", str(disk)]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    attempts: list[dict[str, Any]] = json.loads(ran.stdout)
    failed = [each for each in attempts if each["failed"]]
    for each in attempts:
        assert each["rows"], each
        assert each["commits"] == 1, each
    for each in failed:
        assert each["unchanged"], each
        assert each["error"] == "UnavailableError", each
        assert "the disk is full" in each["said"], each
    for room in ("pages", "files"):
        assert {each["failed"] for each in attempts if room in each["room"]} == {"stage", "publish", None}

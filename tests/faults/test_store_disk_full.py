"""A disk that is full at one point after the other of a publish."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.lakefs import SKIPPED

_ROOT = Path(__file__).resolve().parents[2]
_SIZE = "size=4m,nr_inodes=1000"
#: A mount namespace of its own: the small disk goes when its last process ends.
_IN_SMALL_DISK = 'mount -t tmpfs -o "$0" overnight "$1" && shift && exec "$@"'


def small_disk(folder: Path, size: str = _SIZE) -> list[str]:
    """The beginning of a command that sees a disk of 4 MiB, or of another size, at `folder`."""
    folder.mkdir()
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", _IN_SMALL_DISK, size, str(folder)]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()[-200:]}")
    return command


@pytest.mark.parametrize("backend", ["delta", "lakefs"])
def test_a_full_disk_changes_nothing_and_says_so_and_the_same_call_succeeds_when_there_is_room(
    backend: str, tmp_path: Path
) -> None:
    if backend == "lakefs" and shutil.which("lakefs") is None:
        pytest.skip(SKIPPED)
    disk = tmp_path / "disk"
    command = [*small_disk(disk), sys.executable, "-m", "tests.faults.full_disk", backend, str(disk), str(tmp_path)]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    attempts: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines()]
    for each in attempts:
        assert each["rows"], each
        assert each["commits"] == 1, each
        if each["failed"] is not None:
            assert each["unchanged"], each
            assert each["error"] == "UnavailableError", each
            assert "disk is full" in each["said"], each
    for room in ("pages", "files"):
        assert {each["failed"] for each in attempts if room in each["room"]} == {"stage", "publish", None}

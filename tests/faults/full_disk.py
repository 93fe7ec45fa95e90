"""A program that publishes on a small disk which is full at one point after the other, and says what it saw (JSON).

`python -m tests.faults.full_disk <mount point>`; for `test_store_disk_full.py`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import OvernightError
from pipelines.ports import SnapshotStore
from pipelines.records import StagedPartition
from tests.contracts.stores import RUN, audit, open_store, put, stage
from tests.faults.harness import record

#: Enough distinct numbers for a file of several pages: the disk is full in the middle of it, too.
_ROWS = 2000


@contextmanager
def only(disk: Path, *, pages: int | None = None, files: int | None = None) -> Iterator[None]:
    """Leaves so much room on the disk."""
    ballast = disk / "ballast"
    ballast.mkdir()
    if pages is not None:
        found = os.statvfs(disk)
        with (ballast / "bytes").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (found.f_bavail - pages) * found.f_bsize)
    if files is not None:
        for number in range(os.statvfs(disk).f_favail - files):
            (ballast / str(number)).touch()
    try:
        yield
    finally:
        for each in ballast.iterdir():
            each.unlink()
        ballast.rmdir()


def attempt(store: SnapshotStore, disk: Path, number: int, room: dict[str, int]) -> dict[str, Any]:
    """Publishes on the nearly full disk, and again when there is room."""
    before, values = record(store), [float(number * _ROWS + row) for row in range(_ROWS)]
    staged: StagedPartition | None = None
    result: dict[str, Any] = {"room": room, "failed": None}
    with only(disk, **room):
        try:
            staged = stage(store, "2013-01-02", *values)
            store.publish("rows", [staged], [audit(staged)], RUN)
        except OvernightError as error:
            result |= {"failed": "stage" if staged is None else "publish", "error": type(error).__name__}
            result |= {"said": str(error), "unchanged": record(store) == before}
    if result["failed"] is not None:
        staged = staged or stage(store, "2013-01-02", *values)
        store.publish("rows", [staged], [audit(staged)], RUN)
    after = record(store)
    rows = after["rows"] == {"2013-01-01": [1.0], "2013-01-02": values}
    return result | {"rows": rows, "commits": len(after["history"]) - len(before["history"])}


def main(disk: Path) -> None:
    """Fills the disk to each point in turn."""
    store = open_store("delta", disk / "store")
    put(store, "2013-01-01", 1)
    put(store, "2013-01-02", 5)
    rooms = [{"pages": pages} for pages in range(12)] + [{"files": files} for files in range(8)]
    print(json.dumps([attempt(store, disk, number, room) for number, room in enumerate(rooms)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

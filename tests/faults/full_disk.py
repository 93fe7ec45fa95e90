"""A program that publishes on a small disk which is full at one point after the other, and says what it saw (JSON).

`python -m tests.faults.full_disk <backend> <where the small disk is> <a folder on a large one>`, for
`test_store_disk_full.py`. Delta has everything on the small disk, lakeFS the server's blocks.
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
from tests.contracts.stores import RUN, audit, lakefs_store, open_store, put, stage
from tests.faults.harness import record
from tests.servers.lakefs import _serving, _told

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


def attempt(store: SnapshotStore, disk: Path, values: list[float], room: dict[str, int]) -> dict[str, Any]:
    """Publishes on the nearly full disk, and again when there is room."""
    before = record(store)
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


@contextmanager
def opened(backend: str, disk: Path, folder: Path) -> Iterator[SnapshotStore]:
    """A store whose bytes lie on the small disk."""
    if backend == "delta":
        yield open_store(backend, disk / "store")
        return
    blocks = disk / "blocks"
    environment = {"LAKEFS_BLOCKSTORE_TYPE": "local", "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(blocks)}
    with _serving(folder / "server", environment, "local://overnight", str(blocks)) as server, _told(backend, server):
        yield lakefs_store(backend, folder, deadline=0.5)


def main(backend: str, disk: Path, folder: Path) -> None:
    """Fills the disk to each point in turn."""
    rows = _ROWS if backend == "delta" else 1
    rooms = [{"pages": pages} for pages in range(12)] + [{"files": files} for files in range(8)]
    with opened(backend, disk, folder) as store:
        put(store, "2013-01-01", 1)
        put(store, "2013-01-02", 5)
        for number, room in enumerate(rooms):
            values = [float(10 + number * rows + row) for row in range(rows)]
            print(json.dumps(attempt(store, disk, values, room)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

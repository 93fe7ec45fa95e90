"""A program that delivers files to a small disk which is full at one point after the other, and says what it saw.

`python -m tests.faults.full_disk_delivery <where the small disk is> <a folder on a large one>`, for
`test_delivery_disk_full.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipelines.backends.sink_files import FileSink
from pipelines.errors import OvernightError
from tests.cases.handed import DAY, consignment, file_sink, rows
from tests.faults.full_disk import only

#: Enough distinct numbers for a file of several pages: the disk is full in the middle of it, too.
_ROWS = 2000


def _lying(disk: Path) -> dict[str, bytes]:
    folder = disk / "uc" / f"partition={DAY}"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".overnight.lock"}


def attempt(sink: FileSink, disk: Path, number: int, room: dict[str, int]) -> dict[str, Any]:
    """Delivers on the nearly full disk, and again when there is room."""
    sent = consignment(rows(*(1 / (number * _ROWS + row + 1) for row in range(_ROWS))), f"{number:064x}", batch=500)
    before, result = _lying(disk), {"room": room, "failed": None}
    with only(disk, **room):
        try:
            sink.deliver(sent)
        except OvernightError as error:
            manifest = json.loads((disk / "uc" / f"partition={DAY}" / "manifest.json").read_text())
            now = _lying(disk)
            whole = all(now.get(file["name"]) for file in manifest["files"]) and "_SUCCESS" in now
            result |= {"failed": type(error).__name__, "said": str(error), "whole": whole}
            result["unchanged"] = now == before
    done = sink.deliver(sent)
    files = sorted(_lying(disk))
    return result | {"state": done.state, "files": [name[:5] for name in files]}


def main(disk: Path, folder: Path) -> None:
    """Fills the disk to each point in turn."""
    rooms = [{"pages": pages} for pages in (*range(6), 10, 16, 24, 40, 64)] + [{"files": files} for files in range(5)]
    for kind in ("parquet", "csv"):
        sink = file_sink(disk, folder / "cache", format=kind)
        sink.deliver(consignment(rows(0.1), kind[0]))
        for number, room in enumerate(rooms):
            print(json.dumps({"format": kind, **attempt(sink, disk, number, room)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

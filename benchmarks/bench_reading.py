"""Reading and publishing as a table grows: the cost must be that of the partition, not of the table.

The limit is the small table's own figure. Prediction, written before measuring: a snapshot's list of 1,000 partitions
is one checkpoint of the log, some milliseconds more than a list of 10; memory is that of one partition's rows.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, publish, seconds
from pipelines.backends.delta import DeltaStore
from pipelines.ports import Draft, SnapshotStore

_ROWS, _COLUMNS = 100_000, 10
_SMALL, _LARGE = 10, 1_000


def _frame(rows: int, seed: int) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    return pl.DataFrame({f"c{index}": generator.random(rows) for index in range(_COLUMNS)})


def _fill(store: SnapshotStore, partitions: int, rows: int) -> None:
    """Publishes partitions one commit at a time, as nights do."""
    for number in range(partitions):
        publish(store, Draft(partition=f"p{number:05d}", frame=_frame(rows, number)), run=str(number))


def _read(root: Path) -> float:
    store = DeltaStore(root, "bench", root / "cache")
    head = store.head("rows")
    assert head is not None
    return float(store.scan(head, ["p00005"], ["c0"]).sum().collect().get_column("c0").item())


def _publish(root: Path) -> None:
    publish(DeltaStore(root, "bench", root / "cache"), Draft(partition="another", frame=_frame(_ROWS, 1)))


def _peak(root: Path, what: str) -> float:
    """Peak memory, in MiB, of a process of its own that does one thing."""
    command = [sys.executable, "-m", "benchmarks.bench_reading", what, str(root)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure() -> list[Result]:
    """A table of 10 partitions and one of 1,000 for the time; of 10 and 100 for the memory."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        _fill(DeltaStore(small, "bench", small / "cache"), _SMALL, 1_000)
        _fill(DeltaStore(large, "bench", large / "cache"), _LARGE, 1_000)
        results.append(
            Result(
                name="read_one_partition_of_1000",
                ours=seconds(lambda: _read(large), repeats=7),
                peer=seconds(lambda: _read(small), repeats=7),
                unit="s",
                goal=0.5,
                note=f"store opened, head, one column of one partition; peer: the same with {_SMALL} partitions",
            )
        )
        narrow, wide = Path(folder) / "narrow", Path(folder) / "wide"
        _fill(DeltaStore(narrow, "bench", narrow / "cache"), 10, _ROWS)
        _fill(DeltaStore(wide, "bench", wide / "cache"), 100, _ROWS)
        for what in ("publish", "read"):
            results.append(
                Result(
                    name=f"{what}_memory_as_the_table_grows",
                    ours=_peak(wide, what),
                    peer=_peak(narrow, what),
                    unit="MiB",
                    goal=0.9,
                    note=f"peak of a process; 100 partitions of {_ROWS:,} rows x {_COLUMNS}; peer: 10 partitions",
                )
            )
    return results


if __name__ == "__main__":
    {"publish": _publish, "read": _read}[sys.argv[1]](Path(sys.argv[2]))
    # Not getrusage: a child's figure begins with that of the process that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    print(int(found.group(1)) / 1024)

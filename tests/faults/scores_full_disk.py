"""A program that scores on a small disk which is full at one point after the other, and says what it saw (JSON).

`python -m tests.faults.scores_full_disk <project> <home> <where the small disk is>`, for `test_scoring_disk_full.py`.
Snapshots and pieces lie on the small disk, the registry on a large one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipelines.errors import OvernightError
from pipelines.partitions import shift
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import NAME
from tests.faults.full_disk import only
from tests.faults.nights import put, rows

#: A file of several pages: the disk is full in the middle of it, too.
_ROWS = 3000
_ROOMS = [{"pages": pages} for pages in (*range(0, 20, 2), 24, 28, 40)] + [
    {"files": files} for files in (*range(9), 12, 18, 30)
]


def night(runtime: Runtime, partition: str, *, shards: bool) -> str:
    """Scores and publishes; the state."""
    plan = runtime.plan_scores([partition], 1)[0]
    if shards:
        scored = runtime.stage_pieces(plan, [runtime.score_shard(plan, shard) for shard in plan.shards])
    else:
        scored = runtime.score_plan(plan)
    (done,) = runtime.publish_scores(runtime.audit_scores(scored))
    return done.state


def seen(runtime: Runtime) -> list[Any]:
    """Everything that readers see."""
    store = runtime.store
    head = store.head(PREDICTIONS)
    found = {} if head is None else store.partitions(head)
    return [found, [commit.partitions for commit in store.history(PREDICTIONS)]]


def attempt(runtime: Runtime, disk: Path, partition: str, room: dict[str, int], *, shards: bool) -> dict[str, Any]:
    """Scores on the nearly full disk, and again when there is room."""
    put(runtime.store, partition, rows(_ROWS))
    before = seen(runtime)
    result: dict[str, Any] = {"room": room, "shards": shards, "failed": False}
    with only(disk, **room):
        try:
            night(runtime, partition, shards=shards)
        except OvernightError as error:
            result |= {"failed": True, "error": type(error).__name__, "said": str(error)}
            result |= {"unchanged": seen(runtime) == before}
            left = [path for path in disk.rglob("*.tmp") if path.is_file()]
            result |= {"left": [str(path) for path in left]}
    if result["failed"]:
        night(runtime, partition, shards=shards)
    after = seen(runtime)
    result |= {"rows": after[0][partition].rows, "commits": len(after[1]) - len(before[1])}
    return result


def main(project: Path, home: Path, disk: Path) -> None:
    """Fills the disk to each point in turn."""
    pieces = home / "work" / NAME / "scores"
    pieces.parent.mkdir(parents=True, exist_ok=True)
    (disk / "pieces").mkdir()
    pieces.symlink_to(disk / "pieces")
    settings = Settings(project=project, home=home, snapshots_uri=str(disk / "snapshots"), code_version="test")
    runtime = Runtime.open(NAME, run=RunInfo(run_id="night", dag_id="score", code_version="test"), settings=settings)
    partition = "2024-07-01"
    for shards in (False, True):
        for room in _ROOMS:
            print(json.dumps(attempt(runtime, disk, partition, room, shards=shards)), flush=True)
            partition = shift(partition, 1, "day")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

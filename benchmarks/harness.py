"""What the benchmark scripts share: a result, and a way to time a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Check, Publication, RunInfo, StagedPartition, ValidationReport

#: How far int8 scores are from fp32 ones, on average, at most.
INT8_ERROR = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One comparison. `ratio` is how many times better ours is; times and rates both come out that way."""

    name: str
    ours: float
    """Our figure, in `unit`."""
    peer: float
    """The peer's figure in the same run, in `unit`."""
    unit: str
    """`s` or `MiB` (less is better) or something a second (more is better)."""
    goal: float | None
    """The ratio that was aimed at; None when there is no aim."""
    note: str
    """What the peer is, and on what."""

    @property
    def ratio(self) -> float:
        """Ours against the peer: above 1 is better."""
        return self.peer / self.ours if self.unit in ("s", "MiB") else self.ours / self.peer

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.goal is None or self.ratio >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """The shape of var/bench/results.json: name, ours, peer, unit, ratio, goal, note."""
        raw = asdict(self)
        return {**raw, "ratio": round(self.ratio, 3)}


def audit(staged: StagedPartition) -> ValidationReport:
    """The passing audit of a staged partition: benchmarks of a store do not measure its validator."""
    return ValidationReport(
        use_case=staged.use_case,
        table=staged.table,
        partition=staged.partition,
        digest=staged.digest,
        suite="bench",
        suite_digest="0" * 64,
        rows=staged.rows,
        passed=True,
        checks=(Check(name="bench", passed=True, observed="a benchmark"),),
    )


def publish(store: SnapshotStore, *drafts: Draft, run: str = "bench", table: str = "rows") -> Publication:
    """Stages and publishes partitions of a table."""
    info = RunInfo(run_id=run, dag_id="bench")
    staged = store.stage(table, drafts, info)
    return store.publish(table, staged, [audit(part) for part in staged], info)


def seconds(call: Callable[[], Any], repeats: int = 3, clock: Callable[[], float] = time.perf_counter) -> float:
    """The best of several timed calls: the others measured the machine's other work as well.

    Args:
        clock: `time.process_time` for CPU seconds, of all threads together.
    """
    best = float("inf")
    for _ in range(repeats):
        begun = clock()
        call()
        best = min(best, clock() - begun)
    return best

"""What the benchmark scripts share: a result, and a way to time a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One comparison. `ratio` is how many times better ours is; times and rates both come out that way."""

    name: str
    ours: float
    """Our figure, in `unit`."""
    peer: float
    """The peer's figure in the same run, in `unit`."""
    unit: str
    """`s` (less is better) or something a second (more is better)."""
    goal: float | None
    """The ratio that was aimed at; None when there is no aim."""
    note: str
    """What the peer is, and on what."""

    @property
    def ratio(self) -> float:
        """Ours against the peer: above 1 is better."""
        return self.peer / self.ours if self.unit == "s" else self.ours / self.peer

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.goal is None or self.ratio >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """The shape of var/bench/results.json: name, ours, peer, unit, ratio, goal, note."""
        raw = asdict(self)
        return {**raw, "ratio": round(self.ratio, 3)}


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """The best of several timed calls: the others measured the machine's other work as well."""
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begun)
    return best

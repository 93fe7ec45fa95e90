"""What a training tells while it runs, and the one line in which people read it. Standard library only.

Values by name: `epoch` (from 1), `step` (from 1, over all epochs of a network: the x axis of live curves),
`rows_per_second` (rows learned from, over all processes), `eta_seconds` (until the last epoch, if training does not
stop earlier), and by network `<network>_loss`, `<network>_recent_loss` (since it was last told, within an epoch) and
`<network>_validation`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

_SECONDS = 2.0
_COMMON = ("epoch", "step", "rows_per_second", "eta_seconds")


class Meter:
    """How fast rows go by, and when they will all have gone by.

    Args:
        rows: of all epochs that are left.
        clock: seconds that only grow.
    """

    def __init__(self, rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._clock = rows, clock
        self._begun = self._told = clock()
        self._done = self._fresh = 0
        self._lost = 0.0

    def passed(self, rows: int, loss: float) -> None:
        """So many rows were learned from, with that mean loss."""
        self._done += rows
        self._fresh += rows
        self._lost += loss * rows

    @property
    def due(self) -> bool:
        """Whether something was told long enough ago."""
        return self._clock() - self._told >= _SECONDS

    @property
    def loss(self) -> float:
        """The mean since something was told."""
        return self._lost / max(self._fresh, 1)

    def speed(self) -> dict[str, float]:
        """`rows_per_second` since the last call, `eta_seconds` at the mean speed so far; counting begins anew."""
        now = self._clock()
        speed = self._fresh / max(now - self._told, 1e-9)
        overall = self._done / max(now - self._begun, 1e-9)
        self._told, self._fresh, self._lost = now, 0, 0.0
        left = max(0, self._left - self._done)
        return {"rows_per_second": round(speed, 1), "eta_seconds": round(left / overall, 1) if self._done else 0.0}


def network(values: Mapping[str, float]) -> str | None:
    """Whose values these are.

    >>> network({"epoch": 1, "teacher_loss": 0.5})
    'teacher'
    """
    for name in values:
        for ending in ("_recent_loss", "_loss", "_validation"):
            if name.endswith(ending):
                return name.removesuffix(ending)
    return None


def line(values: Mapping[str, float]) -> str:
    """A progress line.

    >>> line({"epoch": 2, "step": 40, "rows_per_second": 12345.6, "eta_seconds": 75, "teacher_loss": 0.5,
    ...       "teacher_validation": 0.25})
    'teacher epoch 2, step 40: loss 0.5000, validation 0.2500, 12,346 rows/s, 1:15 left'
    """
    name = network(values)
    head = f"{name} epoch" if name else "epoch"
    where = f"{head} {values.get('epoch', 0):.0f}" + (f", step {values['step']:.0f}" if "step" in values else "")
    said = []
    for key, value in values.items():
        if key not in _COMMON:
            short = key.removeprefix(f"{name}_").replace("_", " ") if name else key
            said.append(f"{short} {value:.4f}")
    if "rows_per_second" in values:
        said.append(f"{values['rows_per_second']:,.0f} rows/s")
    if "eta_seconds" in values:
        minutes, seconds = divmod(round(values["eta_seconds"]), 60)
        hours, minutes = divmod(minutes, 60)
        said.append((f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}") + " left")
    return f"{where}: {', '.join(said)}"

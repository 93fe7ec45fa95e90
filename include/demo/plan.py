"""Which nights the story plays: the whole year, or a shorter one for continuous integration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The partitions of each act."""

    name: str
    history: tuple[str, str]
    """Ingested by one run; the first champion learns from it."""
    nights: tuple[str, ...]
    """One by one, as production does."""
    bad: str
    """The night whose file is broken; mended after `after_bad`."""
    after_bad: str
    ranges: tuple[tuple[str, str], ...]
    """The nights that follow, one run a range, each watched as of its last partition."""
    drifted: tuple[str, str]
    """December: the range after which the monitor asks for a new model."""
    repeated: str
    """The night that is scored again at the end."""

    @property
    def first_as_of(self) -> str:
        """What is known when the first champion is trained."""
        return self.history[1]

    @property
    def scored(self) -> tuple[tuple[str, str], ...]:
        """Every range of partitions that must end with predictions."""
        return (*((night, night) for night in (*self.nights, self.bad, self.after_bad)), *self.ranges, self.drifted)


FULL = Plan(
    name="full",
    history=("2013-01-01", "2013-08-31"),
    nights=tuple(f"2013-09-{day:02d}" for day in range(1, 8)),
    bad="2013-09-08",
    after_bad="2013-09-09",
    ranges=(("2013-09-10", "2013-09-30"), ("2013-10-01", "2013-10-31"), ("2013-11-01", "2013-11-30")),
    drifted=("2013-12-01", "2013-12-31"),
    repeated="2013-09-03",
)

#: The same acts with fewer nights. History stays whole: on less of it the gates refuse the first model.
SHORT = Plan(
    name="short",
    history=("2013-01-01", "2013-08-31"),
    nights=("2013-09-01", "2013-09-02"),
    bad="2013-09-03",
    after_bad="2013-09-04",
    ranges=(("2013-09-05", "2013-09-30"),),
    drifted=("2013-12-01", "2013-12-31"),
    repeated="2013-09-02",
)

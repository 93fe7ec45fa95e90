"""Drills: faults that are injected into a copy of the landing zone, and what must come of each.

    first: "2013-01-01"          # of the calm partitions that the champion is trained on
    last: "2013-08-31"
    drills:
      stuck_sensor:
        title: A sensor sticks
        fault: {kind: stuck, table: rows, columns: [load], value: 0.2}
        nights: 5
        expect:
          alerts: {inputs: 1}    # told on the first night of the fault, at the latest
          retrain: never
          champion: same

The verdict is written down before the drill is played; a drill that ends otherwise fails.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.spec.alerts import AlertKind
from pipelines.spec.base import Name, SpecModel

_Share = Annotated[float, Field(gt=0, le=1)]
_Columns = Annotated[tuple[Name, ...], Field(min_length=1)]


class _Ramp(SpecModel):
    """What grows."""

    over: Annotated[int, Field(ge=1)] = 1
    """Nights until the fault is all there: 1 is sudden, more is gradual."""


class Shift(_Ramp):
    """Numbers are so much higher: another world, or a sensor that drifts."""

    kind: Literal["shift"]
    table: Name
    columns: _Columns
    add: float


class Scale(_Ramp):
    """Numbers are so many times as large: another unit."""

    kind: Literal["scale"]
    table: Name
    columns: _Columns
    by: float


class Stuck(SpecModel):
    """Every row has one value: a broken sensor."""

    kind: Literal["stuck"]
    table: Name
    columns: _Columns
    value: float | str


class Nulls(SpecModel):
    """A share of the rows lost a column's value."""

    kind: Literal["nulls"]
    table: Name
    columns: _Columns
    share: _Share


class Newcomer(SpecModel):
    """A share of the rows has a value that nobody has seen before."""

    kind: Literal["newcomer"]
    table: Name
    columns: _Columns
    value: str
    share: _Share


class Flip(SpecModel):
    """A share of the labels is another one: noise."""

    kind: Literal["flip"]
    share: _Share


class Concept(_Ramp):
    """Labels no longer have to do with the features, though as many are positive as before.

    The labels of a growing share of the rows change places with each other.
    """

    kind: Literal["concept"]
    share: _Share = 1.0


class LateLabels(SpecModel):
    """Labels come so many nights later than they should."""

    kind: Literal["late_labels"]
    nights: Annotated[int, Field(ge=1)]


class Thin(SpecModel):
    """Only a share of the rows comes, chosen at random: a quiet season."""

    kind: Literal["thin"]
    share: _Share


class Lost(SpecModel):
    """The rows' file does not come at all."""

    kind: Literal["lost"]


#: What is in a file is another; the other faults change when it comes.
Change = Shift | Scale | Stuck | Nulls | Newcomer | Flip | Concept | Thin


class Together(SpecModel):
    """Several faults at once, in this order: a storm."""

    kind: Literal["together"]
    faults: Annotated[tuple[Annotated[Change, Field(discriminator="kind")], ...], Field(min_length=2)]


Fault = Annotated[Change | LateLabels | Lost | Together, Field(discriminator="kind")]


class Verdict(SpecModel):
    """What must come of a drill. Nights are counted from the fault's first, which is 1."""

    alerts: dict[AlertKind, Annotated[int, Field(ge=1)]] = {}
    """Kinds of incidents that are told, each on that night at the latest."""
    silent: tuple[AlertKind, ...] = ()
    """Kinds that nobody is told of, all along."""
    over: tuple[AlertKind, ...] = ()
    """Kinds of which nothing is open when the drill ends."""
    most_messages: Annotated[int, Field(ge=0)] | None = None
    """Most incidents that are told of, all kinds together."""
    retrain: Literal["never"] | Annotated[int, Field(ge=1)] = "never"
    """never, or the night by which a retraining is decided on."""
    most_retrainings: Annotated[int, Field(ge=1)] | None = None
    champion: Literal["same", "changed", "either"] = "same"
    quarantined: bool = False
    """Whether the gate of the data, or the audit of the scores, holds the fault's partitions back."""

    @model_validator(mode="after")
    def _agree(self) -> Verdict:
        if both := set(self.alerts) & set(self.silent):
            raise ValueError(f"both told and silent: {', '.join(sorted(both))}")
        if self.retrain == "never" and self.champion == "changed":
            raise ValueError("the champion changes by a retraining: retrain is never")
        return self


class Drill(SpecModel):
    """One fault and its verdict."""

    title: str
    fault: Fault
    nights: Annotated[int, Field(ge=1, le=366)]
    """Nights of the fault."""
    before: Annotated[int, Field(ge=1, le=366)] = 2
    """Calm nights ahead of them."""
    after: Annotated[int, Field(ge=0, le=366)] = 0
    """Nights on which all is as before again."""
    expect: Verdict


class Drills(SpecModel):
    """The drills of a use case."""

    first: str
    """First partition that the champion's training sees."""
    last: str
    """The last calm partition; the champion is trained as of it, and drills go on from the next one."""
    drills: Annotated[dict[Name, Drill], Field(min_length=1)]

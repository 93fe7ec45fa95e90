"""Tables, the label and the features."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from pipelines.spec.base import Name, SpecModel, Task

#: A relative path inside the landing zone; `{partition}` is replaced by the key.
LandingPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9_={}-][A-Za-z0-9_={}.-]*(/[A-Za-z0-9_={}-][A-Za-z0-9_={}.-]*)*$", max_length=200
    ),
]


ColumnType = Literal["string", "int", "float", "bool", "timestamp", "date"]


#: Classes of a label. Each is an output of the model and a number in every score.
MAX_CLASSES = 1000


class Column(SpecModel):
    """One column of a landed file."""

    type: ColumnType
    nullable: bool = True


class Expectation(SpecModel):
    """One Great Expectations expectation, by its snake-case name, with its arguments.

    `mostly` and the other arguments are passed on as they stand.
    """

    expect: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]+$")]
    kwargs: dict[str, Any] = {}


class Table(SpecModel):
    """A table that is ingested: where its files lie, what they hold, and what must be true of them."""

    path: LandingPath
    """Landing-zone path of a partition's file, with `{partition}` in it; without it the table is static."""
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    """A path that ends in .gz is decompressed (csv and jsonl)."""
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    null_values: tuple[str, ...] = ("",)
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    """The columns that identify a row: never null, never twice in a partition."""
    event_time: str | None = None
    """A timestamp column that must lie inside the partition (UTC)."""
    lag: Annotated[int, Field(ge=0, le=400)] = 0
    """How many partitions later than its own key the file arrives: the ingest run of K takes key K - lag."""
    min_rows: Annotated[int, Field(ge=0)] = 1
    max_rows: Annotated[int, Field(ge=1)] = 10_000_000
    max_bytes: Annotated[int, Field(ge=1)] = 4 * 2**30
    """Decompressed bytes past which a file is refused (a compression bomb)."""
    suite: Name | None = None
    """A file of expectations in include/expectations/, shared between use cases."""
    expectations: tuple[Expectation, ...] = ()

    @property
    def static(self) -> bool:
        """Whether the table has one file, not one a partition."""
        return "{partition}" not in self.path

    @model_validator(mode="after")
    def _columns_exist(self) -> Table:
        named = {"key": self.key, "event_time": (self.event_time,) if self.event_time else ()}
        for field, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"{field} names {name!r}, which is not in columns: {', '.join(self.columns)}")
        if self.event_time and self.columns[self.event_time].type != "timestamp":
            raise ValueError(f"event_time {self.event_time!r} must have type timestamp")
        if self.min_rows > self.max_rows:
            raise ValueError(f"min_rows {self.min_rows} is above max_rows {self.max_rows}")
        return self


class Positive(SpecModel):
    """Which label values count as positive; give exactly one."""

    above: float | None = None
    equals: str | int | bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Positive:
        if (self.above is None) == (self.equals is None):
            raise ValueError("give exactly one of 'above' and 'equals'")
        return self


class Label(SpecModel):
    """What is predicted, and from when its outcome may be used."""

    table: Name = "labels"
    column: str
    task: Task
    positive: Positive | None = None
    """Binary only."""
    classes: tuple[str, ...] = ()
    """Multiclass only: every class, in the order of the output columns."""
    maturity: Annotated[int, Field(ge=0, le=400)] = 1
    """Partitions after its own that must have passed before a label is used."""

    @model_validator(mode="after")
    def _fits_task(self) -> Label:
        if (self.task == "binary") != (self.positive is not None):
            raise ValueError("'positive' belongs to task binary, and binary needs it")
        if (self.task == "multiclass") != (len(self.classes) >= 2):
            raise ValueError("'classes' (two or more) belongs to task multiclass, and multiclass needs it")
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(
                f"'classes' are {len(self.classes)}, at most {MAX_CLASSES} are allowed: join the rare ones in one "
                "class, or predict a number instead (task regression)"
            )
        if twice := [name for name, times in Counter(self.classes).items() if times > 1]:
            raise ValueError(f"'classes' must be distinct; given twice: {', '.join(twice)}")
        return self


class Features(SpecModel):
    """What the model sees. Without a function, these columns of `rows` are the features as they stand."""

    function: Name | None = None
    """A module in pipelines/features with a function `build`."""
    context: tuple[Name, ...] = ()
    """Other tables that the function reads."""
    lookback: Annotated[int, Field(ge=0, le=60)] = 0
    """How many earlier partitions of the context tables the function may need."""
    lead_minutes: Annotated[int, Field(ge=0)] = 0
    """A prediction is made this long before the event time; nothing newer may enter a feature."""
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    """Categorical features by which metrics are also reported."""

    @property
    def lead(self) -> timedelta:
        """How long before the event time a prediction is made."""
        return timedelta(minutes=self.lead_minutes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every feature, numeric first: the order of the model's inputs."""
        return self.numeric + self.categorical

    @model_validator(mode="after")
    def _distinct(self) -> Features:
        if not self.columns:
            raise ValueError("name at least one numeric or categorical feature")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a feature is named twice")
        if stray := set(self.slices) - set(self.categorical):
            raise ValueError(f"slices must be categorical features; not so: {', '.join(sorted(stray))}")
        return self

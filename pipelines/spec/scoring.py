"""How the champion scores, and what its scores must look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.spec.base import SpecModel

#: Probabilities for which a training calibrates intervals, if it has the rows.
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


class Scoring(SpecModel):
    """How the champion scores, and what its scores must look like before anybody sees them."""

    engine: Literal["local", "ray"] = "local"
    """Where shards are scored: by the task itself, or as tasks of a Ray cluster (OVERNIGHT_RAY_ADDRESS)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What computes the scores of networks; trees are for the cpu. Never chosen by what a worker has: scores may differ
    in their last bits, and in a few of 100,000 rows by a rounding of int8.
    """
    tile_rows: Annotated[int, Field(ge=64, le=2**20)] = 8192
    """Rows that one thread scores at once, and encodes four times as many; of a GPU, eight times these. Changes no
    score.
    """
    shard_rows: Annotated[int, Field(ge=1)] = 2_000_000
    """A run of more rows is split into tasks of about so many; changes no score."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 4
    """Most shards of one run that are scored at the same time."""
    interval: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """Regression: publish `low` and `high`, between which the label lies with this probability: one of `LEVELS`."""
    reasons: Annotated[int, Field(ge=0, le=10)] = 0
    """Publish so many features a row that moved its score most, and by how much. Costs 32 scores a feature and row."""
    deadline_minutes: Annotated[int, Field(ge=1)] | None = None
    """Minutes after the tick of `schedule` by which a night's scores must be published; past it, it is told."""
    max_unseen_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Highest share of unseen values in any categorical feature."""
    min_distinct: Annotated[int, Field(ge=1)] = 2
    """Fewest distinct scores (a constant output is a broken model), for partitions of 100 rows or more."""

    @model_validator(mode="after")
    def _has_the_device(self) -> Scoring:
        if self.device == "cuda" and self.engine == "ray":
            raise ValueError("device: cuda needs engine: local; Ray is asked for processors only")
        return self

    @field_validator("interval")
    @classmethod
    def _is_calibrated(cls, level: float | None) -> float | None:
        if level is not None and level not in LEVELS:
            raise ValueError(f"{level:g} is no level that trainings calibrate; allowed: {', '.join(map(str, LEVELS))}")
        return level

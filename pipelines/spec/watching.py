"""What is watched, and when a new model is asked for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.spec.base import SpecModel


class Drift(SpecModel):
    """What is watched. PSI: population stability index against the champion's frozen reference.

    A column is in alarm when it is both far from the reference (`alarm`) and further than the reference's own
    partitions were from each other (`false_alarms`); a warning likewise.
    """

    window: Annotated[int, Field(ge=1, le=400)] = 7
    """Partitions that one monitor run looks back on."""
    bins: Annotated[int, Field(ge=2, le=100)] = 10
    warn: Annotated[float, Field(gt=0)] = 0.1
    """Least PSI of a warning."""
    alarm: Annotated[float, Field(gt=0)] = 0.25
    """Least PSI of an alarm."""
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of calm partitions in which any column may be in alarm all the same: thresholds are calibrated for it.
    Those of the reference that are far out themselves do not count as calm."""
    false_warnings: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The same for warnings."""
    season: Literal["none", "week"] = "none"
    """week: a partition is compared with the reference's partitions of the same day of the week, where these are
    enough."""
    ignore: tuple[str, ...] = ()
    """Features whose drift is no news (a calendar's, say)."""
    min_rows: Annotated[int, Field(ge=1)] = 200
    report_rows: Annotated[int, Field(ge=10, le=50_000)] = 5000
    """Rows a side in the Evidently report, chosen by a hash of the key."""
    skew_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Rows a night whose features are made both as scoring and as training make them, and must be equal; 0: none."""

    @model_validator(mode="after")
    def _warns_first(self) -> Self:
        if self.warn > self.alarm:
            raise ValueError(f"warn {self.warn:g} is above alarm {self.alarm:g}: a warning comes first")
        if self.false_alarms > self.false_warnings:
            raise ValueError(
                f"false_alarms {self.false_alarms:g} is above false_warnings {self.false_warnings:g}: alarms are rarer"
            )
        return self


class Retraining(SpecModel):
    """When a monitor run asks for a new model. A refusal is recorded as well."""

    signals: Annotated[tuple[Literal["inputs", "scores", "decay"], ...], Field(min_length=1)] = (
        "inputs",
        "scores",
        "decay",
    )
    """What may ask for a model. The others are observed and shown all the same."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the window's judged partitions that must be in alarm (inputs and scores)."""
    raised: Annotated[int, Field(ge=1, le=100)] = 1
    """Windows in alarm, among the last `of`, this one included, that it takes: a lone bad night is none."""
    of: Annotated[int, Field(ge=1, le=100)] = 1
    """See `raised`; windows end with each partition that was decided on."""
    metric: Literal["auc", "log_loss", "accuracy", "rmse", "mae"] | None = None
    """The metric whose decay is watched; the gates' own when not given."""
    decay: Annotated[float, Field(gt=0)] = 0.02
    """Loss of that metric on matured labels, against the champion's holdout, that is an alarm; half of it warns."""
    cooldown: Annotated[int, Field(ge=0)] = 14
    """Partitions after a retraining decision before the next one may be a yes."""
    monthly: Annotated[int, Field(ge=1)] | None = None
    """Most retrainings within a calendar month of partitions."""
    max_age: Annotated[int, Field(ge=1)] | None = None
    """Partitions after which a champion is retrained without any alarm: counted from its training's."""
    min_labels: Annotated[int, Field(ge=1)] = 1000
    """Matured labels newer than the champion's training data that a retraining needs; and newer than those of a
    challenger that lost, before there is another one."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Highest share of the window's partitions in quarantine or missing; past it the data is not healthy."""
    train_on: Literal["all", "last", "after_change"] = "all"
    """Partitions of a retraining's window: all, the `last` ones, or those since the alarm began."""
    last: Annotated[int, Field(ge=2)] | None = None
    """Of `train_on: last`; of after_change, the fewest."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.raised > self.of:
            raise ValueError(f"raised {self.raised} is above of {self.of}: there are not so many windows")
        if self.train_on != "all" and self.last is None:
            raise ValueError(f"train_on {self.train_on}: needs last, a number of partitions")
        if self.train_on == "all" and self.last is not None:
            raise ValueError("last is of train_on last or after_change; train_on is all")
        return self

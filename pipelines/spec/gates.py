"""What a challenger must show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.spec.base import SpecModel

Share = Annotated[float, Field(ge=0, le=1)]
Value = float | int | str | None

#: Rows of each class without which nothing is said about classes.
CLASS_ROWS = 10


class Golden(SpecModel):
    """Two rows that differ in some features, and which way the score must go from the first to the second.

    What neither names is as in the artifact's typical row.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    given: dict[str, Value] = {}
    """Features of the first row."""
    changed: Annotated[dict[str, Value], Field(min_length=1)]
    """What differs in the second."""
    score: Literal["rises", "falls", "stays"]
    by: Annotated[float, Field(ge=0)] = 0.0
    """Rises, falls: at least so much. Stays: at most so much."""
    of: str | None = None
    """Multiclass: the class whose score is meant."""


class FairnessGate(SpecModel):
    """Sensitive columns of `rows`, which need not be features, and what may differ between their groups (binary)."""

    columns: tuple[str, ...] = ()
    min_selection_ratio: Share = 0.8
    """Lowest selection rate of any group as a share of the highest (the four-fifths rule)."""
    max_odds_difference: Share = 0.1
    """Greatest difference between groups of true-positive rates, or of false-positive rates (equalised odds)."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Holdout rows of a group below which it is listed, not judged."""


class CompressionGate(SpecModel):
    """What the served student may cost against its own fp32, both measured in turn on the same machine."""

    max_slice_loss: Annotated[float, Field(ge=0)] = 0.02
    """Of the metric (rmse and mae: as a share of fp32's), on any slice of `slice_rows` rows or more."""
    max_size_ratio: Annotated[float, Field(gt=0)] = 1.0
    """Of bytes; 16 KiB more are always accepted."""
    max_latency_ratio: Annotated[float, Field(gt=0)] = 2.0
    """Of p99, by batches of 1 and of 4096 rows, in processor time: honest models reached 1.4."""
    min_speed_ratio: Annotated[float, Field(ge=0)] = 0.5
    """Of rows a second."""


class Sanity(SpecModel):
    """What no usable model fails."""

    min_distinct: Annotated[int, Field(ge=1)] = 10
    """Fewest distinct scores on the holdout."""
    max_same: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Greatest share of holdout rows with one and the same score."""
    max_feature_share: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Greatest share of all sensitivity that one feature may have (not judged where there is one feature)."""
    max_collapse: Annotated[float, Field(ge=0)] = 0.2
    """How much worse, or better, the metric may be on the holdout than on rows that the model was trained on (log_loss,
    rmse and mae: as a share of what a constant loses on the same rows)."""


class Gates(SpecModel):
    """What a challenger must show on the holdout. Metrics are by task: binary auc, log_loss; multiclass
    accuracy, log_loss; regression rmse, mae."""

    metric: Literal["auc", "log_loss", "accuracy", "rmse", "mae"]
    bound: float
    """At least this (at most, where less is better)."""
    margin_over_champion: float = 0.0
    """How much better than the champion on the same holdout: the lower end of the interval must reach it. Negative: how
    much worse is accepted of a model that knows newer data."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Of the lower end: a challenger that is no better than the margin passes with at most 1 - confidence."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Of the paired bootstrap."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Fewest holdout rows; classes: that many in all, and ten of each class."""
    detectable: Annotated[float, Field(gt=0)] | None = None
    """A gain over the margin that must not go unseen: with so few rows that the interval would miss it, the challenger
    is refused, whatever it shows."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Chance with which `detectable` must be seen."""
    max_slice_loss: Annotated[float, Field(ge=0)] = 0.05
    """How much worse than the champion on any slice of `slice_rows` rows or more: those of `features.slices`, and the
    worst that is found."""
    slice_rows: Annotated[int, Field(ge=10)] = 300
    max_calibration_error: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Expected calibration error (classes)."""
    max_loss_to_lightgbm: Annotated[float, Field(ge=0)] = 0.01
    """How much worse than LightGBM on the same split is still accepted."""
    max_loss_to_fp32: Annotated[float, Field(ge=0)] = 0.005
    """How much the compressed student may lose against its own fp32."""
    max_single_feature: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Strongest association of one feature with the label that is believed (binary: its AUC alone; multiclass: its
    accuracy alone, as a share of what a constant leaves to gain; regression: its R2 alone, of the label's ranks); past
    it the feature leaks."""
    allow_older: bool = False
    """Whether a challenger may have learned from older data than the champion."""
    compression: CompressionGate = CompressionGate()
    fairness: FairnessGate = FairnessGate()
    sanity: Sanity = Sanity()
    golden: tuple[Golden, ...] = ()

    @model_validator(mode="after")
    def _named_once(self) -> Gates:
        names = [row.name for row in self.golden]
        if len(set(names)) < len(names):
            raise ValueError("golden: a name is given twice")
        return self

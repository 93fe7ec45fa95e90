"""What a challenger must show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.spec.base import SpecModel


class Gates(SpecModel):
    """What a challenger must show on the holdout. Metrics are by task: binary auc, log_loss; multiclass
    accuracy, log_loss; regression rmse, mae."""

    metric: Literal["auc", "log_loss", "accuracy", "rmse", "mae"]
    bound: float
    """At least this (at most, where less is better)."""
    margin_over_champion: float = 0.0
    """How much better than the champion on the same holdout."""
    max_loss_to_lightgbm: Annotated[float, Field(ge=0)] = 0.01
    """How much worse than LightGBM on the same split is still accepted."""
    max_loss_to_fp32: Annotated[float, Field(ge=0)] = 0.005
    """How much the compressed student may lose against its own fp32."""
    max_single_feature: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Strongest association of one feature with the label that is believed (binary: its AUC alone; multiclass: its
    accuracy alone, as a share of what a constant leaves to gain; regression: its R2 alone, of the label's ranks); past
    it the feature leaks."""

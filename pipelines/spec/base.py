"""What everything in a spec is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

#: Names become folders, DAG ids and registered models: no separators, no dots, no surprises.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]


#: Folder below the root of the reports that a reporter's own UI opens, for all use cases together.
WORKSPACE = "evidently"

Task = Literal["binary", "multiclass", "regression"]


#: Metrics by name, and which way is better.
GREATER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "accuracy": True,
    "log_loss": False,
    "brier": False,
    "rmse": False,
    "mae": False,
}


class SpecModel(BaseModel):
    """The base of everything in a spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

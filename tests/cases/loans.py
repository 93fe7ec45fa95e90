"""Loans with a region that is no feature, published straight into a store: past grants depend on it, repayment not.

`postcode` stands for the region, so that a model of past grants is biased without having seen it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipelines.partitions import span
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import RunInfo
from pipelines.spec import UseCase
from tests.contracts.stores import audit

RUN = RunInfo(run_id="night", dag_id="loans", code_version="abc")
DAYS = tuple(span("2024-03-01", "2024-03-14", "day"))
REGIONS = ("northreach", "southvale", None)
ROWS = 500


def spec(label: str = "repaid", features: tuple[str, ...] = ("income",), **changes: Any) -> UseCase:
    """The use case. `changes` are of sections: `training={"threshold": 0.9}`."""
    raw: dict[str, Any] = {
        "name": "loans",
        "title": "Loans",
        "description": "Which loans are repaid.",
        "owner": "tests",
        "schedule": "0 2 * * *",
        "monitor_schedule": "0 6 * * *",
        "tables": {
            "rows": {
                "path": "loans/{partition}.csv",
                "columns": {
                    "loan": {"type": "string", "nullable": False},
                    "income": {"type": "float"},
                    "postcode": {"type": "int"},
                    "region": {"type": "string"},
                    "member": {"type": "bool"},
                },
                "key": ["loan"],
            },
            "labels": {
                "path": "outcomes/{partition}.csv",
                "columns": {"loan": {"type": "string"}, "repaid": {"type": "bool"}, "granted": {"type": "bool"}},
                "key": ["loan"],
            },
        },
        "label": {"column": label, "task": "binary", "positive": {"equals": True}, "maturity": 0},
        "features": {"numeric": list(features)},
        "training": {"model": "lightgbm", "validation": 2, "holdout": 3, "threshold": "prior"},
        "gates": {
            "metric": "auc",
            "bound": 0.55,
            "margin_over_champion": -1.0,
            "fairness": {"columns": ["region", "member"]},
        },
        "drift": {"window": 4, "report_rows": 200},
    }
    for section, values in changes.items():
        raw[section] = {**raw[section], **values}
    return UseCase.model_validate(raw)


def day(key: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A day's rows and outcomes, the same every time. One loan in fifty has no region."""
    rng = np.random.default_rng([int(part) for part in key.split("-")])
    place = rng.choice(3, ROWS, p=[0.49, 0.49, 0.02])
    income = rng.normal(0, 1, ROWS)
    north = place == 0

    def happens(logit: np.ndarray) -> np.ndarray:
        return rng.random(ROWS) < 1 / (1 + np.exp(-logit))

    loans = [f"l-{key}-{i}" for i in range(ROWS)]
    rows = pl.DataFrame(
        {
            "loan": loans,
            "income": income,
            "postcode": np.where(rng.random(ROWS) < 0.95, north, ~north).astype(np.int64),
            "region": [REGIONS[at] for at in place],
            "member": rng.random(ROWS) < 0.5,
        },
        schema_overrides={"region": pl.String},
    )
    outcomes = {"loan": loans, "repaid": happens(1.5 * income), "granted": happens(income + 2.5 * north - 1.2)}
    return rows, pl.DataFrame(outcomes)


def fill(store: SnapshotStore, days: tuple[str, ...] = DAYS) -> None:
    """Publishes every day of both tables."""
    made = {key: day(key) for key in days}
    for place, table in enumerate(("rows", "labels")):
        staged = store.stage(table, [Draft(partition=key, frame=frames[place]) for key, frames in made.items()], RUN)
        store.publish(table, staged, [audit(part) for part in staged], RUN)

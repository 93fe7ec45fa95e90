"""Evidently as the peer of the drift benchmarks: its `DataDriftPreset` on two frames, and the columns that it flags."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipelines.spec import UseCase


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Both sides as Evidently's own data sets, made before the clock starts."""

    current: Any
    reference: Any

    @classmethod
    def of(cls, spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame) -> Peer:
        """Takes the features of both frames."""
        os.environ.setdefault("DO_NOT_TRACK", "1")
        from evidently import DataDefinition, Dataset

        definition = DataDefinition(
            numerical_columns=list(spec.features.numeric), categorical_columns=list(spec.features.categorical)
        )
        numbers = pl.col(spec.features.numeric).cast(pl.Float64)
        sides = (side.select(numbers, *spec.features.categorical).to_pandas() for side in (reference, current))
        before, now = (Dataset.from_pandas(side, data_definition=definition) for side in sides)
        return cls(current=now, reference=before)

    def flagged(self, **preset: Any) -> set[str]:
        """The columns that drifted by Evidently's own verdict.

        Args:
            preset: of `DataDriftPreset`: none, what it chooses itself for each column; `method="psi", threshold=0.25`.
        """
        from evidently import Report
        from evidently.presets import DataDriftPreset

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its plots divide by the spread of constant columns
            done = Report([DataDriftPreset(**preset)], include_tests=True).run(self.current, self.reference)
        found = {}
        for test in done.dict()["tests"]:
            about = test["metric_config"]["params"]
            if about["type"].endswith("ValueDrift"):
                found[about["column"]] = str(getattr(test["status"], "value", test["status"])) == "FAIL"
        assert found, "Evidently judged no column"
        return {name for name, drifted in found.items() if drifted}

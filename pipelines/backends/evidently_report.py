"""The drift report that people read, by Evidently. Decisions are made on the exact counts of `psi.py`, not on this."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.errors import SchemaMismatch, explain
from pipelines.spec import UseCase

#: How a missing category is shown; Evidently leaves missing values out.
_NULL = "(null)"


class Evidently:
    """A `DriftReporter`. The page needs no network (about 4 MB), and nothing is sent anywhere."""

    def write(self, spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame, html: Path) -> None:
        """Compares two samples of the same feature columns and writes one HTML file, at once or not at all.

        Both kinds of columns are compared by PSI, with the spec's alarm as threshold. Evidently has its own bins, so
        its values are near the exact ones, not equal to them. A column without any value on one side is left out:
        Evidently cannot compare it.

        Raises:
            SchemaMismatch: a feature is missing, or no feature has values on both sides.
        """
        snapshot = compare(spec, reference, current)
        html.parent.mkdir(parents=True, exist_ok=True)
        draft = html.with_name(f".{html.name}.{os.getpid()}")
        try:
            snapshot.save_html(str(draft))
            draft.replace(html)
        finally:
            draft.unlink(missing_ok=True)


def compare(spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame) -> Any:
    """Evidently's snapshot of the comparison.

    Raises:
        SchemaMismatch: a feature is missing, or no feature has values on both sides.
    """
    # Evidently's telemetry asks the environment, when it is imported and later on: this is its only switch.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    sides = (_features(spec, reference, "reference"), _features(spec, current, "current"))
    columns = [name for name in spec.features.columns if all(side[name].count() for side in sides)]
    if not columns:
        raise SchemaMismatch(
            explain(
                f"{spec.name}: drift report",
                f"no feature has a value on both sides (rows: {reference.height} and {current.height})",
                allowed="two samples that are not empty",
            )
        )
    numeric = [name for name in spec.features.numeric if name in columns]
    categorical = [name for name in spec.features.categorical if name in columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its correlations divide by the spread of constant columns
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
        before, now = (
            Dataset.from_pandas(side.select(columns).to_pandas(), data_definition=definition) for side in sides
        )
        preset = DataDriftPreset(
            columns=columns,
            num_method="psi",
            cat_method="psi",
            num_threshold=spec.drift.alarm,
            cat_threshold=spec.drift.alarm,
        )
        return Report([preset], include_tests=False).run(current_data=now, reference_data=before)


def _features(spec: UseCase, rows: pl.DataFrame, side: str) -> pl.DataFrame:
    if missing := [name for name in spec.features.columns if name not in rows.columns]:
        raise SchemaMismatch(
            explain(
                f"{spec.name}: drift report",
                f"the {side} sample has no column {', '.join(missing)}",
                allowed="every feature of the spec",
            )
        )
    return rows.select(
        *(pl.col(name).cast(pl.Float64).fill_nan(None) for name in spec.features.numeric),
        *(pl.col(name).cast(pl.String).fill_null(_NULL) for name in spec.features.categorical),
    )

"""The drift report that people read, by Evidently. Decisions are made on the exact counts of `psi.py`, not on this."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from pipelines import partitions
from pipelines.backends.evidently_workspace import publish
from pipelines.errors import SchemaMismatch, explain
from pipelines.spec import UseCase

_log = logging.getLogger(__name__)
#: How a missing category is shown; Evidently leaves missing values out.
_NULL = "(null)"


class Evidently:
    """A `DriftReporter`. The page needs no network (about 4 MB), and nothing is sent anywhere."""

    def write(
        self,
        spec: UseCase,
        reference: pl.DataFrame,
        current: pl.DataFrame,
        html: Path,
        *,
        workspace: Path,
        as_of: str,
        champion: int,
    ) -> None:
        """Compares two samples of the same feature columns: a page, its figures as JSON, and a run in the workspace.

        Both kinds of columns are compared by PSI, with the spec's alarm as threshold. Evidently has its own bins, so
        its values are near the exact ones, not equal to them; a spike within one of its bins it does not see. A column
        without any value on one side is left out: Evidently cannot compare it.

        Each file appears at once or not at all, and the JSON is the same for the same samples. What goes wrong with the
        workspace is logged: the page is what people were promised.

        Raises:
            SchemaMismatch: a feature is missing, or no feature has values on both sides.
        """
        snapshot = compare(spec, reference, current, as_of=as_of, champion=champion)
        html.parent.mkdir(parents=True, exist_ok=True)
        # Beside the page, so that an erasure finds what a killed process left here.
        with TemporaryDirectory(dir=html.parent, prefix=f".{html.stem}.") as folder:
            page, figures, drafts = (Path(folder) / name for name in ("page", "figures", "workspace"))
            snapshot.save_html(str(page))
            snapshot.save_json(str(figures))
            figures.replace(html.with_suffix(".json"))
            page.replace(html)
            try:
                publish(spec, snapshot, workspace, drafts, as_of=as_of, champion=champion)
            except Exception as error:
                _log.warning("%s: %s is not in Evidently's workspace %s: %s", spec.name, html.stem, workspace, error)


def compare(spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame, *, as_of: str, champion: int) -> Any:
    """Evidently's snapshot of the comparison, dated by the partition.

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
        return Report([preset], include_tests=False).run(
            current_data=now,
            reference_data=before,
            # Evidently compares times without a zone.
            timestamp=partitions.start(as_of, spec.granularity).replace(tzinfo=None),
            metadata={"use_case": spec.name, "as_of": as_of, "champion": str(champion)},
            tags=[f"champion {champion}"],
            name=f"{as_of}, champion {champion}",
        )


def _features(spec: UseCase, rows: pl.DataFrame, side: str) -> pl.DataFrame:
    if missing := [name for name in spec.features.columns if name not in rows.columns]:
        raise SchemaMismatch(
            explain(
                f"{spec.name}: drift report",
                f"the {side} sample has no column {', '.join(missing)}",
                allowed="every feature of the spec",
            )
        )
    numbers = [pl.col(name).cast(pl.Float64) for name in spec.features.numeric]
    return rows.select(
        # Evidently's bins are equally wide, so it refuses what is infinite.
        *(pl.when(number.is_finite()).then(number) for number in numbers),
        *(pl.col(name).cast(pl.String).fill_null(_NULL) for name in spec.features.categorical),
    )

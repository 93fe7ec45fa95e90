"""The drift report that people read."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipelines import artifacts
from pipelines.errors import NotFoundError, explain
from pipelines.ports import DriftReporter, ModelRegistry, SnapshotStore
from pipelines.records import Observations
from pipelines.spec import UseCase
from pipelines.spec.base import WORKSPACE
from pipelines.steps.features import build_features
from pipelines.steps.inputs import heads
from pipelines.steps.training import SAMPLE, sample


def page(observations: Observations) -> Path:
    """Where the page of a look back lies, below the use case's reports."""
    return Path("drift") / f"{observations.as_of}-champion-{observations.champion.version}.html"


def drift_report(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    reporter: DriftReporter,
    observations: Observations,
    reports: Path,
) -> Path:
    """Writes the report that people read: the champion's training sample against a sample of the window.

    Its figures are beside it as JSON, and it is a run in the workspace that all use cases share.

    Args:
        reports: root of the reports.

    Returns:
        The HTML page.

    Raises:
        NotFoundError: nothing of the window is published.
        IntegrityError: the champion's artifact is not what was registered.
    """
    snapshots = heads(spec, store, list(dict.fromkeys(("rows", *spec.context))))
    held = store.partitions(snapshots["rows"])
    present = [seen.partition for seen in observations.window if seen.partition in held]
    if not present:
        raise NotFoundError(explain(f"{spec.name}: drift report", "no partition of the window is published"))
    features = build_features(spec, store, snapshots, present).collect()
    current = sample(features, list(spec.rows.key), spec.drift.report_rows).select(spec.features.columns)
    (sampled,) = artifacts.read(registry.fetch(observations.champion), observations.champion.digest, SAMPLE)
    reference = pl.read_parquet(sampled)
    html = reports / spec.name / page(observations)
    html.parent.mkdir(parents=True, exist_ok=True)
    reporter.write(
        spec,
        reference,
        current,
        html,
        workspace=reports / WORKSPACE,
        as_of=observations.as_of,
        champion=observations.champion.version,
    )
    return html

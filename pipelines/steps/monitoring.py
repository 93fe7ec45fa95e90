"""Monitor: drift of inputs and scores, and quality on matured labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Literal

import polars as pl

from pipelines import artifacts
from pipelines import partitions as keys
from pipelines.metrics import metrics
from pipelines.ports import DriftDetector, ModelRegistry, SnapshotStore
from pipelines.records import (
    ColumnDrift,
    Estimate,
    ModelRef,
    Observation,
    Observations,
    PublishedPartition,
    Reference,
    SnapshotRef,
    TrainingSet,
)
from pipelines.spec import GREATER_IS_BETTER, UseCase
from pipelines.steps.counted import input_drift, noted, score_drift
from pipelines.steps.features import labelled
from pipelines.steps.inputs import heads
from pipelines.steps.predictions import PREDICTIONS, score_columns
from pipelines.steps.training import served_scorecard

#: Fewer labels than this give no metric of their own: an AUC of a handful of rows is noise.
_FEWEST_LABELS = 50


def observe(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    drift: DriftDetector,
    champion: ModelRef,
    as_of: str,
    window: int | None = None,
) -> Observations:
    """Looks back on the window that ends with `as_of`: one observation a partition.

    Only predictions of the present champion are compared with its reference; a partition that another model scored
    counts as not scored. What scoring counted is added up; rows are counted here where it did not count them.

    Raises:
        NotFoundError: nothing was ingested or scored yet.
    """
    length = window or spec.drift.window
    wanted = keys.span(keys.shift(as_of, 1 - length, spec.granularity), as_of, spec.granularity)
    snapshots = heads(spec, store, list(dict.fromkeys(("rows", spec.label.table, *spec.context, PREDICTIONS))))
    folder = registry.fetch(champion)
    frozen, learned = artifacts.read(folder, champion.digest, "reference.json", "provenance.json")
    reference = Reference.model_validate_json(frozen)
    seen = TrainingSet.model_validate({"folder": "", **json.loads(learned)})

    held = store.partitions(snapshots["rows"])
    known = noted(spec, store, snapshots, champion, frozen, wanted)
    present = [key for key in wanted if key in held]
    inputs = input_drift(spec, store, drift, snapshots, frozen, present, known.inputs)
    mature = _mature(spec, store, snapshots[spec.label.table], wanted, as_of)
    read = [key for key in wanted if key in mature or key not in known.scores]
    scores = _scores(spec, store, snapshots[PREDICTIONS], champion, read)
    scored, pooled_score = score_drift(spec, drift, reference, known.scores, scores)
    labels = _labelled_scores(spec, store, snapshots, scores, mature)
    quarantined = {entry.partition for entry in store.quarantined("rows")}

    observed = []
    for key in wanted:
        mine = labels.filter(pl.col("partition") == key)
        observed.append(
            Observation(
                partition=key,
                rows=held[key].rows if key in held else 0,
                state=_state(spec, key, held, scored, quarantined),
                drift=inputs.columns.get(key, ()),
                score=scored.get(key),
                labels=mine.height,
                quality=_quality(spec, mine),
            )
        )
    served = served_scorecard(folder)
    return Observations(
        use_case=spec.name,
        as_of=as_of,
        champion=champion,
        champion_as_of=seen.as_of,
        champion_metric=served.metrics[spec.watched_metric],
        metric=spec.watched_metric,
        greater_is_better=GREATER_IS_BETTER[spec.watched_metric],
        window=tuple(observed),
        pooled=inputs.pooled,
        pooled_score=pooled_score,
        live=_quality(spec, labels),
        live_labels=labels.height,
        new_labels=_new_labels(spec, store, snapshots[spec.label.table], seen.holdout[1], as_of),
        new_labels_since=seen.holdout[1],
    )


def _state(
    spec: UseCase,
    key: str,
    held: Mapping[str, PublishedPartition],
    scored: Mapping[str, ColumnDrift],
    quarantined: set[str],
) -> Literal["observed", "missing", "quarantined", "not_scored", "few_rows"]:
    if key not in held:
        return "quarantined" if key in quarantined else "missing"
    if key not in scored and held[key].rows:
        return "not_scored"
    return "few_rows" if held[key].rows < spec.drift.min_rows else "observed"


def _scores(
    spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, champion: ModelRef, wanted: list[str]
) -> pl.DataFrame:
    """`partition`, the key, the score columns, and `score`: the score, or the highest of a multiclass row."""
    held = [key for key in wanted if key in store.partitions(snapshot)]
    names = score_columns(spec)
    rows = store.scan(snapshot, held).filter(pl.col("model_version") == champion.version)
    picked = rows.select("partition", *spec.rows.key, *names)
    return (picked if names == ["score"] else picked.with_columns(pl.max_horizontal(names).alias("score"))).collect()


def _mature(spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, wanted: list[str], as_of: str) -> list[str]:
    """The partitions whose labels are published and have matured by `as_of`."""
    newest = keys.shift(as_of, -max(spec.label.maturity, spec.tables[spec.label.table].lag), spec.granularity)
    held = store.partitions(snapshot)
    return [key for key in wanted if key <= newest and key in held]


def _labelled_scores(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    scores: pl.DataFrame,
    mature: list[str],
) -> pl.DataFrame:
    """Scores joined with the labels of mature partitions."""
    chosen = sorted(set(mature).intersection(scores.get_column("partition").unique()))
    labels = labelled(spec, store.scan(snapshots[spec.label.table], chosen)).collect()
    on = ["partition", *spec.rows.key]  # a key is unique within its partition
    return scores.filter(pl.col("partition").is_in(chosen)).join(labels, on=on, how="inner")


def _quality(spec: UseCase, rows: pl.DataFrame) -> Estimate | None:
    if rows.height < _FEWEST_LABELS:
        return None
    names = score_columns(spec)
    scores = rows.select(names).to_numpy()
    values = metrics(
        spec.label.task,
        rows.get_column("label").to_numpy(),
        scores if len(names) > 1 else scores[:, 0],
        len(spec.label.classes) or None,
    )
    found = values[spec.watched_metric]
    if math.isnan(found):  # one class only
        return None
    return Estimate(value=found, low=found, high=found, rows=rows.height)


def _new_labels(spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, seen: str, as_of: str) -> int:
    """Matured labels newer than everything that the champion was trained or judged on."""
    newest = keys.shift(as_of, -max(spec.label.maturity, spec.tables[spec.label.table].lag), spec.granularity)
    mature = [key for key in store.partitions(snapshot) if seen < key <= newest]
    rows = store.scan(snapshot, mature, [spec.label.column]).filter(pl.col(spec.label.column).is_not_null())
    return int(rows.select(pl.len()).collect().item())

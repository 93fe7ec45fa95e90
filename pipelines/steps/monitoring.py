"""Monitor: drift of inputs and scores, quality on matured labels, and the health of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from pipelines import artifacts
from pipelines import partitions as keys
from pipelines.errors import NotFoundError, explain
from pipelines.ports import DriftDetector, ModelRegistry, SnapshotStore
from pipelines.records import (
    ColumnDrift,
    ModelRef,
    Observation,
    Observations,
    PublishedPartition,
    Reference,
    Skew,
    SnapshotRef,
    TrainingSet,
)
from pipelines.spec import GREATER_IS_BETTER, UseCase
from pipelines.steps.counted import Noted, input_drift, noted, score_drift
from pipelines.steps.inputs import heads
from pipelines.steps.predictions import DECISION, PREDICTIONS, score_columns
from pipelines.steps.provenance import Books, Part
from pipelines.steps.training import served_scorecard
from pipelines.steps.watching.health import health
from pipelines.steps.watching.labels import Labelled, labelled_scores, late, mature, newer_labels
from pipelines.steps.watching.quality import expected, measured, over_nights
from pipelines.steps.watching.skew import skew
from pipelines.steps.watching.slices import fairness, slices


def newest(spec: UseCase, store: SnapshotStore) -> str:
    """The newest partition that has scores.

    Raises:
        NotFoundError: nothing is scored yet.
    """
    head = store.head(PREDICTIONS)
    held = store.partitions(head) if head is not None else {}
    if not held:
        raise NotFoundError(
            explain(f"{spec.name}: monitoring", "nothing is scored yet", remedy=f"`overnight score {spec.name} ...`")
        )
    return max(held)


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
        IntegrityError: the champion's artifact has no reference, or one that cannot be read.
    """
    length = window or spec.drift.window
    wanted = keys.span(keys.shift(as_of, 1 - length, spec.granularity), as_of, spec.granularity)
    snapshots = heads(spec, store, list(dict.fromkeys(("rows", *spec.context, PREDICTIONS))))
    told = store.head(spec.label.table)
    if told is not None:  # labels may be the last to come
        snapshots[spec.label.table] = told
    folder = registry.fetch(champion)
    frozen, learned = artifacts.read(folder, champion.digest, "reference.json", "provenance.json")
    reference = Reference.model_validate_json(frozen)
    seen = TrainingSet.model_validate({"folder": "", **json.loads(learned)})

    held = store.partitions(snapshots["rows"])
    known = noted(spec, store, snapshots, champion, frozen, wanted)
    present = [key for key in wanted if key in held]
    inputs = input_drift(spec, store, drift, snapshots, frozen, present, known.inputs)
    scores = _scores(spec, store, snapshots[PREDICTIONS], champion, wanted)
    scored, pooled_score = score_drift(spec, drift, reference, known.scores, scores)
    ripe = mature(spec, store, told, wanted, as_of) if told is not None else []
    labels = _labels(spec, store, snapshots, scores, ripe)
    quarantined = {entry.partition for entry in store.quarantined("rows")}
    decisions = _decisions(scores, known)

    observed = []
    for key in wanted:
        mine = labels.rows.filter(pl.col("partition") == key)
        observed.append(
            Observation(
                partition=key,
                rows=held[key].rows if key in held else 0,
                state=_state(spec, key, held, scored, quarantined),
                drift=inputs.columns.get(key, ()),
                score=scored.get(key),
                decisions=decisions.get(key, {}),
                labels=mine.height,
                unlabelled=labels.unlabelled.get(key, 0),
                quality=measured(spec, mine),
                expected=expected(spec, scores.filter(pl.col("partition") == key)),
            )
        )
    served = served_scorecard(folder)
    published = store.partitions(told) if told is not None else {}
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
        live=over_nights(
            spec, measured(spec, labels.rows), [each.quality for each in observed if each.quality is not None]
        ),
        live_labels=labels.rows.height,
        expected=expected(spec, scores.filter(~pl.col("partition").is_in(ripe))),
        new_labels=newer_labels(spec, store, told, seen.holdout[1], as_of) if told is not None else 0,
        new_labels_since=seen.holdout[1],
        health=health(
            spec,
            store,
            observed,
            held,
            labels,
            late(spec, published, [key for key in wanted if key in scored], as_of),
            _skew(spec, store, registry, snapshots, scored),
        ),
        slices=slices(spec, store, snapshots, scores.filter(pl.col("partition").is_in(ripe)), labels.rows),
        fairness=fairness(spec, store, snapshots, champion.version, sorted(scored)),
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
    spec: UseCase, store: SnapshotStore, snapshot: SnapshotRef, champion: ModelRef, wanted: Sequence[str]
) -> pl.DataFrame:
    """`partition`, the key, the score columns, what was decided (if anything), and `score`: the score, or the highest
    of a multiclass row."""
    held = [key for key in wanted if key in store.partitions(snapshot)]
    names = score_columns(spec)
    rows = store.scan(snapshot, held).filter(pl.col("model_version") == champion.version)
    decided = [DECISION] if DECISION in rows.collect_schema().names() else []
    picked = rows.select("partition", *spec.rows.key, *names, *decided)
    return (picked if names == ["score"] else picked.with_columns(pl.max_horizontal(names).alias("score"))).collect()


def _labels(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    scores: pl.DataFrame,
    ripe: Sequence[str],
) -> Labelled:
    if spec.label.table in snapshots:
        return labelled_scores(spec, store, snapshots, scores, ripe)
    nothing = scores.clear().with_columns(pl.lit(None, dtype=pl.Float32).alias("label"))
    return Labelled(rows=nothing, unlabelled={}, strange=0, disagreeing=0)


def _decisions(scores: pl.DataFrame, known: Noted) -> dict[str, dict[str, float]]:
    """Share of rows by what was decided of them: as it was counted, else from the rows."""
    counts = {key: dict(each) for key, each in known.decisions.items()}
    if DECISION in scores.columns:
        rest = scores.filter(~pl.col("partition").is_in(list(counts)))
        for key, value, count in rest.group_by("partition", DECISION).len().sort("partition", DECISION).iter_rows():
            counts.setdefault(key, {})[str(value).lower() if isinstance(value, bool) else str(value)] = count
    shares = {}
    for key, found in counts.items():
        total = sum(found.values())
        shares[key] = {name: count / total for name, count in sorted(found.items())} if total else {}
    return shares


def _skew(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    snapshots: Mapping[str, SnapshotRef],
    scored: Mapping[str, ColumnDrift],
) -> Skew | None:
    """Of the newest scored partition, on what scoring read of it: an input that was restated since is no skew."""
    newest = max(scored, default=None)
    if newest is None or not spec.drift.skew_rows:
        return None
    digest = store.partitions(snapshots[PREDICTIONS])[newest].digest
    made = Books(spec=spec, store=store, registry=registry).scoring(
        Part(table=PREDICTIONS, partition=newest, digest=digest)
    )
    read = made.snapshots if made is not None else {}
    if not {"rows", *spec.context} <= set(read):
        return None
    return skew(spec, store, read, newest)

"""Drift of each partition: from what scoring counted of it where that still holds, from its rows elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import ValidationError

from pipelines.counts import NOTE, added, total
from pipelines.ports import DriftDetector, SnapshotStore
from pipelines.records import ColumnCounts, ColumnDrift, Counts, ModelRef, Reference, SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import build_features
from pipelines.steps.inputs import fingerprint, input_digests, used
from pipelines.steps.predictions import PREDICTIONS, published_predictions


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What scoring counted, by partition, each where it is of the champion and of what is published now."""

    inputs: Mapping[str, Counts]
    """No entry where the inputs were restated since: these rows are not those that were counted."""
    scores: Mapping[str, ColumnCounts]
    decisions: Mapping[str, Mapping[str, int]]
    """Rows by what was decided of them."""


def noted(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    champion: ModelRef,
    reference: bytes,
    wanted: Sequence[str],
) -> Noted:
    """Reads the counts that the prediction files carry.

    A partition that another model scored, or an older version of the project, or that an erasure rewrote, has none;
    nor has one whose counts cannot be read.

    Args:
        snapshots: of the predictions, the rows and each context table.
        reference: the champion's reference.json.
        wanted: keys, published or not.
    """
    held = store.partitions(snapshots[PREDICTIONS])
    made = published_predictions(store)
    mine = [key for key in wanted if key in held and made.get(key, {}).get("model") == champion.version]
    if not mine:
        return Noted(inputs={}, scores={}, decisions={})
    digest = hashlib.sha256(reference).hexdigest()
    found = {key: _read(text) for key, text in store.notes(snapshots[PREDICTIONS], mine, NOTE).items()}
    counts = {
        key: each
        for key, each in found.items()
        if each is not None and each.reference == digest and each.rows == held[key].rows
    }
    digests = {table: input_digests(store, snapshots[table]) for table in ("rows", *spec.context)}
    features = spec.features.columns
    return Noted(
        inputs={
            key: each.model_copy(update={"columns": {name: each.columns[name] for name in features}})
            for key, each in counts.items()
            if key in digests["rows"]
            and made[key].get("inputs") == fingerprint(used(spec, digests, key))
            and set(features) <= set(each.columns)
        },
        scores={key: each.score for key, each in counts.items() if each.score is not None},
        decisions={key: each.decisions for key, each in counts.items() if each.score is not None},
    )


def _read(text: str) -> Counts | None:
    try:
        return Counts.model_validate_json(text)
    except ValidationError:
        return None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Of every partition that has rows, and of all of them taken together."""

    columns: Mapping[str, tuple[ColumnDrift, ...]]
    pooled: tuple[ColumnDrift, ...]
    """Empty when there are no rows."""


def input_drift(
    spec: UseCase,
    store: SnapshotStore,
    detector: DriftDetector,
    snapshots: Mapping[str, SnapshotRef],
    reference: bytes,
    present: Sequence[str],
    known: Mapping[str, Counts],
) -> Drift:
    """Drift of the inputs: of partitions with known counts by them, of the others by counting their rows.

    Args:
        present: published keys.

    Raises:
        SchemaMismatch: a feature is missing, in the rows or in the reference.
    """
    frozen = Reference.model_validate_json(reference)
    unknown = [key for key in present if key not in known]
    counts = {key: known[key] for key in present if key in known and known[key].rows}
    if unknown:
        counts |= detector.count(spec, reference, build_features(spec, store, snapshots, unknown))
    return Drift(
        columns={key: detector.drift_of(spec, frozen, each, key) for key, each in counts.items()},
        pooled=detector.drift_of(spec, frozen, total(counts.values()), None) if counts else (),
    )


def score_drift(
    spec: UseCase,
    detector: DriftDetector,
    reference: Reference,
    known: Mapping[str, ColumnCounts],
    scores: pl.DataFrame,
) -> tuple[dict[str, ColumnDrift], ColumnDrift | None]:
    """Drift of the champion's scores by partition, and of all of them; None without any.

    Args:
        scores: `partition` and `score`, at least of the partitions without known counts.
    """
    counts = {key: each for key, each in known.items() if sum(each.bins) + each.nulls}
    rest = scores.lazy().select("partition", "score").filter(~pl.col("partition").is_in(list(known)))
    counts |= detector.count_scores(spec, reference, rest)
    pooled = detector.drift_of_scores(spec, reference, added(list(counts.values()))) if counts else None
    return {key: detector.drift_of_scores(spec, reference, each) for key, each in counts.items()}, pooled

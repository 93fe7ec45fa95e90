"""Records turned into readings of metrics. Pure: nothing here reads a store, the environment or the clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, get_args

from pipelines import partitions as keys
from pipelines.partitions import Granularity
from pipelines.records import (
    ColumnDrift,
    Estimate,
    ModelRef,
    Night,
    Observation,
    Observations,
    Promotion,
    RetrainDecision,
)
from pipelines.spec import AlertKind
from pipelines.telemetry import catalogue as metrics
from pipelines.telemetry.catalogue import Metric

#: A level as a number.
LEVELS = {"unknown": 0, "calm": 1, "warning": 2, "alarm": 3}
_WINDOW_STATES = get_args(Observation.model_fields["state"].annotation)
#: What a night is, one of these: the present scores are of the present input; of a former one; refused by their audit;
#: not made; not to be made, for the rows are in quarantine, landed only, not there, or not due yet.
NIGHT_STATES = ("scored", "outdated", "refused", "unscored", "quarantined", "landed", "missing", "to_come")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One number of one series."""

    name: str
    unit: str
    description: str
    value: float
    attributes: Mapping[str, str]


class Incident(Protocol):
    """What is read of an alert."""

    @property
    def kind(self) -> AlertKind:
        """What is wrong."""

    @property
    def since(self) -> datetime:
        """Since when (UTC)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was found of one use case at one moment."""

    use_case: str
    granularity: Granularity
    champion: ModelRef | None
    decision: RetrainDecision | None
    """The newest one about the present champion."""
    evidence: Observations | None
    """What that was decided on."""
    decisions: Sequence[RetrainDecision]
    """The whole log."""
    promotions: Sequence[Promotion]
    nights: Sequence[Night]
    """In their order."""
    alerts: Sequence[Incident]
    """The open ones."""


def readings(look: Look) -> tuple[Reading, ...]:
    """Every number of a use case. What is not known has no reading: none of them stands for a missing value."""
    found = [
        *_champion(look),
        *_decisions(look),
        *_nights(look),
        *_alerts(look),
    ]
    if look.evidence is not None:
        found += [*_drift(look.evidence), *_quality(look.evidence), *_data(look.evidence), *_groups(look.evidence)]
    return tuple(
        Reading(
            name=each.metric.name,
            unit=each.metric.unit,
            description=each.metric.description,
            value=float(each.value),
            attributes={"use_case": look.use_case, **each.attributes},
        )
        for each in found
        if each.value is not None and not math.isnan(each.value)
    )


@dataclass(frozen=True, slots=True)
class _Told:
    metric: Metric
    value: float | None
    attributes: Mapping[str, str]


def _tell(metric: Metric, value: float | None, /, **attributes: str) -> _Told:
    assert set(attributes) == set(metric.attributes), metric.name
    return _Told(metric, value, attributes)


def _tell_interval(
    metric: tuple[Metric, Metric, Metric], found: Estimate | None, /, **attributes: str
) -> Iterator[_Told]:
    if found is not None:
        for part, value in zip(metric, (found.value, found.low, found.high), strict=True):
            yield _tell(part, value, **attributes)


# -- what a monitor run saw --------------------------------------------------------------------------------------------


def _drift(seen: Observations) -> Iterator[_Told]:
    newest = _newest(seen)
    scopes: dict[str, tuple[Sequence[ColumnDrift], ColumnDrift | None]] = {"window": (seen.pooled, seen.pooled_score)}
    if newest is not None:
        scopes["partition"] = (newest.drift, newest.score)
        for decision, share in newest.decisions.items():
            yield _tell(metrics.DECIDED, share, decision=decision)
    for scope, (columns, score) in scopes.items():
        for column in columns:
            yield from _column(column, "input", scope)
        if score is not None:
            yield from _column(score, "score", scope)


def _column(found: ColumnDrift, kind: str, scope: str) -> Iterator[_Told]:
    series = {"kind": kind, "column": found.column, "scope": scope}
    yield _tell(metrics.PSI, found.psi, **series)
    yield _tell(metrics.THRESHOLD, found.warn_at, **series, level="warning")
    yield _tell(metrics.THRESHOLD, found.alarm_at, **series, level="alarm")
    yield _tell(metrics.LEVEL, LEVELS[found.level], **series)
    yield _tell(metrics.JS, found.js, **series)
    yield _tell(metrics.NULLS, found.null_share, **series)
    yield _tell(metrics.UNSEEN, found.unseen_share, **series)
    yield _tell(metrics.VANISHED, len(found.vanished), **series)


def _newest(seen: Observations) -> Observation | None:
    return next((each for each in seen.window if each.partition == seen.as_of), None)


def _quality(seen: Observations) -> Iterator[_Told]:
    metric = seen.metric
    measured = next((each.quality for each in reversed(seen.window) if each.quality is not None), None)
    expected = next((each.expected for each in reversed(seen.window) if each.expected is not None), None)
    yield from _tell_interval(metrics.MEASURED, seen.live, metric=metric, scope="window")
    yield from _tell_interval(metrics.MEASURED, measured, metric=metric, scope="partition")
    yield from _tell_interval(metrics.EXPECTED, seen.expected, metric=metric, scope="window")
    yield from _tell_interval(metrics.EXPECTED, expected, metric=metric, scope="partition")
    yield _tell(metrics.HOLDOUT, seen.champion_metric, metric=metric)
    found = seen.health
    yield _tell(metrics.LABELS, seen.live_labels)
    yield _tell(metrics.NEW_LABELS, seen.new_labels)
    yield _tell(metrics.UNLABELLED, found.unlabelled)
    yield _tell(metrics.LATE_LABELS, len(found.late_labels))
    yield _tell(metrics.STRANGE, found.strange_labels)
    yield _tell(metrics.DISAGREEING, found.disagreeing_labels)
    yield _tell(metrics.RESTATED, len(found.restated_labels))


def _data(seen: Observations) -> Iterator[_Told]:
    newest, found = _newest(seen), seen.health
    yield _tell(metrics.ROWS, newest.rows if newest is not None else None)
    states = Counter(each.state for each in seen.window)
    for state in _WINDOW_STATES:
        yield _tell(metrics.WINDOW, states[state], state=state)
    yield _tell(metrics.FAILED, found.failed)
    yield _tell(metrics.BEHIND, found.behind)
    if found.skew is not None:
        yield _tell(metrics.SKEW_SAMPLE, found.skew.rows)
        yield _tell(metrics.SKEW_COLUMNS, len(found.skew.columns))
        for column, rows in found.skew.columns.items():
            yield _tell(metrics.SKEW_ROWS, rows, column=column)


def _groups(seen: Observations) -> Iterator[_Told]:
    for part in seen.slices:
        series = {"column": part.column, "value": part.value}
        yield from _tell_interval(metrics.SLICE, part.quality, **series, metric=seen.metric)
        yield _tell(metrics.SLICE_ROWS, part.rows, **series)
        yield _tell(metrics.SLICE_LABELS, part.labels, **series)
    for column in seen.fairness:
        yield _tell(metrics.RATIO, column.ratio, column=column.column)
        for group, share in column.selected.items():
            yield _tell(metrics.SELECTED, share, column=column.column, group=group)


# -- what was decided and promoted -------------------------------------------------------------------------------------


def _decisions(look: Look) -> Iterator[_Told]:
    newest = look.decision
    if newest is None:
        return
    month = newest.as_of[: len("2024-01")]
    yield _tell(metrics.AS_OF, keys.end(newest.as_of, look.granularity).timestamp())
    yield _tell(metrics.RETRAIN, newest.retrain)
    yield _tell(metrics.ESCALATED, newest.escalate)
    yield _tell(metrics.MONTH, len({each.id for each in look.decisions if each.retrain and each.as_of[:7] == month}))
    for signal in newest.signals:
        yield _tell(metrics.SIGNAL, LEVELS[signal.level], signal=signal.name)


def _champion(look: Look) -> Iterator[_Told]:
    if look.champion is None:
        return
    yield _tell(metrics.CHAMPION, look.champion.version)
    changes = Counter(entry.kind for entry in look.promotions)
    yield _tell(metrics.PROMOTIONS, changes["promote"], change="promote")
    yield _tell(metrics.PROMOTIONS, changes["rollback"], change="rollback")
    seen = look.evidence
    if seen is not None and seen.champion_as_of is not None:
        first, last = sorted((seen.champion_as_of, seen.as_of))
        age = len(keys.span(first, last, look.granularity)) - 1
        yield _tell(metrics.CHAMPION_AGE, age)


# -- nights and alerts -------------------------------------------------------------------------------------------------


def _nights(look: Look) -> Iterator[_Told]:
    if not look.nights:
        return
    states = Counter(_state(night) for night in look.nights)
    for state in NIGHT_STATES:
        yield _tell(metrics.NIGHTS, states[state], state=state)
    yield _tell(metrics.LATE, sum(night.late for night in look.nights))
    yield _tell(metrics.GAPS, sum(night.gap for night in look.nights))
    yield _tell(metrics.UNPUNCTUAL, sum(night.labels == "late" for night in look.nights))
    scored = max((night.partition for night in look.nights if night.scores is not None), default=None)
    if scored is not None:
        yield _tell(metrics.SCORED, keys.end(scored, look.granularity).timestamp())
    after = [night for night in look.nights if scored is None or night.partition > scored]
    yield _tell(metrics.SCORED_BEHIND, sum(night.input != "to_come" for night in after))


def _state(night: Night) -> str:
    if night.scores is not None:
        return "outdated" if night.due else "scored"
    if night.refused:
        return "refused"
    return "unscored" if night.input == "ingested" else night.input


def _alerts(look: Look) -> Iterator[_Told]:
    for kind in get_args(AlertKind):
        mine = [alert.since for alert in look.alerts if alert.kind == kind]
        yield _tell(metrics.ALERTS, len(mine), kind=kind)
        yield _tell(metrics.ALERTS_SINCE, min(mine).timestamp() if mine else None, kind=kind)

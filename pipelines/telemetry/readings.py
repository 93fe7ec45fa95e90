"""Records as numbers with names and attributes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines import partitions
from pipelines.partitions import Granularity
from pipelines.records import Alert, ColumnDrift, Estimate, Night, Observations, Promotion, RetrainDecision

#: Name, unit (UCUM; empty: a plain number) and description of every metric.
METRICS: dict[str, tuple[str, str]] = {
    "overnight.drift.psi": ("", "Population stability index; scope: the newest partition, or the window together"),
    "overnight.drift.warn_at": ("", "Index from which it is a warning"),
    "overnight.drift.alarm_at": ("", "Index from which it is an alarm"),
    "overnight.drift.level": ("", "0 unknown, 1 calm, 2 warning, 3 alarm"),
    "overnight.drift.jensen_shannon": ("", "Jensen-Shannon distance of a categorical column"),
    "overnight.drift.null_share": ("", "Share of missing values"),
    "overnight.drift.unseen_share": ("", "Share of values that the reference did not hold"),
    "overnight.decision.share": ("", "Share of the newest partition's rows by what was decided"),
    "overnight.quality.measured": ("", "The watched metric on matured labels of the window"),
    "overnight.quality.expected": ("", "The same from calibrated scores alone, where labels have not matured"),
    "overnight.quality.champion": ("", "The same of the champion on its own holdout"),
    "overnight.labels.matured": ("", "Matured labels of scored rows in the window"),
    "overnight.labels.new": ("", "Matured labels newer than what the champion saw"),
    "overnight.labels.absent": ("", "Scored rows whose label should have matured and is not there"),
    "overnight.labels.late": ("", "Partitions whose labels should have matured and are not published"),
    "overnight.labels.strange": ("", "Labels of keys that no scored row has"),
    "overnight.labels.disagreeing": ("", "Keys with several labels that differ"),
    "overnight.labels.restated": ("", "Partitions whose labels were published more than once"),
    "overnight.data.partitions": ("", "Partitions of the window by state"),
    "overnight.data.failed_validations": ("", "Validations of the window's partitions that failed"),
    "overnight.data.behind": ("", "Partitions between the newest published one and the one looked at"),
    "overnight.skew.rows": ("", "Rows of the nightly sample whose feature differs between scoring and training"),
    "overnight.slice.quality": ("", "The watched metric of the window's rows with one value of a column"),
    "overnight.slice.labels": ("", "Matured labels of these rows"),
    "overnight.fairness.selected": ("", "Share of a group's rows decided for"),
    "overnight.fairness.ratio": ("", "The lowest of these shares by the highest"),
    "overnight.signal.level": ("", "0 unknown, 1 calm, 2 warning, 3 alarm"),
    "overnight.retrain.decided": ("", "1: the newest decision is to retrain"),
    "overnight.retrain.escalated": ("", "1: the newest decision asks a person to look"),
    "overnight.retrain.month": ("", "Retrainings decided on in the month of the newest decision"),
    "overnight.retrain.decisions": ("", "Decisions in the log, by answer"),
    "overnight.champion.version": ("", "Version of the champion"),
    "overnight.champion.epoch": ("", "Promotions and rollbacks so far"),
    "overnight.champion.age": ("", "Partitions since the champion's training was asked for"),
    "overnight.monitored.time": ("s", "Begin of the newest partition that was decided on, as Unix time"),
    "overnight.scored.time": ("s", "Begin of the newest partition with published scores, as Unix time"),
    "overnight.nights": ("", "Nights of the last two months by the state of their rows"),
    "overnight.nights.late": ("", "Nights whose scores are past their deadline"),
    "overnight.nights.due": ("", "Nights that a run would score now"),
    "overnight.alerts.open": ("", "Open incidents by kind"),
    "overnight.read.success": ("", "1: the last reading of the tables succeeded; 0: older numbers are shown"),
    "overnight.read.duration": ("s", "What the last reading took"),
}

_LEVELS = {"unknown": 0, "calm": 1, "warning": 2, "alarm": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One number."""

    name: str
    """Of `METRICS`."""
    value: float
    attributes: dict[str, str] = field(default_factory=dict)


def of_decisions(log: Sequence[tuple[RetrainDecision, Observations | None]], granularity: Granularity) -> list[Reading]:
    """What the newest decision was made on, and how many there were.

    Args:
        log: decisions with their evidence, in the order of their partitions; those of backfills count as well.
    """
    if not log:
        return []
    newest, evidence = log[-1]
    month = newest.as_of[: len("2024-01")]
    answers = Counter("yes" if each.retrain else "no" for each, _ in log)
    found = [
        _one("retrain.decided", newest.retrain),
        _one("retrain.escalated", newest.escalate),
        _one("retrain.month", sum(each.retrain and each.as_of.startswith(month) for each, _ in log)),
        _one("monitored.time", partitions.start(newest.as_of, granularity).timestamp()),
        *(_one("retrain.decisions", count, answer=answer) for answer, count in answers.items()),
        *(_one("signal.level", _LEVELS[signal.level], signal=signal.name) for signal in newest.signals),
    ]
    return found if evidence is None else [*found, *_observed(evidence, granularity)]


def _observed(seen: Observations, granularity: Granularity) -> Iterator[Reading]:
    newest = seen.window[-1] if seen.window else None
    if newest is not None:
        yield from _drifts(newest.drift, newest.score, "newest")
        for decision, share in newest.decisions.items():
            yield _one("decision.share", share, decision=decision)
    yield from _drifts(seen.pooled, seen.pooled_score, "window")
    yield from _estimate("quality.measured", seen.live, metric=seen.metric)
    yield from _estimate("quality.expected", seen.expected, metric=seen.metric)
    yield _one("quality.champion", seen.champion_metric, metric=seen.metric)
    yield _one("labels.matured", seen.live_labels)
    yield _one("labels.new", seen.new_labels)
    health = seen.health
    yield _one("labels.absent", health.unlabelled)
    yield _one("labels.late", len(health.late_labels))
    yield _one("labels.strange", health.strange_labels)
    yield _one("labels.disagreeing", health.disagreeing_labels)
    yield _one("labels.restated", len(health.restated_labels))
    states = Counter(each.state for each in seen.window)
    for state in ("observed", "missing", "quarantined", "not_scored", "few_rows"):
        yield _one("data.partitions", states[state], state=state)
    yield _one("data.failed_validations", health.failed)
    yield _one("data.behind", health.behind)
    if health.skew is not None:
        yield _one("skew.rows", sum(health.skew.columns.values()), column="(all)")
        for column, rows in health.skew.columns.items():
            yield _one("skew.rows", rows, column=column)
    for part in seen.slices:
        yield from _estimate("slice.quality", part.quality, metric=seen.metric, column=part.column, value=part.value)
        yield _one("slice.labels", part.labels, column=part.column, value=part.value)
    for group in seen.fairness:
        for value, share in group.selected.items():
            yield _one("fairness.selected", share, column=group.column, value=value)
        if group.ratio is not None:
            yield _one("fairness.ratio", group.ratio, column=group.column)
    yield _one("champion.version", seen.champion.version)
    if seen.champion_as_of is not None and seen.champion_as_of <= seen.as_of:
        age = len(partitions.span(seen.champion_as_of, seen.as_of, granularity)) - 1
        yield _one("champion.age", age)


def _drifts(columns: Sequence[ColumnDrift], score: ColumnDrift | None, scope: str) -> Iterator[Reading]:
    for kind, drift in [("feature", each) for each in columns] + ([("score", score)] if score is not None else []):
        about = {"column": drift.column, "kind": kind, "scope": scope}
        numbers = {
            "psi": drift.psi,
            "warn_at": drift.warn_at,
            "alarm_at": drift.alarm_at,
            "level": _LEVELS[drift.level],
            "jensen_shannon": drift.js,
            "null_share": drift.null_share,
            "unseen_share": drift.unseen_share,
        }
        for name, value in numbers.items():
            if value is not None:
                yield _one(f"drift.{name}", value, **about)


def _estimate(name: str, found: Estimate | None, /, **about: str) -> Iterator[Reading]:
    if found is not None:
        for end in ("value", "low", "high"):
            yield _one(name, getattr(found, end), end=end, **about)


def of_promotions(log: Sequence[Promotion]) -> list[Reading]:
    """How many times the champion changed."""
    return [_one("champion.epoch", log[-1].epoch)] if log else []


def of_nights(nights: Sequence[Night], granularity: Granularity) -> list[Reading]:
    """What the nights lack, and the newest that has scores."""
    states = Counter(night.input for night in nights)
    scored = [night.partition for night in nights if night.scores is not None]
    found = [_one("nights", count, state=state) for state, count in sorted(states.items())]
    found += [_one("nights.late", sum(night.late for night in nights))]
    found += [_one("nights.due", sum(night.due is not None for night in nights))]
    if scored:
        found.append(_one("scored.time", partitions.start(max(scored), granularity).timestamp()))
    return found


def of_alerts(open_: Sequence[Alert], kinds: Sequence[str]) -> list[Reading]:
    """How many incidents of each kind are open: none is a number as well."""
    counts = Counter(alert.kind for alert in open_)
    return [_one("alerts.open", counts[kind], kind=kind) for kind in kinds]  # type: ignore[index]


def of_reading(seconds: float, *, good: bool) -> list[Reading]:
    """How the reading itself went."""
    return [_one("read.success", good), _one("read.duration", seconds)]


def _one(name: str, value: float, /, **about: str) -> Reading:
    return Reading(name=f"overnight.{name}", value=float(value), attributes=about)

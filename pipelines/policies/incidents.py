"""What of a monitor run people are told: one condition for each kind of incident. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pipelines.records import ColumnDrift, Condition, Observation, Observations, RetrainDecision, Signal
from pipelines.spec import AlertKind, UseCase

#: A message names so many columns or partitions; the rest is counted.
_NAMED = 5


def conditions(observations: Observations, decision: RetrainDecision, spec: UseCase) -> tuple[Condition, ...]:
    """Every kind that a monitor run can tell of, raised or not.

    Drift is raised by the newest partition alone, as a warning: whoever broke a column wants to know it the same
    morning. It is an alarm once the policy's window is in alarm.
    """
    return (
        _drift("inputs", observations, decision, spec),
        _drift("scores", observations, decision, spec),
        _decay(observations, decision),
        _data(observations),
        _labels(observations),
        _skew(observations, spec),
        _person(observations, decision),
    )


def _drift(
    kind: Literal["inputs", "scores"], observations: Observations, decision: RetrainDecision, spec: UseCase
) -> Condition:
    signal = _signal(kind, decision)
    judged = [each for each in observations.window if each.state == "observed" and _columns(kind, each, spec)]
    newest = judged[-1] if judged and judged[-1].partition == observations.as_of else None
    loud = [each for each in judged if _loud(kind, each, spec)]
    lasting = signal is not None and signal.level == "alarm"
    if newest is None and not lasting:
        return Condition(kind=kind, state="unknown")
    if not lasting and (newest is None or newest not in loud):
        return Condition(kind=kind, state="over")
    worst: dict[str, ColumnDrift] = {}
    for each in loud:
        for drift in _loud(kind, each, spec):
            if drift.column not in worst or drift.psi > worst[drift.column].psi:
                worst[drift.column] = drift
    ranked = sorted(worst.values(), key=lambda drift: (-drift.psi / (drift.alarm_at or 1), drift.column))
    named = _listed([_said(drift) for drift in ranked])
    of_what = "a feature drifts" if len(ranked) == 1 else f"{len(ranked)} features drift"
    if kind == "scores":
        of_what = "the scores drift"
    return Condition(
        kind=kind,
        state="raised",
        level="alarm" if lasting else "warning",
        partition=_begun(judged, loud),
        what=f"{of_what}, in {len(loud)} of {len(judged)} judged partitions of the window: {named}",
        remedy=_drift_remedy(decision),
    )


def _columns(kind: str, each: Observation, spec: UseCase) -> tuple[ColumnDrift, ...]:
    if kind == "scores":
        return () if each.score is None else (each.score,)
    return tuple(drift for drift in each.drift if drift.column not in spec.drift.ignore)


def _loud(kind: str, each: Observation, spec: UseCase) -> list[ColumnDrift]:
    return [drift for drift in _columns(kind, each, spec) if drift.level == "alarm"]


def _begun(judged: Sequence[Observation], loud: Sequence[Observation]) -> str:
    """The first partition of the alarms that reach to the newest judged one; else the first in alarm."""
    begun = loud[0].partition
    for before, each in pairwise(judged):
        if each in loud and before not in loud:
            begun = each.partition
    return begun


def _said(drift: ColumnDrift) -> str:
    told = f"{drift.column} PSI {drift.psi:.3f}"
    if drift.alarm_at is not None:
        told += f" (alarm from {drift.alarm_at:.3f})"
    if drift.null_share > 0.01:
        told += f", {drift.null_share:.1%} missing"
    if drift.unseen_share > 0.01:
        told += f", {drift.unseen_share:.1%} never seen before"
    return told


def _drift_remedy(decision: RetrainDecision) -> str:
    if decision.retrain:
        return f"a retraining was started ({decision.id}): see whether its challenger passes the gates"
    return (
        "open the drift report: if a source changed (a unit, a sensor, a code), have it mended and ingest again; "
        "if the world changed, the policy retrains once it lasts and labels have matured"
    )


def _decay(observations: Observations, decision: RetrainDecision) -> Condition:
    signal = _signal("decay", decision)
    if signal is None or signal.level == "unknown":
        return Condition(kind="decay", state="unknown")
    if signal.level != "alarm":
        return Condition(kind="decay", state="over")
    return Condition(
        kind="decay",
        state="raised",
        partition=signal.since or observations.as_of,
        what=signal.told.removeprefix("decay: "),
        remedy=f"a retraining was started ({decision.id}): see whether its challenger passes the gates"
        if decision.retrain
        else "see why it is not retrained: "
        f"`overnight decisions {observations.use_case} --since {observations.as_of} --reasons`",
    )


def _data(observations: Observations) -> Condition:
    lost = [each for each in observations.window if each.state in ("missing", "quarantined")]
    if not lost:
        return Condition(kind="data", state="over")
    of_what = ", ".join(
        f"{len(keys)} {state} ({_listed(keys)})"
        for state in ("missing", "quarantined")
        if (keys := [each.partition for each in lost if each.state == state])
    )
    name = observations.use_case
    return Condition(
        kind="data",
        state="raised",
        level="warning",
        partition=lost[0].partition,
        what=f"partitions of rows: {of_what}",
        remedy=f"`overnight nights {name}` says what each lacks: have its file sent or mended, then run {name}_ingest",
    )


def _labels(observations: Observations) -> Condition:
    found = observations.health
    told = []
    if found.late_labels:
        told.append(f"matured labels of {_listed(found.late_labels)} are not published")
    if found.disagreeing_labels:
        told.append(f"{found.disagreeing_labels} keys have labels that disagree: none of them is believed")
    if not told:
        return Condition(kind="labels", state="over")
    return Condition(
        kind="labels",
        state="raised",
        level="warning",
        partition=min(found.late_labels, default=observations.window[0].partition),
        what="; ".join(told),
        remedy="ask whoever sends the labels; until they are there, quality is an estimate from the scores alone",
    )


def _skew(observations: Observations, spec: UseCase) -> Condition:
    found = observations.health.skew
    if found is None:
        return Condition(kind="skew", state="unknown")
    if not found.columns:
        return Condition(kind="skew", state="over")
    return Condition(
        kind="skew",
        state="raised",
        partition=found.partition,
        what=f"features of the same {found.rows} rows differ between scoring and training: "
        + _listed([f"{column} in {rows}" for column, rows in sorted(found.columns.items())]),
        remedy=f"mend {spec.features.function or 'the features'}: a feature must depend on its own row and on context "
        "of the past alone; no retraining starts before",
    )


def _person(observations: Observations, decision: RetrainDecision) -> Condition:
    if not decision.escalate:
        return Condition(kind="person", state="over")
    told = next((one for one in decision.reasons if one.startswith("challenger: ")), "challenger: the last one lost")
    lost = told.removeprefix("challenger: ")
    return Condition(
        kind="person",
        state="raised",
        partition=observations.as_of,
        what=f"there is reason to retrain, and training on this data did not help: {lost}",
        remedy="look at what changed: a mended source, other features or a rollback may help; "
        f"{observations.use_case}_train can be triggered by hand",
    )


def _signal(name: str, decision: RetrainDecision) -> Signal | None:
    return next((signal for signal in decision.signals if signal.name == name), None)


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")


#: Kinds that a monitor run may open and end.
KINDS: tuple[AlertKind, ...] = ("inputs", "scores", "decay", "data", "labels", "skew", "person")

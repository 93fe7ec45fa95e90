"""The retraining policy: a monitor run's observations in, yes or no with every reason out. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from pipelines import partitions
from pipelines.errors import SpecError, explain
from pipelines.records import Observation, Observations, RetrainDecision, TrainingOutcome
from pipelines.spec import UseCase

#: Share of the window that must have been judged before its alarms say anything.
_JUDGED = 0.5


def decide(
    observations: Observations,
    spec: UseCase,
    *,
    past: Sequence[RetrainDecision],
    trainings: Sequence[TrainingOutcome] = (),
    backfill: bool,
) -> RetrainDecision:
    """Whether to retrain now. The same observations and spec give the same decision, and the same id.

    Yes needs all of: drift or decay, healthy data, enough new labels, no yes within the cool-down, no backfill.

    Args:
        past: earlier decisions, in any order. One with this decision's own id is this decision, taken before; it
            is no cool-down. A yes for a later partition (runs came out of order) cools down as well.
        trainings: what came of those that were asked for before, in any order.
        backfill: the run replays history; it never asks for a retraining.

    Raises:
        SpecError: the observations are of another use case.
    """
    if observations.use_case != spec.name:
        raise SpecError(
            explain("retraining", f"observations of {observations.use_case!r}", allowed=f"those of {spec.name!r}")
        )
    own_id = _id(observations, spec)
    before = [each for each in past if each.use_case == spec.name and each.id != own_id]
    drifted, drift = _drift(observations, spec)
    decayed, decay = _decay(observations, spec)
    healthy, health = _health(observations, spec)
    labelled, labels = _labels(observations, spec)
    cooled, cooldown = _cooldown(observations, spec, before)
    run = "backfill: a backfill never asks for a retraining" if backfill else "backfill: no"
    return RetrainDecision(
        use_case=spec.name,
        as_of=observations.as_of,
        retrain=(drifted or decayed) and healthy and labelled and cooled and not backfill,
        reasons=(drift, decay, health, labels, cooldown, run),
        champion=observations.champion.version,
        id=own_id,
    )


def _drift(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    if not {"inputs", "scores"} & set(spec.retraining.signals):
        return False, "drift: observed, but not a signal of this use case"
    judged = [each for each in observations.window if _judged(each, spec)]
    size = len(observations.window)
    if not judged or len(judged) < _JUDGED * size:
        return False, (
            f"drift: not enough data: {len(judged)} of {size} partitions could be judged, "
            f"{max(1, math.ceil(_JUDGED * size))} are needed"
        )
    alarms = [_alarms(each, spec) for each in judged]
    count = sum(1 for alarm in alarms if alarm)
    share = count / len(judged)
    found = (
        f"drift: {count} of {len(judged)} judged partitions ({share:.1%}) have a PSI of {spec.drift.alarm:g} or more; "
        f"{spec.retraining.share:.1%} make an alarm"
    )
    psis: dict[str, list[float]] = {}
    for alarm in alarms:
        for column, psi in alarm.items():
            psis.setdefault(column, []).append(psi)
    worst = sorted(psis.items(), key=lambda item: (-len(item[1]), -max(item[1]), item[0]))
    listed = ", ".join(f"{column} in {len(values)} (worst {max(values):.4f})" for column, values in worst)
    return share >= spec.retraining.share, f"{found}: {listed}" if listed else found


def _judged(each: Observation, spec: UseCase) -> bool:
    return each.state == "observed" and not any(math.isnan(psi) for psi in _psis(each, spec).values())


def _psis(each: Observation, spec: UseCase) -> dict[str, float]:
    signals, ignored = spec.retraining.signals, spec.drift.ignore
    psis = {drift.column: drift.psi for drift in each.drift if "inputs" in signals and drift.column not in ignored}
    return {**psis, "the score": each.score.psi} if "scores" in signals and each.score is not None else psis


def _alarms(each: Observation, spec: UseCase) -> dict[str, float]:
    return {column: psi for column, psi in _psis(each, spec).items() if psi >= spec.drift.alarm}


def _decay(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    if "decay" not in spec.retraining.signals:
        return False, "decay: observed, but not a signal of this use case"
    live = observations.live.value if observations.live else None
    champion, metric = observations.champion_metric, observations.metric
    count = observations.live_labels
    if count < spec.drift.min_rows:
        return False, f"decay: not enough data: {count} matured labels in the window, {spec.drift.min_rows} are needed"
    if live is None or not math.isfinite(live):
        return False, f"decay: not enough data: {count} matured labels in the window give no {metric}"
    if not math.isfinite(champion):
        return False, f"decay: not enough data: the champion's own {metric} is not known"
    loss = champion - live if observations.greater_is_better else live - champion
    return loss > spec.retraining.decay, (
        f"decay: {metric} {live:.4f} on {count} matured labels, {abs(loss):.4f} "
        f"{'worse' if loss >= 0 else 'better'} than the champion's {champion:.4f}; "
        f"more than {spec.retraining.decay:.4f} worse is an alarm"
    )


def _health(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    size = len(observations.window)
    if not size:
        return False, "data: the window is empty"
    lost = sum(1 for each in observations.window if each.state in ("missing", "quarantined"))
    share = lost / size
    return share <= spec.retraining.max_quarantined, (
        f"data: {lost} of {size} partitions ({share:.1%}) are missing or in quarantine, "
        f"at most {spec.retraining.max_quarantined:.1%} may be"
    )


def _labels(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    return observations.new_labels >= spec.retraining.min_labels, (
        f"labels: {observations.new_labels} matured labels are newer than what the champion saw, "
        f"{spec.retraining.min_labels} are needed"
    )


def _cooldown(observations: Observations, spec: UseCase, past: Sequence[RetrainDecision]) -> tuple[bool, str]:
    def distance(other: str) -> int:
        low, high = sorted((other, observations.as_of))
        return len(partitions.span(low, high, spec.granularity)) - 1

    apart = {each.as_of: distance(each.as_of) for each in past if each.retrain}
    if not apart:
        return True, "cool-down: no retraining was decided on before"
    nearest = min(apart, key=lambda as_of: (apart[as_of], as_of))
    return apart[nearest] >= spec.retraining.cooldown, (
        f"cool-down: a retraining was decided on as of {nearest}, {apart[nearest]} partitions away; "
        f"{spec.retraining.cooldown} must lie between"
    )


def _id(observations: Observations, spec: UseCase) -> str:
    """Derived from what is decided on; a report's path is not."""
    content = {
        "observations": observations.model_dump(mode="json", exclude={"report_html"}),
        "drift": spec.drift.model_dump(mode="json"),
        "retraining": spec.retraining.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return f"retrain-{observations.as_of}-{digest[:12]}"

"""The retraining policy: a monitor run's observations in, yes or no with every reason out. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pipelines import partitions
from pipelines.errors import SpecError, explain
from pipelines.policies.signals import counted, distance, signals
from pipelines.records import Observations, RetrainDecision, Signal, TrainingOutcome
from pipelines.spec import UseCase


def decide(
    observations: Observations,
    spec: UseCase,
    *,
    past: Sequence[RetrainDecision],
    trainings: Sequence[TrainingOutcome] = (),
    backfill: bool,
) -> RetrainDecision:
    """Whether to retrain now. The same observations and spec give the same id; with the same past, the same decision.

    Yes needs all of: a signal in alarm, in enough of the last windows; healthy data; enough new labels; no yes within
    the cool-down, and fewer than `monthly` in the month; no challenger that lost on what is still the same data; no
    backfill. Where only the lost challenger speaks against it, a person is asked to look.

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
    own_id = _id(observations, spec, backfill)
    before = [each for each in past if each.use_case == spec.name and each.id != own_id]
    found = signals(observations, spec)
    raised, windows = _windows(found, observations, spec, before)
    healthy, health = _health(observations, spec)
    labelled, labels = _labels(observations, spec)
    cooled, cooldown = _cooldown(observations, spec, before)
    within, month = _month(observations, spec, before)
    fresh, challenger = _challenger(observations, spec, trainings)
    run = "backfill: a backfill never asks for a retraining" if backfill else "backfill: no"
    wanted = raised and healthy and labelled and cooled and within and not backfill
    return RetrainDecision(
        use_case=spec.name,
        as_of=observations.as_of,
        retrain=wanted and fresh,
        reasons=(*(_shown(one, spec) for one in found), windows, health, labels, cooldown, month, challenger, run),
        champion=observations.champion.version,
        id=own_id,
        signals=found,
        escalate=raised and not fresh and not backfill,
        since=_since(found, observations, spec) if wanted and fresh else None,
        policy=policy_digest(spec),
        backfill=backfill,
    )


def policy_digest(spec: UseCase) -> str:
    """SHA-256 of everything in the spec that a decision depends on."""
    told = {"drift": spec.drift.model_dump(mode="json"), "retraining": spec.retraining.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _shown(signal: Signal, spec: UseCase) -> str:
    if signal.name in counted(spec) or signal.name == "age":
        return signal.told
    return f"{signal.told} (observed, but not a signal of this use case)"


def _alarmed(found: Sequence[Signal], spec: UseCase) -> bool:
    return any(signal.level == "alarm" and signal.name in spec.retraining.signals for signal in found)


def _windows(
    found: Sequence[Signal], observations: Observations, spec: UseCase, past: Sequence[RetrainDecision]
) -> tuple[bool, str]:
    """Whether enough of the last windows were in alarm, this one among them; age waits for no other window."""
    policy = spec.retraining
    aged = any(signal.level == "alarm" and signal.name == "age" for signal in found)
    now = _alarmed(found, spec)
    first = partitions.shift(observations.as_of, 1 - policy.of, spec.granularity)
    latest = {
        each.as_of: _alarmed(each.signals, spec)
        for each in past
        if first <= each.as_of < observations.as_of
        and each.champion == observations.champion.version
        and not each.backfill
    }
    count = now + sum(latest.values())
    told = f"windows: {count} of the last {policy.of} are in alarm, {policy.raised} are needed, this one among them"
    return (now and count >= policy.raised) or aged, told


def _health(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    size, found = len(observations.window), observations.health
    if not size:
        return False, "data: the window is empty"
    lost = sum(1 for each in observations.window if each.state in ("missing", "quarantined"))
    share, most = lost / size, spec.retraining.max_quarantined
    told = [f"{lost} of {size} partitions ({share:.1%}) are missing or in quarantine, at most {most:.1%} may be"]
    healthy = share <= most
    if found.skew is not None and found.skew.columns:
        healthy = False
        told.append(f"features differ between scoring and training: {', '.join(sorted(found.skew.columns))}")
    if found.disagreeing_labels > most * (observations.live_labels + found.disagreeing_labels):
        healthy = False
        told.append(f"{found.disagreeing_labels} keys have labels that disagree")
    return healthy, f"data: {'; '.join(told)}"


def _labels(observations: Observations, spec: UseCase) -> tuple[bool, str]:
    return observations.new_labels >= spec.retraining.min_labels, (
        f"labels: {observations.new_labels} matured labels are newer than what the champion saw, "
        f"{spec.retraining.min_labels} are needed"
    )


def _cooldown(observations: Observations, spec: UseCase, past: Sequence[RetrainDecision]) -> tuple[bool, str]:
    apart = {each.as_of: distance(each.as_of, observations.as_of, spec) for each in past if each.retrain}
    if not apart:
        return True, "cool-down: no retraining was decided on before"
    nearest = min(apart, key=lambda as_of: (apart[as_of], as_of))
    return apart[nearest] >= spec.retraining.cooldown, (
        f"cool-down: a retraining was decided on as of {nearest}, {apart[nearest]} partitions away; "
        f"{spec.retraining.cooldown} must lie between"
    )


def _month(observations: Observations, spec: UseCase, past: Sequence[RetrainDecision]) -> tuple[bool, str]:
    most, month = spec.retraining.monthly, observations.as_of[: len("2024-01")]
    if most is None:
        return True, "month: retrainings are not counted by the month"
    held = len({each.id for each in past if each.retrain and each.as_of.startswith(month)})
    return held < most, f"month: {held} retrainings were decided on in {month}, {most} are the most"


def _challenger(observations: Observations, spec: UseCase, trainings: Sequence[TrainingOutcome]) -> tuple[bool, str]:
    """Whether the data is another than that on which the last challenger lost to this champion."""
    since = observations.champion_as_of or ""
    tried = [each for each in trainings if since < each.as_of <= observations.as_of and (each.promoted or each.refused)]
    last = max(tried, key=lambda each: (each.as_of, each.newest), default=None)
    if last is None or not last.refused:
        return True, "challenger: none has lost to this champion"
    needed = spec.retraining.min_labels
    return last.new_labels >= needed, (
        f"challenger: the one trained as of {last.as_of} was refused; {last.new_labels} labels have matured since "
        f"{last.newest}, the newest that it saw, {needed} are needed for another one"
    )


def _since(found: Sequence[Signal], observations: Observations, spec: UseCase) -> str | None:
    policy = spec.retraining
    if policy.train_on == "all" or policy.last is None:
        return None
    least = partitions.shift(observations.as_of, 1 - policy.last, spec.granularity)
    if policy.train_on == "last":
        return least
    begun = [signal.since for signal in found if signal.level == "alarm" and signal.since is not None]
    return min([least, *begun])


def _id(observations: Observations, spec: UseCase, backfill: bool) -> str:
    """Derived from what is decided on; a report's path is not. A backfill's no is never taken for a night's."""
    content: dict[str, object] = {
        "observations": observations.model_dump(mode="json", exclude={"report_html"}),
        "drift": spec.drift.model_dump(mode="json"),
        "retraining": spec.retraining.model_dump(mode="json"),
        **({"backfill": True} if backfill else {}),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return f"retrain-{observations.as_of}-{digest[:12]}"

"""What another policy would have decided on the recorded nights. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipelines.policies.retraining import decide
from pipelines.records import ColumnDrift, Level, Observations, RetrainDecision, TrainingOutcome
from pipelines.spec import UseCase
from pipelines.steps.decisions import Decided


@dataclass(frozen=True, kw_only=True)
class Night:
    """A recorded decision and the one that the other policy would have taken instead."""

    recorded: RetrainDecision
    simulated: RetrainDecision
    quality: float | None
    """The watched metric on the labels of the night's window, of what served then."""
    certain: bool
    """Whether what served then would have served: no decision before it differed."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Every night of which the evidence is there, in order."""

    nights: tuple[Night, ...]
    unread: int
    """Decisions whose evidence is of another version of the project."""
    seconds: float | None
    """Of a training: the median of those recorded; None: none was."""


def simulate(
    recorded: UseCase, other: UseCase, log: Sequence[Decided], trainings: Sequence[TrainingOutcome]
) -> Simulation:
    """Plays another policy over the log, in the order of its partitions, each decision after its own earlier ones.

    A policy that says yes where none was trained would have had another champion from then on, whose scores nobody
    knows: what follows is decided on the recorded champion's evidence, and marked as uncertain. Levels of drift follow
    the other spec's `warn` and `alarm` as far as the recorded figures tell: where the reference's own unrest had set a
    higher threshold, that one is kept, and `bins`, `season`, `false_alarms` and `false_warnings` cannot be played anew.

    Args:
        recorded: the spec by which the log was written.
        other: the same use case with other sections `drift` and `retraining`.
        log: the decision log; backfills in it decide nothing.
        trainings: what came of the recorded trainings.
    """
    played: list[RetrainDecision] = []
    nights: list[Night] = []
    known = [(entry.decision, entry.evidence) for entry in log if not entry.decision.backfill]
    for told, evidence in known:
        if evidence is None:
            continue
        seen = _judged_by(evidence, recorded, other)
        tried = [each for each in trainings if each.as_of < told.as_of]
        decision = decide(seen, other, past=played, trainings=tried, backfill=False)
        certain = all(one.recorded.retrain == one.simulated.retrain for one in nights)
        played.append(decision)
        quality = seen.live.value if seen.live is not None else None
        nights.append(Night(recorded=told, simulated=decision, quality=quality, certain=certain))
    took = [each.seconds for each in trainings if each.seconds is not None]
    return Simulation(
        nights=tuple(nights),
        unread=sum(1 for _, evidence in known if evidence is None),
        seconds=median(took) if took else None,
    )


def _judged_by(observations: Observations, recorded: UseCase, other: UseCase) -> Observations:
    """The same figures at the other spec's levels."""
    before, after = recorded.drift, other.drift
    if (before.warn, before.alarm, before.min_rows) == (after.warn, after.alarm, after.min_rows):
        return observations

    def threshold(found: float | None, mine: float, theirs: float) -> float:
        return theirs if found is None or found <= mine else max(found, theirs)

    def judged(drift: ColumnDrift, rows: int) -> ColumnDrift:
        warn_at = threshold(drift.warn_at, before.warn, after.warn)
        alarm_at = threshold(drift.alarm_at, before.alarm, after.alarm)
        level: Level = "alarm" if drift.psi >= alarm_at else "warning" if drift.psi >= warn_at else "calm"
        if rows < after.min_rows or (drift.level == "unknown" and rows >= before.min_rows):
            level = "unknown"
        return drift.model_copy(update={"warn_at": warn_at, "alarm_at": alarm_at, "level": level})

    window = tuple(
        each.model_copy(
            update={
                "drift": tuple(judged(one, each.rows) for one in each.drift),
                "score": None if each.score is None else judged(each.score, each.rows),
            }
        )
        for each in observations.window
    )
    return observations.model_copy(update={"window": window})

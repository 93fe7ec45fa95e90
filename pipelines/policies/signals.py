"""What speaks for a new model: drift of inputs and scores, decay, age. Each says how loud it is, and why. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipelines import partitions
from pipelines.records import ColumnDrift, Level, Observation, Observations, Signal
from pipelines.spec import UseCase

#: Share of the window that must have been judged before its alarms say anything.
_JUDGED = 0.5
#: Partitions with a metric of their own that say anything of decay: of one or two nobody knows how much nights differ.
_FEWEST_NIGHTS = 3
_SCORE = "the score"


def signals(observations: Observations, spec: UseCase) -> tuple[Signal, ...]:
    """Every signal, whether the spec lets it ask for a model or not."""
    return (
        _drift("inputs", observations, spec),
        _drift("scores", observations, spec),
        _decay(observations, spec),
        _age(observations, spec),
    )


def counted(spec: UseCase) -> tuple[str, ...]:
    """The signals that may ask for a model."""
    return (*spec.retraining.signals, *(("age",) if spec.retraining.max_age is not None else ()))


def _drift(name: str, observations: Observations, spec: UseCase) -> Signal:
    judged = [(each.partition, _columns(name, each, spec)) for each in observations.window if each.state == "observed"]
    judged = [(key, found) for key, found in judged if found and all(one.level != "unknown" for one in found.values())]
    size, needed = len(observations.window), max(1, math.ceil(_JUDGED * len(observations.window)))
    if len(judged) < needed:
        told = f"{name}: not enough data: {len(judged)} of {size} partitions could be judged, {needed} are needed"
        return Signal(name=name, level="unknown", told=told)
    alarms = _loud(judged, ("alarm",))
    warnings = _loud(judged, ("alarm", "warning"))
    share, warned = len(alarms) / len(judged), len(warnings) / len(judged)
    level: Level = (
        "alarm" if share >= spec.retraining.share else "warning" if warned >= spec.retraining.share else "calm"
    )
    loud = alarms or warnings
    psis: dict[str, list[float]] = {}
    for found in loud.values():
        for column, drift in found.items():
            psis.setdefault(column, []).append(drift.psi)
    worst = sorted(psis.items(), key=lambda item: (-len(item[1]), -max(item[1]), item[0]))
    listed = ", ".join(f"{column} in {len(values)} (worst {max(values):.4f})" for column, values in worst)
    told = (
        f"{name}: {len(alarms)} of {len(judged)} judged partitions ({share:.1%}) are in alarm, "
        f"{len(warnings)} with warnings; {spec.retraining.share:.1%} make an alarm"
    )
    return Signal(
        name=name,
        level=level,
        told=f"{told}: {listed}" if listed else told,
        columns=tuple(column for column, _ in worst),
        since=None if level == "calm" else min(loud),
    )


def _columns(name: str, each: Observation, spec: UseCase) -> dict[str, ColumnDrift]:
    if name == "scores":
        return {} if each.score is None else {_SCORE: each.score}
    return {drift.column: drift for drift in each.drift if drift.column not in spec.drift.ignore}


def _loud(
    judged: Sequence[tuple[str, Mapping[str, ColumnDrift]]], levels: Sequence[Level]
) -> dict[str, dict[str, ColumnDrift]]:
    """The columns at one of these levels, by partition; no entry for a partition without any."""
    found = {key: {name: one for name, one in columns.items() if one.level in levels} for key, columns in judged}
    return {key: columns for key, columns in found.items() if columns}


def _decay(observations: Observations, spec: UseCase) -> Signal:
    live, champion, metric = observations.live, observations.champion_metric, observations.metric
    count, most = observations.live_labels, spec.retraining.decay

    def unknown(why: str) -> Signal:
        return Signal(name="decay", level="unknown", told=f"decay: not enough data: {why}")

    if count < spec.drift.min_rows:
        return unknown(f"{count} matured labels in the window, {spec.drift.min_rows} are needed")
    nights = sum(each.quality is not None for each in observations.window)
    if nights < _FEWEST_NIGHTS:
        return unknown(f"{nights} partitions with a metric, {_FEWEST_NIGHTS} are needed: nights differ")
    if live is None or not all(map(math.isfinite, (live.value, live.low, live.high))):
        return unknown(f"{count} matured labels in the window give no {metric}")
    if not math.isfinite(champion):
        return unknown(f"the champion's own {metric} is not known")
    sign = 1 if observations.greater_is_better else -1
    loss, least = sign * (champion - live.value), min(sign * (champion - end) for end in (live.low, live.high))
    sure = least > 0
    level: Level = "calm"
    if loss > most:
        level = "alarm" if sure else "warning"
    elif loss > most / 2 and sure:
        level = "warning"
    told = (
        f"decay: {metric} {live.value:.4f} [{live.low:.4f}, {live.high:.4f}] on {count} matured labels, "
        f"{abs(loss):.4f} {'worse' if loss >= 0 else 'better'} than the champion's {champion:.4f}; "
        f"more than {most:.4f} worse, beyond what chance gives, is an alarm"
    )
    worse = [
        each.partition
        for each in observations.window
        if each.quality is not None and sign * (champion - each.quality.value) > most / 2
    ]
    return Signal(name="decay", level=level, told=told, since=min(worse, default=None) if level != "calm" else None)


def _age(observations: Observations, spec: UseCase) -> Signal:
    most, trained = spec.retraining.max_age, observations.champion_as_of
    if most is None:
        return Signal(name="age", level="calm", told="age: a champion is not retrained for its age alone")
    if trained is None:
        return Signal(name="age", level="unknown", told="age: when the champion was trained is not recorded")
    age = distance(trained, observations.as_of, spec) if trained <= observations.as_of else 0
    told = f"age: the champion was trained as of {trained}, {age} partitions ago; {most} are the most"
    return Signal(name="age", level="alarm" if age >= most else "calm", told=told)


def distance(one: str, other: str, spec: UseCase) -> int:
    """Partitions from one to the other, whichever is earlier."""
    low, high = sorted((one, other))
    return len(partitions.span(low, high, spec.granularity)) - 1

"""Tables that the card and the comparison share, made of an evaluation's records: what is None was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pipelines.backends.model_review_document import Block, Grid, Items, Pairs, Text
from pipelines.backends.model_review_facts import Facts, Side
from pipelines.backends.model_review_svg import cut
from pipelines.records import Comparison, Interval, Latency, Scorecard, SliceGain

NOT_MEASURED = "not measured"
#: Most slices in a table.
_SLICES = 40
_WORD = 60


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a person."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.{digits}f}" if math.isfinite(value) else "not defined"


def signed(value: float | None, digits: int = 4) -> str:
    """A gain for a person."""
    if value is None:
        return NOT_MEASURED
    return f"{value:+,.{digits}f}" if math.isfinite(value) else "not defined"


def interval(told: Interval | None, *, gain: bool = False) -> str:
    """A figure with its interval, such as `0.6612 (90 % interval 0.6530 to 0.6694)`."""
    if told is None:
        return NOT_MEASURED
    show = signed if gain else figure
    return f"{show(told.value)} ({2 * told.level - 1:.0%} interval {show(told.low)} to {show(told.high)})"


def word(value: object) -> str:
    """A value of a feature."""
    return "null" if value is None else cut(str(value), _WORD)


def direction(facts: Facts) -> str:
    """Which way the metric is better."""
    side = "higher" if facts.case.evaluation.greater_is_better else "lower"
    return f"{facts.case.evaluation.metric}, {side} is better"


def overall(facts: Facts) -> list[Block]:
    """Every metric of every model, the judged one first; the baselines' rows are named where they are others."""
    evaluation, metric = facts.case.evaluation, facts.case.evaluation.metric
    here = [card for card in (evaluation.challenger, evaluation.champion) if card]
    names = list(dict.fromkeys([metric, *(name for card in [*here, *evaluation.others] for name in card.metrics)]))
    lines = [_scored(facts, "challenger", evaluation.challenger, names)]
    if evaluation.champion:
        lines.append(_scored(facts, facts.rival, evaluation.champion, names))
    lines += [_scored(facts, card.model.replace("_", " "), card, names) for card in evaluation.others]
    first, last = facts.case.trained.training_set.holdout
    told = [
        f"Challenger: {metric} {interval(evaluation.interval)} on {evaluation.holdout.rows:,} rows of "
        f"{' to '.join(evaluation.holdout.partitions)}."
    ]
    told += [f"Gain over {named(facts, one)}: {interval(one.gain, gain=True)}." for one in evaluation.comparisons]
    if evaluation.champion and facts.against_champion is None:
        told.append(f"Gain over {facts.rival}, paired: {NOT_MEASURED}.")
    if evaluation.rows_needed is not None:
        told.append(f"Rows with which the smallest gain of interest is seen: {evaluation.rows_needed:,}.")
    if (first, last) != evaluation.holdout.partitions:
        told.append(f"Teacher, students and baselines were measured on the training's own holdout, {first} to {last}.")
    told += _intervals(facts)
    served = evaluation.served.replace("_", " ") or "unknown"
    told.append(f"Served: {served}. Judged by {direction(facts)}.")
    return [Items(told), Grid(["model", "rows", *names, "calibration error"], lines)]


def _intervals(facts: Facts) -> list[str]:
    """What became of the intervals on the training's holdout, in one sentence; nothing where there are none."""
    found = facts.challenger.served.intervals if facts.challenger.served else ()
    if not found:
        return []
    each = [f"of {one.level:.0%} {one.coverage:.1%} (mean width {figure(one.mean_width)})" for one in found]
    return [f"Intervals held on {found[0].rows:,} rows of the training's holdout: {', '.join(each)}."]


def _scored(facts: Facts, name: str, card: Scorecard, names: Sequence[str]) -> list[str]:
    error = card.calibration_error
    calibration = "-" if error is None and facts.spec.label.task == "regression" else figure(error)
    return [name, f"{card.rows:,}", *(figure(card.metrics.get(one)) for one in names), calibration]


def named(facts: Facts, comparison: Comparison) -> str:
    """What a comparison is against."""
    return facts.rival if comparison.against == "champion" else comparison.against.replace("_", " ")


def gates(facts: Facts) -> Block:
    """Every gate, refusals marked."""
    lines = [
        [gate.name.replace("_", " "), "passed" if gate.passed else "REFUSED", gate.reason]
        for gate in facts.case.report.gates
    ]
    bad = frozenset(place for place, gate in enumerate(facts.case.report.gates) if not gate.passed)
    return Grid(["gate", "verdict", "reason"], lines, words=frozenset({1, 2}), bad=bad)


def gains(facts: Facts, comparison: Comparison) -> list[Block]:
    """Two models by slice, the worst for the challenger first."""
    if not comparison.slices and comparison.worst is None:
        return [Text(f"By slice against {named(facts, comparison)}: {NOT_MEASURED}.")]
    ordered = sorted(comparison.slices, key=lambda part: (part.gain, part.slice))
    blocks: list[Block] = []
    if comparison.worst:
        worst = comparison.worst
        blocks.append(
            Text(
                f"The worst of all slices that were looked through: {cut(worst.slice, _WORD)}, {signed(worst.gain)} on "
                f"{worst.rows:,} rows (found on one half of the rows, measured on the other)."
            )
        )
    if ordered:
        heads = ["slice", "rows", "challenger", named(facts, comparison), "gain"]
        blocks.append(slice_gains(heads, ordered))
    return blocks


def slice_gains(heads: Sequence[str], parts: Iterable[SliceGain]) -> Grid:
    """Gains by slice, as they come; losses are marked."""
    shown = list(parts)[:_SLICES]
    lines = [
        [cut(part.slice, _WORD), f"{part.rows:,}", figure(part.mine), figure(part.other), signed(part.gain)]
        for part in shown
    ]
    return Grid(heads, lines, bad=frozenset(place for place, part in enumerate(shown) if part.gain < 0))


def own_slices(facts: Facts) -> list[Block]:
    """What the training measured of what is served, by slice; the worst first."""
    card = next((card for card in facts.case.evaluation.others if card.model == facts.case.evaluation.served), None)
    if card is None or not card.slices:
        return []
    sign = 1 if facts.case.evaluation.greater_is_better else -1
    told = [part for part in card.slices if part.metric is not None]
    ordered = sorted(told, key=lambda part: (sign * (part.metric or 0.0), part.feature, part.value or ""))
    few = len(card.slices) - len(told)
    lines = [[f"{part.feature} = {word(part.value)}", f"{part.rows:,}", figure(part.metric)] for part in ordered]
    blocks: list[Block] = [Grid(["slice", "rows", facts.case.evaluation.metric], lines[:_SLICES])]
    if few:
        blocks.append(Text(f"{few} slices have too few rows to tell, or one class only."))
    return blocks


def speed(cards: Sequence[tuple[str, Scorecard]]) -> Grid:
    """Size and speed."""
    batches = sorted({latency.rows for _, card in cards for latency in card.latencies})
    heads = ["model", "size, KiB", "rows a second"]
    heads += [f"{name} of {rows:,} rows, ms" for rows in batches for name in ("p50", "p99")]
    lines = []
    for name, card in cards:
        line = [name, figure(None if card.bytes is None else card.bytes / 1024, 1), figure(card.rows_per_second, 0)]
        for rows in batches:
            timed = _timed(card, rows)
            line += [figure(timed.p50_ms if timed else None, 3), figure(timed.p99_ms if timed else None, 3)]
        lines.append(line)
    return Grid(heads, lines)


def _timed(card: Scorecard, rows: int) -> Latency | None:
    return next((latency for latency in card.latencies if latency.rows == rows), None)


def data(side: Side) -> Block:
    """What a model learned from."""
    told = side.training_set
    if told is None:
        return Text("The artifact does not tell what it learned from.")
    rows = {part: f"{count:,} rows" for part, count in told.rows.items()}
    pairs = [
        ("train", f"{' to '.join(told.train)}, {rows.get('train', NOT_MEASURED)}"),
        ("validation", f"{' to '.join(told.validation)}, {rows.get('validation', NOT_MEASURED)}"),
        ("holdout of the training", f"{' to '.join(told.holdout)}, {rows.get('holdout', NOT_MEASURED)}"),
        ("as of", told.as_of),
        ("snapshots", ", ".join(ref.id for ref in told.snapshots)),
        ("training set", f"SHA-256 {told.digest}"),
    ]
    return Pairs(pairs)

"""Champion against challenger, side by side on the same rows; without a champion, the baselines.

Shapes: n rows, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.backends import model_review_tables as tables
from pipelines.backends.model_review_document import Block, Grid, Items, Link, Page, Pairs, Pictures, Section, Text
from pipelines.backends.model_review_facts import Facts, Side
from pipelines.backends.model_review_svg import Figure, cut
from pipelines.backends.model_review_tables import NOT_MEASURED, figure, signed
from pipelines.records import Scorecard

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS, _SHOWN = 5, 6
_APART = (0.01, 0.05, 0.1, 0.2)


def page(
    facts: Facts, calibration: Sequence[Figure], distributions: Sequence[Figure], failed: Mapping[str, str]
) -> Page:
    """The comparison.

    Args:
        calibration: how true both models' scores are.
        distributions: how often each score is given, by both models.
        failed: what of the review itself could not be made, and why.
    """
    first = facts.champion is None
    sections = [
        Section("On the same rows", _headline(facts)),
        Section("Gates", [tables.gates(facts)]),
        *([] if first else [_slices(facts)]),
        *([Section("Calibration", [Pictures(calibration)])] if calibration else []),
        *([Section("Scores", [Pictures(distributions)])] if distributions else []),
        *([] if first else [Section("Where they disagree", _disagreement(facts))]),
        *([Section("Baselines", [_baselines(facts)])] if first else []),
        Section("Data of both" if not first else "Data", _data(facts)),
        Section("Size and speed", _speed(facts)),
        Section("More", _links(facts)),
    ]
    if failed:
        lines = [f"{part}: {why}" for part, why in sorted(failed.items())]
        sections.insert(-1, Section("Missing from this page", [Items(lines)]))
    against = "the first champion" if first else facts.rival
    state = "gates passed" if facts.case.report.passed else "gates refused"
    lead = (
        "There is no champion yet: the challenger is shown beside the baselines."
        if first
        else f"The challenger of run {facts.case.trained.run_id} against {facts.rival}, on the same rows."
    )
    title = f"{facts.spec.title}: challenger against {against}" if not first else f"{facts.spec.title}: {against}?"
    return Page(title, state, facts.case.report.passed, [Text(lead)], sections)


def _headline(facts: Facts) -> list[Block]:
    evaluation, metric = facts.case.evaluation, facts.case.evaluation.metric
    ends = f"{' to '.join(evaluation.holdout.partitions)}, {evaluation.holdout.rows:,} rows"
    pairs = [("holdout", ends), ("judged by", tables.direction(facts))]
    pairs += [
        (f"newest labels of {facts.rival if name == 'champion' else name}", newest)
        for name, newest in sorted(evaluation.learned.items(), reverse=True)
    ]
    if evaluation.champion is None:
        value = evaluation.challenger.metrics.get(metric)
        pairs.append((f"{metric} of the challenger", _interval(facts, value)))
        return [Pairs(pairs)]
    comparison = facts.against_champion
    pairs.append(("gain, paired", tables.interval(comparison.gain if comparison else None, gain=True)))
    pairs.append(("asked for", f"its lower end at least {signed(facts.spec.gates.margin_over_champion)}"))
    mine, other = evaluation.challenger.metrics, evaluation.champion.metrics
    lines = []
    for name in dict.fromkeys([metric, *mine, *other]):
        both = (mine.get(name), other.get(name))
        shift = None if both[0] is None or both[1] is None else both[0] - both[1]
        lines.append([name, figure(both[0]), figure(both[1]), signed(shift)])
    errors = (evaluation.challenger.calibration_error, evaluation.champion.calibration_error)
    if facts.spec.label.task != "regression":
        shift = None if errors[0] is None or errors[1] is None else errors[0] - errors[1]
        lines.append(["calibration error", figure(errors[0]), figure(errors[1]), signed(shift)])
    table = Grid(["metric", "challenger", facts.rival, "difference"], lines)
    return [Pairs(pairs), table]


def _interval(facts: Facts, value: float | None) -> str:
    told = facts.case.evaluation.interval
    return tables.interval(told) if told else f"{figure(value)}, interval {NOT_MEASURED}"


def _baselines(facts: Facts) -> Block:
    metric = facts.case.evaluation.metric
    cards = [("challenger", facts.case.evaluation.challenger)]
    cards += [(card.model.replace("_", " "), card) for card in facts.case.evaluation.others]
    names = list(dict.fromkeys([metric, *(name for _, card in cards for name in card.metrics)]))
    lines = [[name, f"{card.rows:,}", *(figure(card.metrics.get(one)) for one in names)] for name, card in cards]
    return Grid(["model", "rows", *names], lines)


def _slices(facts: Facts) -> Section:
    comparison = facts.against_champion
    blocks = tables.gains(facts, comparison) if comparison else [Text(f"{NOT_MEASURED.capitalize()}.")]
    return Section("By slice, the worst first", blocks)


def _disagreement(facts: Facts) -> list[Block]:
    """How many rows are scored otherwise, and a handful of them by their features: no key, no partition."""
    assert facts.other_scores is not None
    mine, other = facts.scores.astype(np.float64), facts.other_scores.astype(np.float64)
    apart = np.abs(mine - other)
    apart = apart.max(axis=1) if apart.ndim == 2 else apart
    blocks: list[Block] = [_apart(facts, apart), *_where(facts, apart), Text("The rows furthest apart:")]
    chosen = [int(place) for place in np.argsort(-apart, kind="stable")[:_ROWS]]
    columns = _telling(facts, chosen)
    lines = []
    for number, place in enumerate(chosen, 1):
        values = [tables.word(_short(facts.frame.get_column(name)[place])) for name in columns]
        scores = [_score(facts, mine, place), _score(facts, other, place)]
        lines.append([str(number), *scores, _observed(facts, place), *values])
    heads = ["row", "challenger", facts.rival, "observed", *columns]
    words = frozenset(range(4, len(heads))) | (frozenset({1, 2, 3}) if facts.spec.label.classes else frozenset())
    return [*blocks, Grid(heads, lines, words=words)]


def _apart(facts: Facts, apart: NDArray[np.float64]) -> Block:
    spread = 1.0
    unit = "of probability"
    if facts.spec.label.task == "regression":
        spread, unit = float(np.std(facts.labels)) or 1.0, "standard deviations of the label"
    lines = [
        [
            f"more than {limit:g} {unit}",
            f"{int((apart > limit * spread).sum()):,}",
            f"{(apart > limit * spread).mean():.1%}",
        ]
        for limit in _APART
    ]
    return Grid(["scores differ by", "rows", "share"], lines)


def _where(facts: Facts, apart: NDArray[np.float64]) -> list[Block]:
    """Of the tenth of the rows that are furthest apart, what there is more of than among all rows."""
    many = max(1, len(apart) // 10)
    furthest = np.zeros(len(apart), bool)
    furthest[np.argsort(-apart, kind="stable")[:many]] = True
    found = []
    for name in facts.spec.features.categorical:
        table = (
            pl.DataFrame({"word": facts.frame.get_column(name).cast(pl.String), "far": furthest})
            .group_by("word", maintain_order=True)
            .agg(pl.len().alias("rows"), pl.col("far").sum().alias("far"))
            .filter(pl.col("rows") >= 10)
        )
        for row in table.iter_rows(named=True):
            lift = (row["far"] / many) / (row["rows"] / len(apart))
            found.append((lift, name, row["word"], row["far"], row["rows"]))
    found.sort(key=lambda one: (-one[0], one[1], str(one[2])))
    if not found:
        return []
    lines = [
        [f"{name} = {tables.word(value)}", f"{far:,}", f"{rows:,}", f"{lift:.1f} times"]
        for lift, name, value, far, rows in found[:_SHOWN]
    ]
    words = f"Of the tenth of the rows that are furthest apart ({many:,}), these are there more often than among all:"
    return [Text(words), Grid(["value", "rows furthest apart", "rows", "as often"], lines)]


def _telling(facts: Facts, chosen: Sequence[int]) -> list[str]:
    """The features that are shown of single rows: the first few that are filled in."""
    names = [*facts.spec.features.categorical, *facts.spec.features.numeric]
    filled = [name for name in names if facts.frame.get_column(name)[list(chosen)].null_count() < len(chosen)]
    return filled[:_SHOWN]


def _score(facts: Facts, scores: NDArray[np.float64], place: int) -> str:
    if scores.ndim == 1:
        return figure(float(scores[place]), 3)
    index = int(scores[place].argmax())
    return f"{cut(facts.spec.label.classes[index], 30)} {scores[place, index]:.3f}"


def _observed(facts: Facts, place: int) -> str:
    label = float(facts.labels[place])
    if facts.spec.label.classes:
        return cut(facts.spec.label.classes[int(label)], 30)
    return ("yes" if label else "no") if facts.spec.label.task == "binary" else figure(label, 2)


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _data(facts: Facts) -> list[Block]:
    blocks: list[Block] = [Text("Challenger:"), tables.data(facts.challenger)]
    if facts.champion:
        blocks += [Text(f"{facts.rival[0].upper()}{facts.rival[1:]}:"), tables.data(facts.champion)]
    return blocks


def _speed(facts: Facts) -> list[Block]:
    """As each training measured it: other rows, minute and perhaps machine."""
    cards: list[tuple[str, Scorecard]] = []
    sides: list[tuple[str, Side | None]] = [("challenger", facts.challenger), (facts.rival, facts.champion)]
    for name, side in sides:
        if side and side.served:
            cards.append((name, side.served))
    if not cards:
        return [Text(f"{NOT_MEASURED.capitalize()}.")]
    told = "As each training measured it, perhaps on different machines; only the sizes compare strictly."
    return [tables.speed(cards), *([Text(told)] if len(cards) > 1 else [])]


def _links(facts: Facts) -> list[Block]:
    blocks: list[Block] = [Link("Model card of the challenger", "model_card.html")]
    if facts.case.url:
        blocks.append(Link("The challenger's MLflow run", facts.case.url))
    return blocks

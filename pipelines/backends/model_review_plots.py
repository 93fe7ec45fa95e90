"""The plots of a review, by task, with what each shows in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.backends import model_review_curves as curves
from pipelines.backends.model_review_facts import Facts
from pipelines.backends.model_review_svg import BLUE, ORANGE, Figure, Line, cut, heat_map, line_chart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

#: Classes that have plots of their own: the most frequent ones.
CLASSES = 3
_UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class View:
    """One column of scores against a yes or no: the label itself, or one class against the rest."""

    name: str
    """Of files: empty, or a class by its index."""
    of: str
    """For titles: empty, or the class."""
    label: Vector
    mine: Vector
    other: Vector | None


def views(facts: Facts) -> list[View]:
    """Binary: one. Multiclass: the most frequent classes, each against the rest."""
    labels = facts.labels.astype(np.float64)
    mine, other = facts.scores.astype(np.float64), facts.other_scores
    if facts.spec.label.task == "binary":
        return [View("", "", labels, mine, None if other is None else other.astype(np.float64))]
    return [
        View(
            f"_{index}",
            f" of class {cut(facts.spec.label.classes[index], 40)}",
            (labels == index).astype(np.float64),
            mine[:, index],
            None if other is None else other[:, index].astype(np.float64),
        )
        for index in frequent(facts)
    ]


def frequent(facts: Facts) -> list[int]:
    """The most frequent classes of the holdout, by index; [0] where there are no classes."""
    if facts.spec.label.task != "multiclass":
        return [0]
    counts = np.bincount(facts.labels.astype(np.int64), minlength=len(facts.spec.label.classes))
    return [int(index) for index in np.argsort(-counts, kind="stable")[:CLASSES]]


def quality(facts: Facts) -> list[Figure]:
    """What the card shows of the challenger, the champion beside it where there is one."""
    if facts.spec.label.task == "regression":
        return _regression(facts)
    made = []
    for view in views(facts):
        made += [calibration(facts, view), _curve(facts, view, "roc"), _curve(facts, view, "precision_recall")]
    return made


def calibration(facts: Facts, view: View) -> Figure:
    """Mean score against what happened, by bins of equal rows."""
    lines, told = [], []
    for name, scores, colour in _both(facts, view.mine, view.other):
        bins = curves.calibration(view.label, scores)
        lines.append(Line(name, [(part.mean, part.observed) for part in bins], colour, dots=True))
        worst = max(bins, key=lambda part: abs(part.mean - part.observed))
        told.append(
            f"{name}: {len(bins)} bins, calibration error {curves.calibration_error(bins):.4f}, furthest off where it "
            f"says {worst.mean:.3f} and {worst.observed:.3f} happened ({worst.rows:,} rows)"
        )
    high = max(point for line in lines for pair in line.points for point in pair)
    end = 1.0 if high > 0.6 else min(1.0, np.ceil(high * 10 + 0.5) / 10)
    alt = f"Calibration{view.of}. {'. '.join(told)}."
    svg = line_chart(
        lines, alt=alt, across="mean score", up="share observed", x=(0.0, end), y=(0.0, end), diagonal=True
    )
    return Figure(f"calibration{view.name}", f"Calibration{view.of}", alt, svg)


def _curve(facts: Facts, view: View, kind: str) -> Figure:
    measure: Callable[[Vector, Vector], tuple[curves.Points, float] | None]
    if kind == "roc":
        measure, title, area, across, up = curves.roc, "ROC curve", "area", "false-positive rate", "true-positive rate"
    else:
        measure, title, area = curves.precision_recall, "Precision and recall", "average precision"
        across, up = "recall", "precision"
    lines, told = [], []
    for name, scores, colour in _both(facts, view.mine, view.other):
        found = measure(view.label, scores)
        if found is None:
            told.append(f"{name}: not defined, the holdout holds one class only")
            continue
        lines.append(Line(f"{name} {found[1]:.3f}", found[0], colour))
        told.append(f"{name}: {area} {found[1]:.4f}")
    base = "" if kind == "roc" else f" Without a model precision is {view.label.mean():.3f}."
    alt = f"{title}{view.of}. {'. '.join(told)}.{base}"
    svg = line_chart(lines, alt=alt, across=across, up=up, x=_UNIT, y=_UNIT, diagonal=kind == "roc")
    return Figure(f"{kind}{view.name}", f"{title}{view.of}", alt, svg)


def _regression(facts: Facts) -> list[Figure]:
    labels, mine = facts.labels.astype(np.float64), facts.scores.astype(np.float64)
    low, high = curves.middle(labels, mine)
    close = float(np.corrcoef(labels, mine)[0, 1]) if labels.std() and mine.std() else float("nan")
    outside = int(((labels < low) | (labels > high)).sum())
    alt = (
        f"Predicted against observed. Correlation {close:.3f}; {outside:,} of {len(labels):,} observed values lie "
        "outside the axes and are counted at their edge."
    )
    cells = curves.grid(mine, labels, low, high)
    square = heat_map(cells, alt=alt, across="predicted", up="observed", x=(low, high), y=(low, high))
    return [
        Figure("predicted_observed", "Predicted against observed", alt, square),
        _residuals(facts),
        _binned(facts, labels, mine),
    ]


def _residuals(facts: Facts) -> Figure:
    labels = facts.labels.astype(np.float64)
    errors = [
        (name, scores - labels, colour) for name, scores, colour in _both(facts, facts.scores, facts.other_scores)
    ]
    low, high = curves.middle(*(values for _, values, _ in errors))
    end = max(abs(low), abs(high))
    told = [
        f"{name}: mean {values.mean():.4g}, half of the rows between {np.quantile(values, 0.25):.4g} and "
        f"{np.quantile(values, 0.75):.4g}"
        for name, values, _ in errors
    ]
    lines = [Line(name, curves.histogram(values, -end, end), colour) for name, values, colour in errors]
    alt = f"Errors, predicted less observed. {'. '.join(told)}."
    svg = line_chart(lines, alt=alt, across="predicted less observed", up="share of rows")
    return Figure("residuals", "Errors", alt, svg)


def _binned(facts: Facts, labels: Vector, mine: Vector) -> Figure:
    """Calibration of a value: the mean that was observed, by bins of equal rows."""
    other = facts.other_scores
    lines, told = [], []
    for name, scores, colour in _both(facts, mine, other):
        bins = curves.calibration(labels, scores)
        lines.append(Line(name, [(part.mean, part.observed) for part in bins], colour, dots=True))
        worst = max(bins, key=lambda part: abs(part.mean - part.observed))
        told.append(f"{name}: furthest off where it says {worst.mean:.4g} and {worst.observed:.4g} was observed")
    ends = [point for line in lines for pair in line.points for point in pair]
    span = (min(ends), max(ends)) if max(ends) > min(ends) else (min(ends) - 0.5, min(ends) + 0.5)
    alt = f"Mean observed by predicted value. {'. '.join(told)}."
    svg = line_chart(lines, alt=alt, across="mean predicted", up="mean observed", x=span, y=span, diagonal=True)
    return Figure("calibration", "Mean observed by predicted value", alt, svg)


def distributions(facts: Facts) -> list[Figure]:
    """How often each score is given, by both models."""
    if facts.spec.label.task == "regression":
        rival = None if facts.other_scores is None else facts.other_scores.astype(np.float64)
        pairs = [("", "", facts.scores.astype(np.float64), rival)]
    else:
        pairs = [(view.name, view.of, view.mine, view.other) for view in views(facts)]
    made = []
    for name, of, mine, other in pairs:
        sides = list(_both(facts, mine, other))
        low, high = curves.middle(*(scores for _, scores, _ in sides), share=1.0)
        lines = [Line(who, curves.histogram(scores, low, high), colour) for who, scores, colour in sides]
        told = [
            f"{who}: mean {scores.mean():.4g}, one in ten below {np.quantile(scores, 0.1):.4g}, one in ten above "
            f"{np.quantile(scores, 0.9):.4g}"
            for who, scores, _ in sides
        ]
        alt = f"Scores{of}. {'. '.join(told)}."
        svg = line_chart(lines, alt=alt, across="score", up="share of rows")
        made.append(Figure(f"scores{name}", f"Scores{of}", alt, svg))
    return made


def _both(
    facts: Facts, mine: NDArray[np.floating], other: NDArray[np.floating] | None
) -> list[tuple[str, Vector, str]]:
    sides = [("challenger", mine.astype(np.float64), BLUE)]
    if other is not None:
        sides.append((facts.rival, other.astype(np.float64), ORANGE))
    return sides

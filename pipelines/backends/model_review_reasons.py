"""Explanations in words: which features matter, which way they push, and four rows one by one.

Shapes: n explained rows, m features, c outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.backends.model_review_document import Block, Grid, Items, Pictures, Section, Text
from pipelines.backends.model_review_explain import Explained, explained
from pipelines.backends.model_review_facts import Facts
from pipelines.backends.model_review_plots import frequent
from pipelines.backends.model_review_svg import Bar, Figure, bar_chart, cut
from pipelines.backends.model_review_tables import figure, signed, word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

TOP = 8
#: Rank correlation of values and SHAP values from which on a feature has a direction.
_DIRECTED = 0.3
#: Explained rows of a word below which nothing is said of it.
_LEAST = 5
_BARS = 12


@dataclass(frozen=True)
class Trend:
    """Which way a feature pushes one output."""

    words: str
    signs: tuple[int, int]
    """By seed: 1 raises, -1 lowers, 0 neither."""

    @property
    def stable(self) -> bool:
        """Whether both seeds say the same."""
        return self.signs[0] == self.signs[1]


def explain_model(facts: Facts) -> Explained:
    """SHAP values of the served graph, the four example rows first."""
    sample = pl.read_parquet(facts.challenger.folder / "reference_sample.parquet")
    return explained(
        facts.challenger.engine,
        sample,
        facts.frame,
        always=[place for _, place in examples(facts)],
        outputs=frequent(facts),
    )


def examples(facts: Facts) -> list[tuple[str, int]]:
    """A typical row, the lowest, the highest and the most wrong: which they are, and their places in the holdout."""
    scores, labels = facts.scores.astype(np.float64), facts.labels.astype(np.float64)
    if scores.ndim == 2:
        # Of classes: how likely the row was said to be of the class that it is of.
        index = labels.astype(np.int64)
        wrong = 1 - scores[np.arange(len(index)), index]
        judged = scores[:, frequent(facts)[0]]
    else:
        wrong, judged = np.abs(scores - labels), scores
    typical = int(np.argmin(np.abs(judged - np.median(judged))))
    chosen = [
        ("a typical row", typical),
        ("the lowest score", int(np.argmin(judged))),
        ("the highest score", int(np.argmax(judged))),
        ("the most wrong", int(np.argmax(wrong))),
    ]
    found: dict[int, str] = {}
    for name, place in chosen:
        found[place] = f"{found[place]}, {name}" if place in found else name
    return [(name, place) for place, name in found.items()]


def section(facts: Facts, told: Explained) -> Section:
    """All of it."""
    plan, top = told.plan, min(TOP, len(told.features))
    trends = {place: trend(told, place, 0) for place in told.order[:top]}
    same = told.agree(top)
    turned = [told.features[place] for place, one in trends.items() if not one.stable]
    unit = "the label's unit" if facts.spec.label.task == "regression" else "probability"
    blocks: list[Block] = [
        Text(
            f"SHAP values of the model that is served, over {len(told.frame)} rows of the holdout, each against "
            f"{plan.background} rows of the training period: how much each feature moves the score, in {unit}. They "
            f"sum to the score (greatest gap {told.gap:.1e} of the scores' spread)."
        ),
        Items(
            [
                f"Done twice with other random orders and another background: {same} of the {top} most important "
                f"features are the same, importances differ by {told.spread:.1%} on average, directions "
                + ("agree for all of them." if not turned else f"do not repeat for {', '.join(turned)}."),
                f"Mean score of the background: {' and '.join(figure(float(base[0])) for base in told.bases)}.",
                "What a feature says together with others that go with it is shared between them: a small figure is "
                "no proof that a feature is of no use.",
            ]
        ),
        _global(facts, told),
        Pictures([_importance(told)]),
    ]
    blocks += _by_word(facts, told)
    blocks += _examples(facts, told)
    return Section("Why it scores as it does", blocks)


def trend(told: Explained, place: int, output: int) -> Trend:
    """Which way a feature pushes an output: by rank correlation for a number, by mean for each word."""
    name = told.features[place]
    columns = [values[:, place, output] for values in told.values]
    if name in told.numeric:
        found = [_ranked(told.frame.get_column(name).cast(pl.Float64), column) for column in columns]
        signs = [0 if abs(one) < _DIRECTED else int(np.sign(one)) for one in found]
        mean = (found[0] + found[1]) / 2
        words = (
            "no single direction"
            if abs(mean) < _DIRECTED
            else f"higher values {'raise' if mean > 0 else 'lower'} the score"
        )
        return Trend(f"{words} (rank correlation {mean:+.2f})", (signs[0], signs[1]))
    first, second = (_means(told, name, column) for column in columns)
    if not first:
        return Trend("too few rows of any one value", (0, 0))
    ends = (max(first, key=lambda key: first[key][0]), min(first, key=lambda key: first[key][0]))
    strongest = max(ends, key=lambda key: abs(first[key][0]))
    words = f"{word(ends[0])} {signed(first[ends[0]][0])}, {word(ends[1])} {signed(first[ends[1]][0])}"
    return Trend(words, (int(np.sign(first[strongest][0])), int(np.sign(second[strongest][0]))))


def _ranked(values: pl.Series, shap: Vector) -> float:
    """Spearman's correlation of what is not null; 0 where either is constant."""
    pairs = pl.DataFrame({"value": values, "shap": shap}).drop_nulls().drop_nans()
    ranks = pairs.select(pl.all().rank())
    found = ranks.select(pl.corr("value", "shap")).item() if pairs.height > 2 else None
    return 0.0 if found is None or not np.isfinite(found) else float(found)


def _means(told: Explained, name: str, shap: Vector) -> dict[str | None, tuple[float, int]]:
    """Mean SHAP value and rows of each word with enough rows, most rows first."""
    table = (
        pl.DataFrame({"word": told.frame.get_column(name).cast(pl.String), "shap": shap})
        .group_by("word", maintain_order=True)
        .agg(pl.col("shap").mean(), pl.len().alias("rows"))
        .filter(pl.col("rows") >= _LEAST)
        .sort(["rows", "word"], descending=[True, False])
    )
    return {row["word"]: (float(row["shap"]), int(row["rows"])) for row in table.iter_rows(named=True)}


def _classes(facts: Facts) -> list[str]:
    """The outputs that are explained, for headings."""
    if facts.spec.label.task != "multiclass":
        return ["direction"]
    return [f"direction, {cut(facts.spec.label.classes[index], 30)}" for index in frequent(facts)]


def _global(facts: Facts, told: Explained) -> Block:
    heads = ["feature", "mean |SHAP|", "again", *_classes(facts), "stable"]
    lines = []
    for place in told.order[:TOP]:
        trends = [trend(told, place, output) for output in range(len(heads) - 4)]
        lines.append(
            [
                told.features[place],
                figure(float(told.importance[0][place])),
                figure(float(told.importance[1][place])),
                *(one.words for one in trends),
                "yes" if all(one.stable for one in trends) else "no",
            ]
        )
    return Grid(heads, lines, words=frozenset(range(3, len(heads) - 1)))


def _importance(told: Explained) -> Figure:
    first, second = told.importance
    bars = []
    for place in told.order[:_BARS]:
        ends = sorted((float(first[place]), float(second[place])))
        mean = sum(ends) / 2
        bars.append(Bar(told.features[place], mean, figure(mean), (ends[0], ends[1])))
    listed = ", ".join(f"{bar.name} {bar.shown}" for bar in bars)
    alt = f"Mean absolute SHAP value by feature, most important first; whiskers show both seeds. {listed}."
    return Figure("importance", "What matters most", alt, bar_chart(bars, alt=alt, across="mean |SHAP|, both seeds"))


def _by_word(facts: Facts, told: Explained) -> list[Block]:
    """The words of the most important categorical features, for the first output."""
    chosen = [place for place in told.order[:TOP] if told.features[place] not in told.numeric][:2]
    blocks: list[Block] = []
    for place in chosen:
        name = told.features[place]
        first, second = (_means(told, name, values[:, place, 0]) for values in told.values)
        if not first:
            continue
        ordered = sorted(first, key=lambda key: -first[key][0])
        shown = ordered if len(ordered) <= _BARS else [*ordered[: _BARS // 2], *ordered[-_BARS // 2 :]]
        lines = [
            [word(key), str(first[key][1]), signed(first[key][0]), signed(second[key][0] if key in second else None)]
            for key in shown
        ]
        of = f" ({_classes(facts)[0].removeprefix('direction, ')})" if facts.spec.label.task == "multiclass" else ""
        blocks.append(Grid([name, "rows", f"mean SHAP{of}", "again"], lines))
    return blocks


def _examples(facts: Facts, told: Explained) -> list[Block]:
    """The four rows: their features' values and what each does. No key: features alone."""
    labels, blocks = facts.labels, list[Block]()
    pictures = []
    for row, (name, place) in enumerate(examples(facts)):
        mean = (told.values[0][row, :, 0] + told.values[1][row, :, 0]) / 2
        order = [int(one) for one in np.argsort(-np.abs(mean), kind="stable")[:TOP]]
        rest = float(mean.sum() - mean[order].sum())
        bars = [
            Bar(f"{told.features[one]} = {_value(told.frame, row, told.features[one])}", float(mean[one]), "")
            for one in order
        ]
        if len(mean) > len(order):
            bars.append(Bar("all others", rest, ""))
        bars = [Bar(bar.name, bar.value, signed(bar.value, 3)) for bar in bars]
        score = float(told.scores[row, 0])
        observed = _label(facts, float(labels[place]))
        of = f" of {facts.spec.label.classes[frequent(facts)[0]]}" if facts.spec.label.task == "multiclass" else ""
        base = float((told.bases[0][0] + told.bases[1][0]) / 2)
        title = f"{name[0].upper()}{name[1:]}: score{of} {figure(score, 3)}, observed {observed}"
        listed = ", ".join(f"{bar.name} {bar.shown}" for bar in bars)
        alt = f"From the mean score {figure(base, 3)} to {figure(score, 3)}: {listed}."
        pictures.append(Figure(f"example_{row}", title, alt, bar_chart(bars, alt=alt, across="moves the score by")))
    blocks.append(Text("Four rows of the holdout, by what moved their score away from the mean:"))
    blocks.append(Pictures(pictures))
    return blocks


def _value(frame: pl.DataFrame, row: int, name: str) -> str:
    value = frame.get_column(name)[row]
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else cut(str(value), 18)


def _label(facts: Facts, label: float) -> str:
    task = facts.spec.label.task
    if task == "multiclass":
        return facts.spec.label.classes[int(label)]
    return ("yes" if label else "no") if task == "binary" else figure(label, 2)

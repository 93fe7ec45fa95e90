"""What a person reads before they decide on a challenger: it and the champion, as Markdown. Pure.

Whatever data or a spec wrote is text here: Markdown, HTML and templates in it are shown, not obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from pipelines.records import (
    Comparison,
    Evaluation,
    Fairness,
    GateReport,
    Interval,
    Scorecard,
    ServedAgainstFp32,
    SliceGain,
)
from pipelines.spec import UseCase

#: Characters that mean something to Markdown within a line or a table's cell; `&` begins an entity.
_SPECIAL = frozenset("\\`*_[]<>|~&")
_LONGEST = 300
"""Characters of one piece of text."""
_SLICES = 12
"""Rows of the table of slices: the worst ones."""


def render(spec: UseCase, evaluation: Evaluation, report: GateReport, links: Mapping[str, str | None]) -> str:
    """The form's text.

    Args:
        links: where a button's name leads; None: nowhere, and it is left out.
    """
    parts = [
        _lead(spec, evaluation),
        _links(links),
        _figures(evaluation),
        _slices(evaluation),
        _others(evaluation),
        _against_fp32(evaluation.fp32),
        _fairness(evaluation.fairness or ()),
        _gates(report),
        _unmeasured(evaluation),
    ]
    return "\n\n".join(part for part in parts if part)


def text(value: object, longest: int = _LONGEST) -> str:
    """Data as one line of Markdown that reads as it is written: `a|b` gives `a\\|b`, a line break a space."""
    line = " ".join(str(value).split())
    shown = line if len(line) <= longest else line[: longest - 1] + "…"
    # What has no glyph (controls, marks that turn the direction of writing) would hide what the rest says.
    visible = "".join(letter if letter.isprintable() else "�" for letter in shown)
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in visible)


def hours(given: float) -> str:
    """`24 hours`, `1 hour`, `0.5 hours`."""
    return f"{given:g} hour{'' if given == 1 else 's'}"


def _lead(spec: UseCase, evaluation: Evaluation) -> str:
    version = evaluation.champion_version
    holdout = evaluation.holdout
    outcome = f"replaces champion {version}" if version is not None else "becomes the first champion"
    stays = f"champion {version} stays" if version is not None else "there is still no champion"
    return (
        f"**{text(spec.title)}**\n\n"
        f"A challenger, trained on what was known as of {text(holdout.as_of)}, passed every gate. "
        f"**Approve**: it {outcome}. **Reject**, or no answer within {hours(spec.approval_hours)}: {stays}.\n\n"
        f"Measured on {holdout.rows:,} holdout rows, {text(holdout.partitions[0])} to {text(holdout.partitions[1])}."
    )


def _links(links: Mapping[str, str | None]) -> str:
    there = [f"[{text(name)}]({quote(url, safe='/:?&=#%@,;+-._~')})" for name, url in links.items() if url]
    return " · ".join(there)


def _figures(evaluation: Evaluation) -> str:
    mine, other = evaluation.challenger, evaluation.champion
    more = "more is better" if evaluation.greater_is_better else "less is better"
    rows = [_judged(evaluation, f"**{text(evaluation.metric)}** ({more})")]
    rows += [
        _row(text(name), mine.metrics[name], other and other.metrics.get(name), _number, _signed)
        for name in sorted(mine.metrics)
        if name != evaluation.metric
    ]
    rows.append(
        _row("calibration error", mine.calibration_error, other and other.calibration_error, _number, _signed),
    )
    rows.append(_row("rows a second", mine.rows_per_second, other and other.rows_per_second, _count, _percent))
    rows.append(_row("size", mine.bytes, other and other.bytes, _bytes, _percent))
    theirs = {latency.rows: latency.p99_ms for latency in (other.latencies if other else ())}
    rows += [
        _row(f"p99 of {latency.rows} rows, ms", latency.p99_ms, theirs.get(latency.rows), _number, _percent)
        for latency in mine.latencies
    ]
    found = [row for row in rows if row is not None]
    if other is None:
        return _table(("Figure", "Challenger"), [(row[0], row[2]) for row in found])
    return _table(("Figure", f"Champion {evaluation.champion_version}", "Challenger", "Change"), found)


_Row = tuple[str, str, str, str]


def _row(
    name: str,
    mine: float | None,
    other: float | None,
    show: Callable[[float], str],
    change: Callable[[float, float], str],
) -> _Row | None:
    """Name, champion, challenger, change; None where neither has the figure."""
    if mine is None and other is None:
        return None
    changed = change(mine, other) if mine is not None and other is not None else ""
    return name, _or_dash(other, show), _or_dash(mine, show), changed


def _judged(evaluation: Evaluation, name: str) -> _Row | None:
    metric, other = evaluation.metric, evaluation.champion
    row = _row(name, evaluation.challenger.metrics.get(metric), other and other.metrics.get(metric), _number, _signed)
    if row is None:
        return None
    against = _against_champion(evaluation)
    mine = f"{row[2]} {_between(evaluation.interval, _number)}" if evaluation.interval else row[2]
    change = (
        f"{against.gain.value:+.4f} better {_between(against.gain, lambda value: f'{value:+.4f}')}"
        if against
        else row[3]
    )
    return row[0], row[1], mine, change


def _between(interval: Interval, show: Callable[[float], str]) -> str:
    return f"({2 * interval.level - 1:.0%} interval: {show(interval.low)} to {show(interval.high)})"


def _against_champion(evaluation: Evaluation) -> Comparison | None:
    return next((found for found in evaluation.comparisons if found.against == "champion"), None)


def _slices(evaluation: Evaluation) -> str:
    """Against the champion where both were compared row by row; else the challenger's own slices."""
    against = _against_champion(evaluation)
    if against is None:
        own = [
            (text(f"{found.feature} = {found.value}"), _count(found.rows), _number(found.metric))
            for found in evaluation.challenger.slices
            if found.metric is not None
        ]
        table = _table(("Slice", "Rows", text(evaluation.metric)), own[:_SLICES])
        return _section("Slices of the challenger", table, len(own) - _SLICES)
    ranked = sorted(against.slices, key=lambda found: found.gain)
    rows = [_gain(found, text(found.slice)) for found in ranked[:_SLICES]]
    if against.worst:
        rows.insert(0, _gain(against.worst, f"worst that was found: {text(against.worst.slice)}"))
    table = _table(("Slice", "Rows", f"Champion {evaluation.champion_version}", "Challenger", "Better by"), rows)
    return _section(f"Slices, by {text(evaluation.metric)}", table, len(ranked) - _SLICES)


def _gain(found: SliceGain, name: str) -> tuple[str, ...]:
    return name, _count(found.rows), _number(found.other), _number(found.mine), f"{found.gain:+.4f}"


def _others(evaluation: Evaluation) -> str:
    def row(card: Scorecard) -> tuple[str, ...]:
        served = " (served)" if card.model == evaluation.served else ""
        return (
            text(card.model) + served,
            _or_dash(card.metrics.get(evaluation.metric), _number),
            _or_dash(card.rows_per_second, _count),
            _or_dash(card.bytes, _bytes),
        )

    table = _table(
        ("Model", text(evaluation.metric), "Rows a second", "Size"), [row(card) for card in evaluation.others]
    )
    return _section("The challenger's own training, on its holdout", table)


def _against_fp32(found: ServedAgainstFp32 | None) -> str:
    if found is None:
        return ""
    rows = [("rows a second", f"{found.speed_ratio:.2f}"), ("size", f"{found.size_ratio:.2f}")]
    rows += [(f"p99 of {rows:,} rows", f"{ratio:.2f}") for rows, ratio in sorted(found.latency_ratios.items())]
    return _section("Served, as a multiple of its own fp32", _table(("Figure", "Ratio"), rows))


def _fairness(found: Sequence[Fairness]) -> str:
    rows = [
        (
            text(column.column),
            _or_dash(column.selection_ratio, _number),
            _or_dash(column.odds_difference, _number),
            f"{sum(group.judged for group in column.groups)} of {len(column.groups)}",
        )
        for column in found
    ]
    table = _table(("Sensitive column", "Selection ratio", "Odds difference", "Groups judged"), rows)
    return _section("Fairness", table)


def _gates(report: GateReport) -> str:
    rows = [(text(gate.name), "passed" if gate.passed else "**refused**", text(gate.reason)) for gate in report.gates]
    return _section("Gates", _table(("Gate", "Verdict", "Reason"), rows))


def _unmeasured(evaluation: Evaluation) -> str:
    rows = [(text(part), text(why)) for part, why in evaluation.errors.items()]
    return _section("Not measured", _table(("Part", "Why"), rows))


def _section(title: str, table: str, more: int = 0) -> str:
    if not table:
        return ""
    rest = f"\n\nand {more} more, none worse" if more > 0 else ""
    return f"#### {title}\n\n{table}{rest}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; the first column is left, the others right when they are figures."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.4f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    return f"{value / 1000:,.1f} kB"


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


def _signed(mine: float, other: float) -> str:
    return f"{mine - other:+.4f}"


def _percent(mine: float, other: float) -> str:
    return f"{mine / other - 1:+.0%}" if other else ""

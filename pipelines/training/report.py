"""The compression report: teacher, fp32 student and served student side by side, as JSON and as one page for a person.

The page asks for nothing from anywhere, and runs no script: it may be opened from an artifact store years later.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template

from pipelines.records import Latency, Scorecard
from pipelines.spec import GREATER_IS_BETTER, UseCase
from pipelines.training.compress import Compression

JSON, PAGE = "compression.json", "compression.html"
_COMPARED = ("teacher", "student_fp32", "student_int8", "student_fp16")
_CONTEXT = ("lightgbm", "constant")


def write(spec: UseCase, out: Path, compression: Compression, cards: Sequence[Scorecard], threads: int) -> None:
    """Writes compression.json and compression.html into the artifact.

    Args:
        cards: of every model that was measured; baselines are shown in the page for comparison.
    """
    named = {card.model: card for card in cards}
    told = {
        "use_case": spec.name,
        "task": spec.label.task,
        "metric": spec.gates.metric,
        "greater_is_better": GREATER_IS_BETTER[spec.gates.metric],
        "holdout_rows": cards[0].rows,
        "threads": threads,
        "compression": compression.facts(),
        "models": [json.loads(_plain(named[name])) for name in (*_COMPARED, *_CONTEXT) if name in named],
    }
    (out / JSON).write_text(json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    shown = [named[name] for name in (*_COMPARED, *_CONTEXT) if name in named]
    (out / PAGE).write_text(page(spec, compression, shown, threads), encoding="utf-8")


def page(spec: UseCase, compression: Compression, cards: Sequence[Scorecard], threads: int) -> str:
    """The page, complete and escaped."""
    side = "higher" if GREATER_IS_BETTER[spec.gates.metric] else "lower"
    return _PAGE.substitute(
        title=_text(f"{spec.title}: what compression cost"),
        lead=_text(
            f"Every model on the same {cards[0].rows:,} holdout rows, which none was trained on. "
            f"{spec.gates.metric} decides ({side} is better). Speed: from raw columns in memory to scores, "
            f"processor threads: {threads}; figures of a busy machine vary."
        ),
        how=_text(_how(spec, compression)),
        overall=_overall(spec, cards),
        slices=_slices(spec, cards),
    )


def _plain(card: Scorecard) -> str:
    """JSON in which what is not a number is null."""
    told = card.model_dump()
    told["metrics"] = {name: value if math.isfinite(value) else None for name, value in card.metrics.items()}
    return json.dumps(told)


def _how(spec: UseCase, compression: Compression) -> str:
    layers = ", ".join(compression.layers)
    told = f"Hidden units: {', '.join(map(str, compression.widths))}. Layers as served, first to last: {layers}."
    if spec.training.student.prune:
        told += f" {spec.training.student.prune:.0%} of the hidden units were asked to be pruned."
    if compression.validation and compression.metric:
        tried = {"fp32": "fp32", "int8": "all int8", "int8_fp32_ends": "int8 with first and last layer in fp32"}
        found = "; ".join(f"{tried[name]} {_number(value)}" for name, value in compression.validation.items())
        told += f" {compression.metric} on the validation rows: {found}."
    return told


def _overall(spec: UseCase, cards: Sequence[Scorecard]) -> str:
    first = spec.gates.metric
    names = [first, *(name for name in cards[0].metrics if name != first)]
    lines = [[_label(name), *(_number(card.metrics.get(name)) for card in cards)] for name in names]
    if any(card.calibration_error is not None for card in cards):
        lines.append(["calibration error", *(_number(card.calibration_error) for card in cards)])
    lines.append(["size, KiB", *(_number(card.bytes and card.bytes / 1024, 1) for card in cards)])
    lines.append(["rows a second", *(_number(card.rows_per_second, 0) for card in cards)])
    for rows in sorted({latency.rows for card in cards for latency in card.latencies}):
        timed = [_timed(card, rows) for card in cards]
        for name in ("p50", "p99"):
            values = [getattr(latency, f"{name}_ms") if latency else None for latency in timed]
            lines.append([f"{name} of a batch of {rows:,}, ms", *(_number(value, 3) for value in values)])
    return _table(["", *(_label(card.model) for card in cards)], lines)


def _timed(card: Scorecard, rows: int) -> Latency | None:
    return next((latency for latency in card.latencies if latency.rows == rows), None)


def _slices(spec: UseCase, cards: Sequence[Scorecard]) -> str:
    if not cards[0].slices:
        return "<p>The use case names no slices.</p>"
    told = []
    for feature in spec.features.slices:
        # Every model was measured on the same rows, so that slices come in the same order.
        places = [i for i, part in enumerate(cards[0].slices) if part.feature == feature]
        lines = [
            [
                "null" if cards[0].slices[i].value is None else f"{cards[0].slices[i].value}",
                f"{cards[0].slices[i].rows:,}",
                *(_number(card.slices[i].metric) for card in cards),
            ]
            for i in places
        ]
        heads = [feature, "rows", *(_label(card.model) for card in cards)]
        told.append(f"<h3>{_text(spec.gates.metric)} by {_text(feature)}</h3>{_table(heads, lines)}")
    return "".join(told)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{_text(line[0])}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in line[1:])}</tr>'
        for line in lines
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _label(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _text(words: str) -> str:
    return html.escape(words, quote=True)


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .5rem; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8885; white-space: nowrap; }
th:first-child { text-align: left; font-weight: normal; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
thead th { border-bottom: 2px solid #888; font-weight: 600; }
.all tbody tr:first-child td { font-weight: 600; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$lead</p>
<p>$how</p>
<h2>All rows</h2>
<div class="all">$overall</div>
<p>Calibration error: 0 is best; how far, on average, a predicted probability is from what then happened.
p99 of few batches is the slowest of them. A dash means: not measured, or not defined.</p>
<h2>Slices</h2>
<p>The most frequent values of each; a metric of too few rows, or of rows of one class, is left out.</p>
$slices
</body>
</html>
""")

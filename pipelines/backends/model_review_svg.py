"""Charts as SVG, made by hand: axes, lines, bars, a heat map.

A few dozen lines of markup rather than a plotting library: the bytes depend on the figures alone (no fonts, clocks or
versions), the text stays text that can be read aloud, selected and searched, and a page with ten charts is 60 KB.
Two models are told apart by colour and by dashes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

#: Colours of the first and the second model, of what helps and what harms, of text and lines.
BLUE, ORANGE, INK, SOFT, GRID = "#1f5fa8", "#b4510f", "#1d2530", "#5d6b7c", "#e2e7ee"
_STYLE = {BLUE: "", ORANGE: ' stroke-dasharray="6 4"'}
_WIDTH, _HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 46
_CHARACTER = 6.7
"""Width of a character of the labels, roughly."""

Point = tuple[float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """One chart."""

    name: str
    """Of its file, without `.svg`."""
    title: str
    alt: str
    """What it shows, in words and figures: for who cannot see it, and for the Markdown card."""
    svg: str


@dataclass(frozen=True)
class Line:
    """One series of a line chart."""

    name: str
    points: Sequence[Point]
    colour: str
    dots: bool = False
    """Whether each point is marked."""


@dataclass(frozen=True)
class Bar:
    """One bar from zero, and perhaps a whisker."""

    name: str
    value: float
    shown: str
    whisker: Range | None = None


def safe(words: str) -> str:
    """Text for HTML, SVG or Markdown: no tag, no template's braces, no control or direction characters."""
    plain = "".join(
        " " if sign in "\n\r\t" else "�" if unicodedata.category(sign) in ("Cc", "Cf", "Cs") else sign for sign in words
    )
    return escape(plain, quote=True).replace("{", "&#123;").replace("}", "&#125;")


def cut(words: str, length: int) -> str:
    """Text that fits, with an ellipsis where it was longer."""
    return words if len(words) <= length else words[: length - 1] + "…"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}"
    return f"{value:g}"


def line_chart(
    lines: Sequence[Line],
    *,
    alt: str,
    across: str,
    up: str,
    x: Range | None = None,
    y: Range | None = None,
    diagonal: bool = False,
) -> str:
    """Lines over two axes.

    Args:
        across: label of the horizontal axis.
        up: label of the vertical axis.
        x: its range; that of the points when not given.
        diagonal: whether the line of equal values is drawn.
    """
    shown = [line for line in lines if line.points]
    x = x or _range([point[0] for line in shown for point in line.points])
    y = y or _range([point[1] for line in shown for point in line.points])
    drawn = [_axes(x, y, across, up)]
    if diagonal:
        low, high = max(x[0], y[0]), min(x[1], y[1])
        (x1, y1), (x2, y2) = _at((low, low), x, y), _at((high, high), x, y)
        drawn.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{SOFT}" stroke-dasharray="2 4"/>'
        )
    for line in shown:
        places = [_at(point, x, y) for point in line.points]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"'
            f"{_STYLE.get(line.colour, '')}/>"
        )
        if line.dots:
            drawn += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{line.colour}"/>' for left, top in places]
    drawn.append(_legend([(line.name, line.colour) for line in shown]))
    return _svg("".join(drawn), alt, _HEIGHT)


def heat_map(cells: Sequence[Sequence[float]], *, alt: str, across: str, up: str, x: Range, y: Range) -> str:
    """Counts by cell, darker where there are more; the line of equal values is drawn.

    Args:
        cells: by column (from the left), by row (from below).
    """
    most = max((value for column in cells for value in column), default=0.0) or 1.0
    drawn = []
    for i, column in enumerate(cells):
        for j, value in enumerate(column):
            if value <= 0:
                continue
            wide, tall = (x[1] - x[0]) / len(cells), (y[1] - y[0]) / len(column)
            left, top = _at((x[0] + i * wide, y[0] + (j + 1) * tall), x, y)
            right, bottom = _at((x[0] + (i + 1) * wide, y[0] + j * tall), x, y)
            # Logarithmic: a few rows far off must be seen beside the many.
            strength = 0.08 + 0.92 * math.log1p(value) / math.log1p(most)
            drawn.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
                f'fill="{BLUE}" fill-opacity="{strength:.3f}"/>'
            )
    low, high = max(x[0], y[0]), min(x[1], y[1])
    if high > low:
        (x1, y1), (x2, y2) = _at((low, low), x, y), _at((high, high), x, y)
        drawn.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{ORANGE}" stroke-width="1.5"/>'
        )
    return _svg(_axes(x, y, across, up) + "".join(drawn), alt, _HEIGHT)


def bar_chart(bars: Sequence[Bar], *, alt: str, across: str) -> str:
    """Horizontal bars from zero, in the order given: blue to the right, orange to the left."""
    longest = max((len(cut(bar.name, 26)) for bar in bars), default=1)
    left = min(190.0, 14 + _CHARACTER * longest)
    ends = [0.0, *(bar.value for bar in bars), *(end for bar in bars for end in bar.whisker or ())]
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1.0
    room = 10 + _CHARACTER * max((len(bar.shown) for bar in bars), default=0)
    """For the figures beside the bars."""
    right_room, left_room = room if high > 0 else 10.0, room if low < 0 else 6.0
    wide = _WIDTH - left - left_room - right_room

    def place(value: float) -> float:
        return left + left_room + (value - low) / (high - low) * wide

    tall, bottom = 24, 22 + 24 * len(bars)
    drawn = []
    for tick in ticks(low, high, 4):
        drawn.append(f'<line x1="{place(tick):.1f}" y1="14" x2="{place(tick):.1f}" y2="{bottom}" stroke="{GRID}"/>')
        drawn.append(_text(number(tick), place(tick), bottom + 16, anchor="middle", colour=SOFT))
    for row, bar in enumerate(bars):
        top = 18 + tall * row
        start, end = sorted((place(0.0), place(bar.value)))
        colour = BLUE if bar.value >= 0 else ORANGE
        drawn.append(
            f'<rect x="{start:.1f}" y="{top}" width="{max(end - start, 0.5):.1f}" height="{tall - 8}" fill="{colour}"/>'
        )
        if bar.whisker:
            first, last = (place(value) for value in bar.whisker)
            middle = top + (tall - 8) / 2
            drawn.append(
                f'<path d="M{first:.1f} {middle - 4}v8M{last:.1f} {middle - 4}v8M{first:.1f} {middle}H{last:.1f}" '
                f'stroke="{INK}" fill="none"/>'
            )
        outer = [bar.value, *(bar.whisker or ())]
        if bar.value >= 0:
            drawn.append(_text(bar.shown, place(max(outer)) + 5, top + 13, colour=SOFT))
        else:
            drawn.append(_text(bar.shown, place(min(outer)) - 5, top + 13, anchor="end", colour=SOFT))
        drawn.append(_text(cut(bar.name, 26), left - 4, top + 13, anchor="end"))
    drawn.append(f'<line x1="{place(0):.1f}" y1="14" x2="{place(0):.1f}" y2="{bottom}" stroke="{SOFT}"/>')
    drawn.append(_text(across, _WIDTH / 2, bottom + 38, anchor="middle", colour=SOFT))
    return _svg("".join(drawn), alt, bottom + 48)


def _range(values: Sequence[float]) -> Range:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _at(point: Point, x: Range, y: Range) -> Point:
    """Where a point of the data lies on the chart; what is outside the axes is drawn on their edge."""
    across = min(max((point[0] - x[0]) / (x[1] - x[0]), 0.0), 1.0)
    up = min(max((point[1] - y[0]) / (y[1] - y[0]), 0.0), 1.0)
    return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def _axes(x: Range, y: Range, across: str, up: str) -> str:
    drawn = []
    for tick in ticks(*x):
        left, bottom = _at((tick, y[0]), x, y)
        drawn.append(f'<line x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" y2="{bottom:.1f}" stroke="{GRID}"/>')
        drawn.append(_text(number(tick), left, bottom + 16, anchor="middle", colour=SOFT))
    for tick in ticks(*y):
        left, top = _at((x[0], tick), x, y)
        drawn.append(f'<line x1="{left:.1f}" y1="{top:.1f}" x2="{_WIDTH - _RIGHT}" y2="{top:.1f}" stroke="{GRID}"/>')
        drawn.append(_text(number(tick), left - 6, top + 4, anchor="end", colour=SOFT))
    drawn.append(_text(across, (_WIDTH + _LEFT) / 2, _HEIGHT - 8, anchor="middle", colour=SOFT))
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    drawn.append(
        f'<text x="14" y="{middle:.1f}" transform="rotate(-90 14 {middle:.1f})" text-anchor="middle" '
        f'fill="{SOFT}">{safe(up)}</text>'
    )
    return "".join(drawn)


def _legend(names: Sequence[tuple[str, str]]) -> str:
    drawn, left = [], float(_LEFT)
    for name, colour in names:
        drawn.append(
            f'<line x1="{left:.1f}" y1="18" x2="{left + 26:.1f}" y2="18" stroke="{colour}" stroke-width="2"'
            f"{_STYLE.get(colour, '')}/>"
        )
        drawn.append(_text(cut(name, 26), left + 32, 22))
        left += 48 + _CHARACTER * len(cut(name, 26))
    return "".join(drawn)


def _text(words: str, x: float, y: float, *, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{safe(words)}</text>'


def _svg(inside: str, alt: str, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{safe(alt)}" font-family="system-ui, -apple-system, Segoe UI, sans-serif" font-size="12">'
        f"{inside}</svg>"
    )

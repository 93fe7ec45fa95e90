"""What the nights of a use case look like on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

import click

from pipelines.cli.verdicts import words
from pipelines.records import Night

#: From so many nights in a row on of which there is nothing, and of which the same is to be said, they share a line.
_FOLDED = 4
_HEADS = ("night", "input", "rows", "scored by", "rows", "scored at", "run", "to know")


def print_nights(use_case: str, found: Sequence[Night]) -> None:
    """A table on a terminal; lines of columns otherwise, which a script can cut."""
    lines = list(_lines(use_case, found))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for head in _HEADS:
            table.add_column(head, justify="right" if head == "rows" else "left", overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))  # plain text: a file's words are no markup
        Console(width=shutil.get_terminal_size((120, 24)).columns).print(table)
        return
    widths = [max(len(line[at]) for line in (_HEADS, *lines)) for at in range(len(_HEADS))]
    for line in (_HEADS, *lines):
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _lines(use_case: str, found: Sequence[Night]) -> Iterator[tuple[str, ...]]:
    for cells, group in groupby(found, lambda night: _cells(use_case, night)):
        same = list(group)
        if len(same) >= _FOLDED and same[0].rows is None and same[0].scores is None:
            yield f"{same[0].partition}..{same[-1].partition} ({len(same)})", *cells
        else:
            yield from ((night.partition, *cells) for night in same)


def _cells(use_case: str, night: Night) -> tuple[str, ...]:
    scores = night.scores
    made = ("", "", "", "")
    if scores is not None:
        run = f"{scores.run.dag_id}/{scores.run.run_id}" + (" (backfill)" if scores.run.backfill else "")
        at = f"{scores.scored_at:%Y-%m-%d %H:%M}Z" if scores.scored_at else ""
        made = (f"{use_case}@{scores.model}" if scores.model else "", str(scores.rows), at, words(run))
    rows = "" if night.rows is None else str(night.rows)
    return night.input.replace("_", " "), rows, *made, words("; ".join(_notes(night)))


def _notes(night: Night) -> Iterator[str]:
    """What is unusual, the worst first."""
    if night.late:
        yield "past its deadline"
    if night.quarantined:
        yield f"in quarantine: {', '.join(night.quarantined)}"
    if night.refused:
        yield f"scores in quarantine: {', '.join(night.refused)}"
    if night.gap:
        yield "gap"
    if night.due:
        yield night.due
    if night.scores is not None and night.scores.rows == 0:
        yield "empty: zero rows are published"
    if night.scores is not None and night.scores.restated:
        times = "once" if night.scores.restated == 1 else f"{night.scores.restated} times"
        yield f"scored anew {times}"
    if night.labels == "late":
        yield "labels are late"

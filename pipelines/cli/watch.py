"""`overnight watch`: what a monitor run would see now, as a table."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.decisions import COLOURS
from pipelines.cli.shared import use_case_argument
from pipelines.records import ColumnDrift, DataHealth, Estimate, Observations
from pipelines.runtime import Runtime


@click.command()
@use_case_argument
@click.option("--as-of", metavar="PARTITION", help="The newest partition to look at. Default: the newest scored one.")
@click.option("--window", type=click.IntRange(1, 400), help="Partitions to look back on. Default: the spec's.")
@click.option("--json", "as_json", is_flag=True, help="The observations as one JSON object.")
def watch(use_case: str, as_of: str | None, window: int | None, as_json: bool) -> None:
    """Look at drift, quality and data of the last nights. Decides nothing and keeps nothing."""
    runtime = Runtime.open(use_case)
    newest = as_of or runtime.newest_prediction()
    seen = runtime.observe(newest, window)
    if as_json:
        click.echo(seen.model_dump_json())
        return
    console = Console(soft_wrap=False)
    console.print(_nights(seen))
    console.print(f"{seen.metric} of {seen.champion.id} on its holdout: {seen.champion_metric:.4f}")
    console.print(f"measured over the window: {_figure(seen.live)}; expected where labels are to come: "
                  f"{_figure(seen.expected)}, an estimate from the scores alone")  # fmt: skip
    for part in seen.slices:
        console.print(f"{part.column} {part.value}: {_figure(part.quality)}, {part.labels} labels")
    for column in seen.fairness:
        ratio = "-" if column.ratio is None else f"{column.ratio:.3f}"
        rates = ", ".join(f"{group} {rate:.1%}" for group, rate in column.selected.items())
        console.print(f"{column.column}: decided for {rates}; lowest by highest {ratio}")
    for line in _told(seen.health):
        console.print(line, style="yellow")


def _nights(seen: Observations) -> Table:
    table = Table(
        "partition", "rows", "state", "furthest column", "score", f"{seen.metric} expected", "measured", "labels",
        box=None, pad_edge=False,
    )  # fmt: skip
    for each in seen.window:
        furthest = max(each.drift, key=lambda one: (_RANK[one.level], one.psi), default=None)
        labels = f"{each.labels}" + (f", {each.unlabelled} lack one" if each.unlabelled else "")
        table.add_row(
            each.partition, f"{each.rows:,}", each.state.replace("_", " "), _drift(furthest, named=True),
            _drift(each.score), _figure(each.expected), _figure(each.quality), labels,
        )  # fmt: skip
    return table


_RANK = {"unknown": 0, "calm": 1, "warning": 2, "alarm": 3}


def _drift(found: ColumnDrift | None, *, named: bool = False) -> Text:
    if found is None:
        return Text("-", style="dim")
    told = f"{found.psi:.3f} {found.level}"
    return Text(f"{found.column} {told}" if named else told, style=COLOURS[found.level])


def _figure(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _told(found: DataHealth) -> list[str]:
    """What the data lacks, one line each."""
    lists = {
        "missing": found.missing,
        "in quarantine": found.quarantined,
        "not scored by the champion": found.not_scored,
        "labels are late": found.late_labels,
        "labels were published again": found.restated_labels,
    }
    lines = [f"{what}: {', '.join(keys)}" for what, keys in lists.items() if keys]
    counts = {
        "labels that no scored row has": found.strange_labels,
        "keys whose labels disagree": found.disagreeing_labels,
        "validations that failed": found.failed,
    }
    lines += [f"{what}: {count}" for what, count in counts.items() if count]
    if found.skew is not None and found.skew.columns:
        differ = ", ".join(f"{name} ({rows} rows)" for name, rows in found.skew.columns.items())
        lines.append(f"features of {found.skew.partition} differ between scoring and training: {differ}")
    if found.behind:
        lines.append(f"{found.behind} partitions behind: the newest is {found.newest}")
    return lines


COMMANDS: tuple[click.Command, ...] = (watch,)

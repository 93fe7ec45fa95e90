"""`overnight alerts`: what people were told, and what is not over."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.shared import use_case_argument
from pipelines.runtime import Runtime


@click.command()
@use_case_argument
@click.option("--all", "everything", is_flag=True, help="What is over as well, in the order in which it was told.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def alerts(use_case: str, everything: bool, as_json: bool) -> None:
    """List open incidents: what, since when, how bad, and what to do."""
    book = Runtime.open(use_case).alerts
    found = book.entries() if everything else book.open()
    if as_json:
        for each in found:
            click.echo(each.model_dump_json())
        return
    table = Table("since", "kind", "state", "what", "what to do", "evidence", box=None, pad_edge=False)
    for each in found:
        state = Text("over", style="green") if each.state == "resolved" else Text(each.level, style=_STYLES[each.level])
        table.add_row(each.partition, each.kind, state, Text(each.what), Text(each.remedy), Text(each.evidence))
    Console(soft_wrap=False).print(table if found else "nothing is wrong that anybody was told of")


_STYLES = {"warning": "yellow", "alarm": "red"}

COMMANDS: tuple[click.Command, ...] = (alerts,)

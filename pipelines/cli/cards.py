"""`overnight card`: what a reviewer reads about a model version."""

from __future__ import annotations

import click

from pipelines.cli.shared import use_case_argument
from pipelines.runtime import Runtime


@click.command()
@use_case_argument
@click.option("--version", type=int, help="A model version; the champion by default.")
@click.option("--path", "as_path", is_flag=True, help="Print where the card and the comparison lie, not the card.")
def card(use_case: str, version: int | None, as_path: bool) -> None:
    """Print the model card of the champion, or of a version."""
    found = Runtime.open(use_case).card(version)
    if not as_path:
        click.echo(found.read_text("utf-8"), nl=False)
        return
    for path in (found, found.with_suffix(".html"), found.with_name("comparison.html")):
        click.echo(path)


COMMANDS: tuple[click.Command, ...] = (card,)

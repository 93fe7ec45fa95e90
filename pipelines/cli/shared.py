"""What every command needs: errors as one line, the options that repeat, records printed as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from pipelines import partitions as keys
from pipelines.errors import OvernightError, SpecError
from pipelines.records import Trial
from pipelines.runtime import Runtime
from pipelines.training.progress import line

T = TypeVar("T")


class Commands(click.Group):
    """Turns Overnight's errors into one line and exit code 1; a traceback is for bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except OvernightError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


use_case_argument = click.argument("use_case")
partition_option = click.option("--partition", help="One partition key, such as 2013-09-01 (UTC).")
first_option = click.option("--from", "first", help="First partition of a range.")
last_option = click.option("--to", "last", help="Last partition of a range, included.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print records as JSON.")


def chosen_partitions(runtime: Runtime, partition: str | None, first: str | None, last: str | None) -> list[str]:
    """The partitions that the options name; anything else is misuse."""
    try:
        if partition and not (first or last):
            keys.start(partition, runtime.spec.granularity)
            return [partition]
        if first and last and not partition:
            return runtime.span(first, last)
    except SpecError as error:
        raise click.UsageError(str(error)) from None
    raise click.UsageError("name one --partition, or both --from and --to")


def progress(items: Iterable[T], label: str, show: Callable[[T], str] = str) -> Iterable[T]:
    """A bar on a terminal, a plain line an item otherwise."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(list(items), description=label, console=Console(stderr=True))
        return
    for item in items:
        click.echo(f"{label}: {show(item)}", err=True)
        yield item


def tell_epoch(values: Mapping[str, float]) -> None:
    """One line an epoch, and one every few seconds within it."""
    click.echo(line(values), err=True)


def tell_line(text: str) -> None:
    """One line of a training job's log."""
    click.echo(f"job: {text}", err=True)


def tell_trial(trial: Trial) -> None:
    """One line a trial, when it begins and when it has ended."""
    settings = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial.parameters.items()
    )
    outcome = (
        f": {trial.value:.4f} at epoch {trial.epoch}"
        if trial.value is not None
        else f": {trial.error}"
        if trial.error
        else ""
    )
    click.echo(f"trial {trial.index} {trial.state}{outcome} ({settings})", err=True)


def print_json(result: Any) -> None:
    """Prints a record, a list of them, or what is JSON already."""
    click.echo(json.dumps(plain(result), indent=2))


def plain(result: Any) -> Any:
    """A record or several as JSON values; anything else as text."""
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    if isinstance(result, tuple | list):
        return [plain(item) for item in result]
    return result if result is None or isinstance(result, dict) else str(result)

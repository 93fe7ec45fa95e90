"""Deliveries by hand: hand over what is published, and who has what."""

from __future__ import annotations

import click

from pipelines.cli.shared import (
    chosen_partitions,
    first_option,
    json_option,
    last_option,
    partition_option,
    print_json,
    use_case_argument,
)
from pipelines.errors import NotFoundError, SpecError, explain
from pipelines.runtime import Runtime


@click.command()
@use_case_argument
@partition_option
@first_option
@last_option
@click.option("--delivery", help="Only to this delivery of the spec; to all when not given.")
@json_option
def deliver(
    use_case: str, partition: str | None, first: str | None, last: str | None, delivery: str | None, as_json: bool
) -> None:
    """Hand published predictions to the deliveries of the spec; what they have already is left as it is."""
    runtime = Runtime.open(use_case)
    if not runtime.spec.delivery:
        remedy = "add a `delivery` section to its YAML file"
        raise SpecError(explain(use_case, "its spec has no deliveries", remedy=remedy))
    asked = chosen_partitions(runtime, partition, first, last)
    predictions = runtime.predicted(asked)
    if not predictions:
        what = f"no predictions are published of {asked[0]}" + (f" to {asked[-1]}" if len(asked) > 1 else "")
        raise NotFoundError(explain(use_case, what, remedy="score the partitions first"))
    if absent := sorted(set(asked) - {one.partition for one in predictions}):
        click.echo(f"no predictions of {len(absent)} partitions: {', '.join(absent[:5])}", err=True)
    done = runtime.deliver(predictions, delivery)
    if as_json:
        print_json(done)
        return
    for one in done:
        click.echo(f"{one.state:<9}  {one.delivery}  {one.partition}  {one.rows} rows  {one.where}")


@click.command()
@use_case_argument
@click.option("--delivery", help="Only of this delivery.")
@json_option
def deliveries(use_case: str, delivery: str | None, as_json: bool) -> None:
    """Print who was handed which partitions, by which run."""
    found = Runtime.open(use_case).deliveries(delivery)
    if as_json:
        print_json(found)
        return
    for entry in found:
        one = entry.delivered
        click.echo(
            f"{one.delivery}  {one.partition}  #{entry.number}  {one.rows} rows by {use_case}@{entry.model_version}  "
            f"{one.where}  run {entry.run.run_id}{' (backfill)' if entry.run.backfill else ''}"
        )


COMMANDS: tuple[click.Command, ...] = (deliver, deliveries)

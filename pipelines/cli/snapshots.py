"""Snapshots from the command line: history, diff, revert, pin, unpin, pins, collect, doctor."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from pipelines.cli.shared import json_option, print_json, use_case_argument
from pipelines.records import PublishedPartition
from pipelines.runtime import Runtime

_AGE = re.compile(r"(\d{1,5})([dh])")
_NAMES = """\b
A snapshot's name is one of
  head               the newest
  12                 a version (of lakeFS: a commit's id, or 7 or more of its first digits)
  delta:flights/rows@12
  before-the-move    a pin
  2026-11-03         as of the end of that day, UTC
  2026-11-03T06:30   as of then, UTC when no zone is given
Dates are those of the commits, by the store's clock, not those of partitions."""


class _Named(click.Command):
    """A command whose help ends with what a snapshot may be called."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(_NAMES)


_table_argument = click.argument("table")
_reason_option = click.option("--reason", required=True, help="Why; it is kept.")


def _open(use_case: str, table: str) -> Runtime:
    runtime = Runtime.open(use_case)
    if table not in runtime.all_tables():
        raise click.UsageError(f"no table {table!r}; there are: {', '.join(runtime.all_tables())}")
    return runtime


@click.command()
@use_case_argument
@_table_argument
@click.option("--last", type=click.IntRange(min=1), help="Only that many commits, the newest.")
@json_option
def history(use_case: str, table: str, last: int | None, as_json: bool) -> None:
    """Print every commit of a table, newest first: what it changed, by which run, let through by which suites."""
    commits = _open(use_case, table).store.history(table)[:last]
    if as_json:
        print_json(commits)
        return
    for commit in commits:
        changed = _few(list(commit.partitions)) + (f", without {_few(list(commit.removed))}" if commit.removed else "")
        rows = sum(audit.rows for audit in commit.audits.values())
        suites = ", ".join(sorted({audit.suite for audit in commit.audits.values()}))
        click.echo(
            f"{commit.snapshot.id}  {commit.at:%Y-%m-%d %H:%M:%S}Z  {commit.kind:<7}  {changed}  {rows} rows  "
            f"{suites}  [{commit.run.dag_id}/{commit.run.run_id}]"
        )


def _few(keys: list[str]) -> str:
    """One key, or both ends."""
    ordered = sorted(keys)
    return ", ".join(ordered) if len(ordered) <= 2 else f"{ordered[0]}..{ordered[-1]} ({len(ordered)})"


@click.command(cls=_Named)
@use_case_argument
@_table_argument
@click.argument("before")
@click.argument("after")
@json_option
def diff(use_case: str, table: str, before: str, after: str, as_json: bool) -> None:
    """Say what changed between two snapshots of a table: partitions added, removed, replaced, and rows."""
    found = _open(use_case, table).diff(table, before, after)
    if as_json:
        print_json({**found.model_dump(mode="json"), "rows": found.rows})
        return
    for sign, parts in (("+", found.added), ("-", found.removed)):
        for part in parts:
            click.echo(f"{sign} {_shown(part)}")
    for old, new in found.replaced:
        click.echo(f"~ {_shown(old)} -> {new.digest[:12]} {new.rows} rows")
    click.echo(
        f"{found.before.id} -> {found.after.id}: {len(found.added)} added, {len(found.removed)} removed, "
        f"{len(found.replaced)} replaced, {found.rows:+} rows"
    )


def _shown(part: PublishedPartition) -> str:
    return f"{part.partition}  {part.digest[:12]} {part.rows} rows"


@click.command(cls=_Named)
@use_case_argument
@_table_argument
@click.option("--to", "to", required=True, help="The snapshot to go back to.")
@_reason_option
@json_option
def revert(use_case: str, table: str, to: str, reason: str, as_json: bool) -> None:
    """Make a table hold what an earlier snapshot held, in one new commit; history stays."""
    done = _open(use_case, table).revert(table, to, reason)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done.snapshot.id}: {len(done.published)} partitions brought back, {len(done.unchanged)} as they were")


@click.command(cls=_Named)
@use_case_argument
@_table_argument
@click.argument("snapshot")
@click.argument("name")
@_reason_option
def pin(use_case: str, table: str, snapshot: str, name: str, reason: str) -> None:
    """Keep a snapshot from being collected, under a name of your own."""
    done = _open(use_case, table).pin(name, table, snapshot, reason)
    click.echo(f"{done.name}: {done.snapshot.id} is kept ({done.reason})")


@click.command()
@use_case_argument
@click.argument("name")
def unpin(use_case: str, name: str) -> None:
    """Remove a pin; nothing happens when there is none."""
    Runtime.open(use_case).store.unpin(name)
    click.echo(f"{name}: no pin")


@click.command()
@use_case_argument
@json_option
def pins(use_case: str, as_json: bool) -> None:
    """Print every pin."""
    found = Runtime.open(use_case).store.pins()
    if as_json:
        print_json(found)
        return
    for each in found:
        click.echo(f"{each.name}  {each.snapshot.id}  {each.reason}")


def _age(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:  # noqa: ARG001 (click's signature)
    if (found := _AGE.fullmatch(value)) is None:
        raise click.BadParameter(f"{value!r} is no age: write 30d or 12h")
    return timedelta(days=int(found[1])) if found[2] == "d" else timedelta(hours=int(found[1]))


@click.command()
@use_case_argument
@click.option("--older-than", default="30d", show_default=True, callback=_age, help="Such as 30d or 12h.")
@click.option("--yes", is_flag=True, help="Remove it; without this, only say what would go.")
@json_option
def collect(use_case: str, older_than: timedelta, yes: bool, as_json: bool) -> None:
    """Remove bytes that nobody needs any more, and what dead runs left.

    What stays: everything that was visible within --older-than, every head, every pin, and every snapshot that a
    registered model or a prediction that stays was made from.
    """
    done = Runtime.open(use_case).collect(datetime.now(UTC) - older_than, dry_run=not yes)
    if as_json:
        print_json(done)
        return
    verb = "would go" if done.dry_run else "gone"
    for table in done.tables:
        if table.parts:
            keys = _few([part.partition for part in table.parts])
            files = f"{len(table.parts)} files with {table.rows} rows"
            click.echo(f"{table.table}: {files} {verb} ({keys}), {table.kept} stay")
    for name in done.swept:
        click.echo(f"left behind: {name} {verb}")
    if not done.swept and not any(table.parts for table in done.tables):
        click.echo("nothing to collect")
    elif done.dry_run:
        click.echo("this was a dry run: --yes removes them")


@click.command()
@use_case_argument
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@json_option
def doctor(use_case: str, repair: bool, as_json: bool) -> None:
    """Look for what is wrong with the snapshots, and say what to do. Exit code 1 when something is (still) wrong."""
    store = Runtime.open(use_case).store
    found = store.examine()
    if repair:
        for finding in found:
            if finding.repairable:
                store.repair(finding)
                click.echo(f"repaired {finding.name}: {finding.where}", err=True)
        found = store.examine()
    if as_json:
        print_json(found)
    for finding in found if not as_json else ():
        hint = " (`overnight doctor --repair` does it)" if finding.repairable else ""
        click.echo(f"{finding.name}: {finding.where}: {finding.what}. Remedy: {finding.remedy}{hint}")
    if found:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("all is well")


COMMANDS: tuple[click.Command, ...] = (history, diff, revert, pin, unpin, pins, collect, doctor)

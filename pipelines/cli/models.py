"""`overnight models`: what is registered, and what registrations that died left."""

from __future__ import annotations

import click

from pipelines.cli.shared import json_option, print_json, use_case_argument
from pipelines.records import Registered
from pipelines.runtime import Runtime


@click.command()
@use_case_argument
@click.option("--sweep", is_flag=True, help="Find what registrations that died left behind.")
@click.option("--yes", is_flag=True, help="Of --sweep: remove it; without this, only say what would go.")
@click.option("--sign", type=int, help="Sign a version anew: one from before models were signed, or after a new key.")
@click.option("--reason", help="Of --sign: where the version comes from; kept as its tag.")
@json_option
def models(use_case: str, sweep: bool, yes: bool, sign: int | None, reason: str | None, as_json: bool) -> None:
    """List the model versions of a use case with their aliases, digests, metrics and gates; oldest first."""
    if sign is not None and not reason:
        raise click.UsageError("--sign needs --reason")
    runtime = Runtime.open(use_case)
    registry = runtime.registry
    if sign is not None:
        registry.vouch(registry.get(sign), reason or "")
        click.echo(f"{use_case}@{sign}: signed")
        return
    if sweep:
        names = registry.sweep(dry_run=not yes)
        if as_json:
            print_json(names)
            return
        for name in names:
            click.echo(f"{name} {'gone' if yes else 'would go'}")
        if not names:
            click.echo("nothing to sweep")
        elif not yes:
            click.echo("this was a dry run: --yes removes them")
        return
    stages = (False, True) if "staging" in runtime.spec.stages else (False,)
    found = [entry for staged in stages for entry in registry.registered(staged=staged)]
    if as_json:
        print_json(found)
        return
    for entry in found:
        click.echo(_line(entry))
    if not found:
        click.echo("no version yet")


def _line(entry: Registered) -> str:
    def told(tag: str) -> str:
        return entry.tags.get(f"overnight.{tag}", "-")

    aliases = ", ".join(entry.aliases) or "-"
    signed = "signed" if "overnight.signature" in entry.tags else "NOT SIGNED"
    return (
        f"{entry.model.id:<16}  {aliases:<20}  {entry.model.digest[:12]}  {signed}  {told('metric')}  "
        f"as of {told('as_of')}  run {entry.model.run_id}  code {told('code_version')[:18]}  {told('gates')}"
    )


COMMANDS: tuple[click.Command, ...] = (models,)

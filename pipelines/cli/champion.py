"""The champion by hand: gate, promote, rollback, log, aliases."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from typing import Any

import click

from pipelines import partitions as keys
from pipelines.cli.shared import json_option, plain, print_json, use_case_argument
from pipelines.cli.verdicts import on_what, print_aliases, print_entry, print_gates, summary, words
from pipelines.errors import GateRefused, NotFoundError, SpecError, explain
from pipelines.records import Approval, ModelRef, Promotion
from pipelines.runtime import Runtime

#: MLflow's databases keep versions as 32-bit numbers.
_LAST = 2**31 - 1


class Version(click.ParamType[int]):
    """The number of a model version."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number from 1; anything else is misuse."""
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _LAST:
            return int(text)
        shown = repr(text if len(text) <= 40 else f"{text[:37]}...")
        return self.fail(f"{shown} is not a model version: a number such as 2", param, ctx)


class Reason(click.ParamType[str]):
    """Why a person does something: some words, on one line, kept for good."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Words; an empty reason and one of pages are misuse."""
        text = " ".join(words(str(value)).split())
        if not 1 <= len(text) <= 1000:
            self.fail("a reason has 1 to 1000 characters", param, ctx)
        return text


reason_option = click.option("--reason", required=True, type=Reason(), help="Why; kept in the promotion log.")
as_of_option = click.option("--as-of", help="Newest partition that may be used; by default the newest published one.")


def _user() -> str:
    """Who gives this command, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number that has no name
        return f"uid {os.getuid()}"


def _approval() -> Approval:
    return Approval(by=_user(), at=datetime.now(UTC).isoformat(timespec="seconds"), approved=True)


def _checked(runtime: Runtime, as_of: str | None) -> str | None:
    """A partition key, or none; anything else is misuse."""
    if as_of is not None:
        try:
            keys.start(as_of, runtime.spec.granularity)
        except SpecError as error:
            raise click.UsageError(str(error)) from None
    return as_of


def _challenger(runtime: Runtime) -> ModelRef:
    found = runtime.alias_state().expected["challenger"]
    if found is None:
        raise NotFoundError(
            explain(
                runtime.spec.name,
                "there is no challenger: every registered version was promoted, refused, or is older than the champion",
                remedy="train one, or name a --version",
            )
        )
    return runtime.candidate(found)


@click.command()
@use_case_argument
@click.option("--version", type=Version(), help="A registered version.")
@click.option("--challenger", is_flag=True, help="The newest version that waits for promotion (default).")
@click.option("--dry-run", is_flag=True, help="Store nothing, and say what each gate asks for.")
@as_of_option
@json_option
def gate(use_case: str, version: int | None, challenger: bool, dry_run: bool, as_of: str | None, as_json: bool) -> None:
    """Judge a registered version against the present champion, on the newest rows that neither learned from.

    Prints every gate's verdict and reason. Exit code 1 when any of them refuses. Without --dry-run the verdict becomes
    tags of the training's run, and a version that is refused is no challenger any more.
    """
    from pipelines.policies.gates import evaluate_gates
    from pipelines.policies.gates.asked import asked

    if version is not None and challenger:
        raise click.UsageError("name one of --version and --challenger")
    runtime = Runtime.open(use_case)
    known = _checked(runtime, as_of)
    model = runtime.candidate(version) if version is not None else _challenger(runtime)
    trained, evaluation = runtime.examine(model, known)
    report = evaluate_gates(evaluation, runtime.spec) if dry_run else runtime.gate(trained, evaluation)
    asks = {each.name: asked(each.name, evaluation, runtime.spec) for each in report.gates}
    if as_json:
        print_json(
            {
                "version": model.version,
                "champion": evaluation.champion_version,
                "dry_run": dry_run,
                "passed": report.passed,
                "gates": [{**plain(each), "asks": asks[each.name]} for each in report.gates],
                "evaluation": plain(evaluation),
            }
        )
    else:
        click.echo(on_what(evaluation, model.version))
        print_gates(report.gates, asks if dry_run else None)
        click.echo(summary(report.gates) + (" (dry run: nothing was stored)" if dry_run else ""))
    if not report.passed:
        raise click.exceptions.Exit(1)


@click.command()
@use_case_argument
@click.argument("version", type=Version())
@reason_option
@as_of_option
def promote(use_case: str, version: int, reason: str, as_of: str | None) -> None:
    """Make a registered version the champion, through the same gates as a training's.

    It meets the present champion on the newest rows that neither learned from. Your command is the approval that
    `promotion: manual` asks for, and your name goes into the log.
    """
    runtime = Runtime.open(use_case)
    _promote(runtime, runtime.candidate(version), reason, _checked(runtime, as_of))


def _promote(runtime: Runtime, model: ModelRef, reason: str, as_of: str | None) -> None:
    entry, new = runtime.promote_by_hand(model, _approval(), reason, as_of)
    if new:
        print_gates(entry.gates)
        click.echo(f"champion: {_was(runtime, entry)}")
    else:
        click.echo(f"{model.id} is the champion already, since epoch {entry.epoch}: nothing to do")


def _was(runtime: Runtime, entry: Promotion) -> str:
    was = f" (was {entry.previous})" if entry.previous else ""
    return f"{runtime.spec.name}@{entry.version}{was}, epoch {entry.epoch}"


@click.command()
@use_case_argument
@click.option("--to", "to", type=Version(), help="A version that was champion before; the previous one by default.")
@reason_option
def rollback(use_case: str, to: int | None, reason: str) -> None:
    """Make an earlier champion the champion again, its drift reference and threshold with it.

    A command that was cut off can be given again with the same reason: it goes back once. What was scored stays;
    `overnight score ... --model N`, or `--anew`, scores again.
    """
    runtime = Runtime.open(use_case)
    before = len(runtime.promotions())
    entry = runtime.rollback(to, reason, _approval())
    if entry.epoch > before:
        click.echo(f"champion: {_was(runtime, entry)}")
    else:
        click.echo(f"{use_case}@{entry.version} is the champion already, since epoch {entry.epoch}: nothing to do")


@click.command()
@use_case_argument
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Print every gate of every entry.")
def log(use_case: str, as_json: bool, verbose: bool) -> None:
    """Print the promotion log: who or which run made which version the champion, after which, why, by which gates."""
    from pipelines.steps.promotions import PROMOTIONS, strays

    runtime = Runtime.open(use_case)
    entries = runtime.promotions()
    if as_json:
        print_json(entries)
    else:
        for entry in entries:
            print_entry(use_case, entry, verbose=verbose)
        if not entries:
            click.echo("nothing was promoted yet", err=True)
    if stray := strays(runtime.store):
        click.echo(
            f"in the table {PROMOTIONS}, but no entries and never read: {', '.join(map(repr, stray[:5]))}; somebody "
            f"wrote there without Overnight, see `overnight history {use_case} {PROMOTIONS}`",
            err=True,
        )


@click.command()
@use_case_argument
@click.option("--restore", is_flag=True, help="Move every alias to where the log says.")
@click.option("--adopt", is_flag=True, help="Promote the version that the alias champion names, through the gates.")
@click.option("--reason", type=Reason(), help="Of --adopt: why; kept in the promotion log.")
@json_option
def aliases(use_case: str, restore: bool, adopt: bool, reason: str | None, as_json: bool) -> None:
    """Compare MLflow's aliases with the promotion log, and put right what somebody moved by hand.

    Scoring follows the log, never an alias. Exit code 1 when an alias is elsewhere and stays there.
    """
    if adopt == (reason is None) or (adopt and restore):
        raise click.UsageError("give --restore, or --adopt with --reason, or nothing")
    runtime = Runtime.open(use_case)
    state = runtime.alias_state()
    if adopt:
        _adopt(runtime, state.found["champion"], state.expected["champion"], reason or "")
        state = runtime.restore_aliases()
    elif restore:
        if state.moved:
            click.echo(f"restored: {state.told}", err=True)
        state = runtime.restore_aliases()
    if as_json:
        print_json({**plain(state), "moved": list(state.moved)})
    else:
        print_aliases(use_case, state)
    if state.moved:
        raise click.exceptions.Exit(1)


def _adopt(runtime: Runtime, found: int | None, expected: int | None, reason: str) -> None:
    if found is None or found == expected:
        what = "was removed" if found is None else "is where the log says; the others follow it"
        raise GateRefused(
            explain(
                f"{runtime.spec.name}: adopt",
                f"the alias champion {what}",
                remedy=f"overnight aliases {runtime.spec.name} --restore",
            )
        )
    _promote(runtime, runtime.model(found), reason, None)


COMMANDS: tuple[click.Command, ...] = (gate, promote, rollback, log, aliases)

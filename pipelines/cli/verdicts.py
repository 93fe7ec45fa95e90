"""What gates, the promotion log and aliases look like on a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from pipelines.records import AliasState, Evaluation, Gate, Promotion

_NARROWEST, _WIDEST = 60, 100


def width() -> int:
    """Columns to fill; a line longer than a hundred is hard to read."""
    return min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)


def words(text: str) -> str:
    """A person's text without control characters: a terminal obeys those."""
    return "".join(each if each.isprintable() else " " for each in text)


def hung(head: str, text: str) -> Iterator[str]:
    """Lines of `text` hanging on a head of any length."""
    indent = " " * len(head)
    wrapped = textwrap.wrap(words(text), width(), initial_indent=head, subsequent_indent=indent)
    yield from wrapped or [head.rstrip()]


def print_gates(gates: Iterable[Gate], asked: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """A table: gate, verdict, reason; and below each what it asks for, where that is given."""
    rows = list(gates)
    column = max(len("gate"), *(len(gate.name) for gate in rows)) + 2 if rows else 6
    click.secho(f"{'gate':<{column}}{'verdict':<9}reason", bold=True)
    for gate in rows:
        verdict = "passed" if gate.passed else "REFUSED"
        first, *more = hung(f"{gate.name:<{column}}{verdict:<9}", gate.reason)
        at = len(gate.name)
        styled = click.style(verdict, fg="green" if gate.passed else "red")
        click.echo(f"{first[:at]}{first[at:].replace(verdict, styled, 1)}")
        for line in more:
            click.echo(line)
        for key, value in (asked or {}).get(gate.name, {}).items():
            for line in hung(" " * (column + 9) + "asks: ", f"{key} = {_setting(value)}"):
                click.secho(line, dim=True)


def _setting(value: Any) -> str:
    if value in ((), {}, None):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def summary(gates: tuple[Gate, ...]) -> str:
    """Such as `7 of 7 passed`, or which refused."""
    refused = [gate.name for gate in gates if not gate.passed]
    return f"{len(gates) - len(refused)} of {len(gates)} passed" + (
        f"; refused: {', '.join(refused)}" if refused else ""
    )


def on_what(evaluation: Evaluation, version: int) -> str:
    """Which models met on which rows."""
    holdout, rival = evaluation.holdout, evaluation.champion_version
    against = "no champion yet" if rival is None else f"against champion {evaluation.use_case}@{rival}"
    return (
        f"{evaluation.use_case}@{version}, {against}: {evaluation.metric} on {holdout.rows} rows of "
        f"{holdout.partitions[0]} to {holdout.partitions[1]}, known on {holdout.as_of}"
    )


def print_entry(use_case: str, entry: Promotion, *, verbose: bool) -> None:
    """One entry of the promotion log: who, from, to, why, as of, gates."""
    was = f"was {use_case}@{entry.previous}" if entry.previous else "the first champion"
    click.secho(f"{entry.epoch:>5}  {entry.kind:<8}  {use_case}@{entry.version}  {was}  as of {entry.as_of}", bold=True)
    by = f"{entry.run.dag_id}/{entry.run.run_id}"
    if entry.approval is not None:
        by += f", {'approved' if entry.approval.approved else 'rejected'} by {entry.approval.by} at {entry.approval.at}"
    told = {"why": entry.reason, "by": by, "trained by": f"run {entry.trained_by}" if entry.trained_by else ""}
    if entry.gates:
        told["gates"] = summary(entry.gates)
    for name, text in told.items():
        if text:
            for line in hung(f"       {name:<12}", text):
                click.echo(line)
    if verbose:
        for gate in entry.gates:
            for line in hung(f"         {gate.name}: ", f"{'passed' if gate.passed else 'REFUSED'}, {gate.reason}"):
                click.echo(line)


def print_aliases(use_case: str, state: AliasState) -> None:
    """A table: alias, where it is, where it belongs."""
    click.secho(f"{'alias':<12}{'MLflow':<16}{'promotion log':<16}", bold=True)
    for name, version in state.expected.items():
        here, there = (f"{use_case}@{each}" if each else "-" for each in (state.found.get(name), version))
        click.echo(f"{name:<12}{here:<16}{there:<16}{'moved' if name in state.moved else ''}".rstrip())

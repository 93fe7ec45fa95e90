"""Decisions to retrain: those that were taken, and those that another policy would have taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.shared import use_case_argument
from pipelines.records import RetrainDecision
from pipelines.runtime import Runtime

#: By level.
COLOURS = {"alarm": "red", "warning": "yellow", "calm": "green", "unknown": "dim"}
_SIGNALS = ("inputs", "scores", "decay", "age")


@click.command()
@use_case_argument
@click.option("--since", metavar="PARTITION", help="Only those as of this partition or later.")
@click.option("--reasons", is_flag=True, help="Every reason of each, one a line.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def decisions(use_case: str, since: str | None, reasons: bool, as_json: bool) -> None:
    """Print every retraining decision: what spoke for it, and what against."""
    found = [each for each in Runtime.open(use_case).decisions() if since is None or each.as_of >= since]
    if as_json:
        for each in found:
            click.echo(each.model_dump_json())
        return
    if reasons:
        for each in found:
            click.echo(f"{each.as_of}  {_answer(each)}  {use_case}@{each.champion}  {each.id}")
            for reason in each.reasons:
                click.echo(f"    {reason}")
        return
    table = Table("as of", "retrain", *_SIGNALS, "champion", "why", box=None, pad_edge=False)
    for each in found:
        levels = {str(signal.name): str(signal.level) for signal in each.signals}
        shown = [Text(levels.get(name, "-"), style=COLOURS.get(levels.get(name, ""), "dim")) for name in _SIGNALS]
        table.add_row(each.as_of, _answer(each), *shown, f"@{each.champion}", why(each))
    Console(soft_wrap=False).print(table if found else "no decision yet")


@click.command()
@use_case_argument
@click.option(
    "--policy",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML with the sections drift and retraining, or a whole spec.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def simulate(use_case: str, policy: Path, as_json: bool) -> None:
    """Replay another policy over the recorded nights: what would it have done?"""
    runtime = Runtime.open(use_case)
    found = runtime.simulate(policy)
    recorded = [night.recorded.as_of for night in found.nights if night.recorded.retrain]
    played = [night.simulated.as_of for night in found.nights if night.simulated.retrain]
    known = [night for night in found.nights if night.certain]
    cost = None if found.seconds is None else found.seconds * len(played)
    if as_json:
        told: dict[str, Any] = {
            "nights": [
                {
                    "as_of": night.recorded.as_of,
                    "recorded": night.recorded.retrain,
                    "simulated": night.simulated.retrain,
                    "escalate": night.simulated.escalate,
                    "reasons": night.simulated.reasons,
                    "metric": night.quality,
                    "certain": night.certain,
                }
                for night in found.nights
            ],
            "unread": found.unread,
            "retrainings": len(played),
            "training_seconds": cost,
            "certain_nights": len(known),
        }
        click.echo(json.dumps(told))
        return
    table = Table("as of", "recorded", "simulated", runtime.spec.watched_metric, "why", box=None, pad_edge=False)
    for night in found.nights:
        differs = night.recorded.retrain != night.simulated.retrain
        metric = "-" if night.quality is None else f"{night.quality:.4f}{'' if night.certain else ' ?'}"
        style = "bold" if differs else None
        told_why = why(night.simulated)
        table.add_row(
            night.recorded.as_of, _answer(night.recorded), _answer(night.simulated), metric, told_why, style=style
        )
    Console(soft_wrap=False).print(table)
    click.echo(f"retrainings: {len(recorded)} recorded ({', '.join(recorded) or 'none'})")
    click.echo(f"             {len(played)} simulated ({', '.join(played) or 'none'})")
    click.echo(f"training: {'not recorded' if cost is None else f'about {cost:.0f} s'}, by the recorded ones' median")
    click.echo(f"{len(known)} of {len(found.nights)} nights are certain: after a decision that differs, ? marks the")
    click.echo("metric of a champion that would perhaps not have served")
    if found.unread:
        click.echo(f"{found.unread} decisions were taken by an earlier version, and cannot be replayed")


def why(decision: RetrainDecision) -> str:
    """The shortest true reason."""
    loud = [signal.told for signal in decision.signals if signal.level == "alarm"]
    if decision.escalate:
        return next(reason for reason in decision.reasons if reason.startswith("challenger"))
    if decision.retrain:
        return "; ".join(loud)
    if loud:
        return f"{'; '.join(loud)}; but see --reasons"
    quiet = [signal.told for signal in decision.signals if signal.level in ("warning", "unknown")]
    return quiet[0] if quiet else "nothing is in alarm" if decision.signals else "; ".join(decision.reasons)


def _answer(decision: RetrainDecision) -> str:
    return "yes" if decision.retrain else "ask" if decision.escalate else "no"


COMMANDS: tuple[click.Command, ...] = (decisions, simulate)

"""`overnight drill`: injects a fault, plays the nights, and holds what came of it against what was written down."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.records import Claim
from pipelines.settings import Settings
from pipelines.spec import load_spec
from pipelines.spec.drills import Drill, Verdict
from pipelines.spec.reading import load_drills


@click.command()
@click.argument("name", required=False)
@click.argument("use_case", required=False)
@click.option("--list", "listed", is_flag=True, help="List the drills, with what is expected of each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a drill.")
def drill(name: str | None, use_case: str | None, listed: bool, as_json: bool) -> None:
    """Play a drill, or `all`, of a use case; exit 1 if a verdict is not as expected.

    Drills are written down in include/drills/USE_CASE.yaml. They work on a copy below OVERNIGHT_HOME/drills.
    """
    settings = Settings()
    folder = settings.project / "include" / "drills"
    if listed:
        _list(settings, [use_case or name] if use_case or name else sorted(path.stem for path in folder.glob("*.yaml")))
        return
    if name is None or use_case is None:
        raise click.UsageError("name a drill, or all, and a use case; `overnight drill --list` names them")
    from pipelines.drills.play import Ground
    from pipelines.policies.verdicts import judge

    spec = load_spec(settings.spec_path(use_case))
    drills = load_drills(folder / f"{use_case}.yaml", spec)
    if name != "all" and name not in drills.drills:
        raise click.UsageError(f"{use_case} has no drill {name!r}; there are: all, {', '.join(drills.drills)}")
    ground = Ground(spec, settings, drills)
    base = ground.base(lambda line: click.echo(line, err=True))
    failed = False
    for chosen in drills.drills if name == "all" else (name,):
        played = ground.play(chosen, base, lambda line: click.echo(f"  {line}", err=True))
        claims = judge(drills.drills[chosen].expect, played)
        failed = failed or not all(claim.held for claim in claims)
        if as_json:
            told = {"drill": chosen, "claims": [claim.model_dump() for claim in claims]}
            click.echo(json.dumps(told | {"nights": [night.model_dump(mode="json") for night in played]}))
        else:
            _show(chosen, drills.drills[chosen], claims)
    if failed:
        raise click.exceptions.Exit(1)


def _show(name: str, played: Drill, claims: list[Claim]) -> None:
    table = Table("", "expected", "found", box=None, pad_edge=False)
    for claim in claims:
        mark = Text("yes", style="green") if claim.held else Text("NO", style="red bold")
        table.add_row(mark, claim.said, claim.found)
    console = Console(soft_wrap=False)
    console.print(Text(f"{name}: {played.title}", style="bold"))
    console.print(table)


def _list(settings: Settings, use_cases: Sequence[str | None]) -> None:
    console = Console(soft_wrap=False)
    for use_case in use_cases:
        spec = load_spec(settings.spec_path(str(use_case)))
        found = load_drills(settings.project / "include" / "drills" / f"{use_case}.yaml", spec)
        table = Table("drill", "what happens", "nights", "expected", box=None, pad_edge=False)
        for name, each in found.drills.items():
            table.add_row(name, each.title, str(each.nights), said(each.expect))
        console.print(Text(f"{use_case}: champion of {found.first}..{found.last}", style="bold"))
        console.print(table)


def said(verdict: Verdict) -> str:
    """A verdict in a few words."""
    parts = ["held back by the data's gate"] if verdict.quarantined else []
    parts += [f"{kind} told by night {by}" for kind, by in verdict.alerts.items()]
    parts += [f"no word of {', '.join(verdict.silent)}"] if verdict.silent else []
    parts += [f"{', '.join(verdict.over)} over at the end"] if verdict.over else []
    parts += [f"{verdict.most_messages} messages at most"] if verdict.most_messages is not None else []
    parts.append("no retraining" if verdict.retrain == "never" else f"retrained by night {verdict.retrain}")
    parts += [f"at most {verdict.most_retrainings} times"] if verdict.most_retrainings is not None else []
    parts += [f"champion {verdict.champion}"] if verdict.champion != "either" else []
    return "; ".join(parts)


COMMANDS: tuple[click.Command, ...] = (drill,)

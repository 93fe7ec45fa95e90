"""Provenance from the command line: trace and replay."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.shared import json_option, print_json
from pipelines.errors import NotFoundError, TransientError, explain
from pipelines.records import Link, Trace
from pipelines.runtime import Runtime
from pipelines.settings import Settings

if TYPE_CHECKING:
    from rich.tree import Tree

#: Links of one kind in a row that are printed; the others are counted.
_SHOWN = 2


@click.command()
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="Print every link, however many there are of a kind.")
@json_option
def trace(name: str, everything: bool, as_json: bool) -> None:
    """Print where something came from and what became of it.

    \b
    NAME is one of
      flights/predictions/2013-09-03          any table and partition, as it is now
      flights/predictions/2013-09-03#<key>    one row; several key columns are joined by |
      flights@7, flights@champion             a model version (also previous, challenger)
      delta:flights/rows@12                   a snapshot
      scheduled__2013-09-03T02:00:00+00:00    a DAG run; flights_ingest/<run id> when several DAGs have such a run
    """
    found = [_traced(runtime, name) for runtime in _asked(name)]
    traces = [each for each in found if isinstance(each, Trace)]
    if not traces:
        raise next((each for each in found if isinstance(each, TransientError)), found[0])  # type: ignore[misc]
    for error in (each for each in found if isinstance(each, TransientError)):
        click.echo(f"{type(error).__name__}: {error}", err=True)
    if as_json:
        print_json(traces if len(traces) > 1 else traces[0])
        return
    for each in traces:
        _print(each.root, everything=everything)


def _traced(runtime: Runtime, name: str) -> Trace | NotFoundError | TransientError:
    try:
        return runtime.trace(name)
    except (NotFoundError, TransientError) as error:
        return error


def _asked(name: str) -> list[Runtime]:
    """The use case that a name names; for a run, all of them: any of them may know it."""
    from pipelines.steps import tracing

    known = sorted(path.stem for path in Settings().spec_path("x").parent.glob("*.yaml"))
    asked = tracing.parse(name).use_case
    if asked is not None and asked not in known:
        allowed = f"{', '.join(known)}; {tracing.FORMS}"
        raise NotFoundError(explain(f"trace {name!r}", f"there is no use case {asked!r}", allowed=allowed))
    return [Runtime.open(use_case) for use_case in known if asked in (None, use_case)]


def _print(root: Link, *, everything: bool) -> None:
    """A tree: rich on a terminal, plain otherwise."""
    if not sys.stdout.isatty():
        for line in _lines(root, everything=everything):
            click.echo(line)
        return
    from rich.console import Console
    from rich.tree import Tree

    tree = Tree(_styled(root))
    _grow(tree, root, everything=everything)
    Console().print(tree)


def _lines(link: Link, *, everything: bool, indent: str = "") -> Iterator[str]:
    yield f"{indent}{_words(link)}"
    for each, more in _short(link.links, everything=everything):
        if more:
            yield f"{indent}  {more}"
        else:
            yield from _lines(each, everything=everything, indent=f"{indent}  ")


def _grow(tree: Tree, link: Link, *, everything: bool) -> None:
    from rich.text import Text

    for each, more in _short(link.links, everything=everything):
        if more:
            tree.add(Text(more, style="dim"))
        else:
            _grow(tree.add(_styled(each)), each, everything=everything)


def _short(links: Iterable[Link], *, everything: bool) -> Iterator[tuple[Link, str]]:
    """Each link; in the place of many of one kind, the first few and a line that counts the others."""
    for (how, kind, _), group in groupby(links, key=_alike):
        same = list(group)
        few = same if everything or len(same) <= _SHOWN + 1 else same[:_SHOWN]
        for link in few:
            yield link, ""
        if len(few) < len(same):
            yield same[-1], f"{how} {len(same) - len(few)} more {kind}s, up to {same[-1].id} (--all prints them)"


def _alike(link: Link) -> tuple[str, str, str]:
    """Links of one relation and kind, partitions of one table, are counted together."""
    return link.how, link.kind, link.id.rpartition("/")[0] if link.kind == "partition" else ""


def _words(link: Link) -> str:
    facts = ", ".join(f"{name} {_short_value(value)}" for name, value in link.facts.items())
    return f"{link.how} {link.kind} {_short_value(link.id)}".strip() + (f"  ({facts})" if facts else "")


def _styled(link: Link) -> Any:
    from rich.text import Text

    facts = ", ".join(f"{name} {_short_value(value)}" for name, value in link.facts.items())
    text = Text(f"{link.how} " if link.how else "", style="dim")
    text.append(f"{link.kind} ", style="cyan").append(_short_value(link.id), style="bold")
    return text.append(f"  {facts}" if facts else "", style="dim")


def _short_value(value: Any) -> str:
    """Digests by their first 12 digits: `--json` has them whole."""
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {_short_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "; ".join(map(_short_value, value))
    return str(value)


@click.command()
@click.argument("name")
@json_option
def replay(name: str, as_json: bool) -> None:
    """Score predictions again from the recorded snapshots and model, and say whether the bytes agree.

    NAME is a prediction partition, such as flights/predictions/2013-09-03. Nothing is published. Exit code 0 when the
    bytes are identical; 1 when they differ, or when what they were made from was erased or collected.
    """
    from pipelines.steps import tracing

    asked = tracing.parse(name)
    if asked.form != "partition" or asked.table != "predictions" or asked.key is not None:
        raise click.UsageError(f"{name!r} is no prediction partition; write flights/predictions/2013-09-03")
    done = _asked(name)[0].replay(asked.partition)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{name}: {done.outcome}")
        click.echo(f"  by {done.model} from {', '.join(done.inputs)}")
        click.echo(f"  published {done.published}, replayed {done.replayed or '-'}")
        for difference in done.differences:
            click.echo(f"  {difference}")
    if done.outcome != "identical":
        raise click.exceptions.Exit(1)


COMMANDS: tuple[click.Command, ...] = (trace, replay)

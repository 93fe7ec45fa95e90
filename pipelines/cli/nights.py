"""Nights by hand: score, nights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from pipelines.cli.night_table import print_nights
from pipelines.cli.shared import (
    chosen_partitions,
    first_option,
    json_option,
    last_option,
    partition_option,
    print_json,
    use_case_argument,
)
from pipelines.cli.verdicts import words
from pipelines.errors import NotFoundError, OvernightError, QuarantinedError
from pipelines.runtime import Runtime

if TYPE_CHECKING:
    from pipelines.records import Prediction, Scored, ScorePlan


_UNCHANGED = "published before from the same inputs"


class Model(click.ParamType[str | int]):
    """Which model scores: `champion`, `as-of`, or a version's number."""

    name = "champion|as-of|version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """One of these; anything else is misuse."""
        from pipelines.steps.choosing import parse

        try:
            return parse(value)
        except NotFoundError as error:
            return self.fail(str(error), param, ctx)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one night."""

    partition: str
    state: Literal["scored", "unchanged", "missing", "failed"]
    model: str | None = None
    """Id of the version that made the published scores."""
    rows: int | None = None
    snapshot: str | None = None
    why: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        if self.model is None:
            return f"{self.state} {self.partition}: {words(self.why)}"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{self.state} {self.partition}: {rows} by {self.model} ({self.snapshot})" + (
            f"; {words(self.why)}" if self.why else ""
        )


@click.command()
@use_case_argument
@partition_option
@first_option
@last_option
@click.option(
    "--model",
    type=Model(),
    default="champion",
    show_default=True,
    help="The present champion; for each night the one that was champion when it ran; or a version, which scores again "
    "what another one scored.",
)
@click.option("--anew", is_flag=True, help="Score again what another model has scored.")
@click.option(
    "--parallel", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that share the cores."
)
@json_option
def score(
    use_case: str,
    partition: str | None,
    first: str | None,
    last: str | None,
    model: str | int,
    anew: bool,
    parallel: int,
    as_json: bool,
) -> None:
    """Score nights, audit the scores and publish them; what is published already from the same inputs stays.

    A range is a backfill: it makes up for nights that have passed, raises no alert and starts no training. It takes
    what is there and says the rest. Exit code 1 when a night that was named has no scores in the end.
    """
    runtime = Runtime.open(use_case)
    chosen = chosen_partitions(runtime, partition, first, last)
    if partition is None:
        runtime.run = runtime.run.model_copy(update={"backfill": True})
    outcomes = score_nights(runtime, chosen, model, anew=anew, parallel=parallel)
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        click.secho(outcome.line, fg="red" if outcome.state in ("missing", "failed") else None)
    there = [outcome.partition for outcome in outcomes if outcome.state in ("scored", "unchanged")]
    for handed in runtime.deliver(runtime.predicted(there)) if runtime.spec.delivery and there else ():
        click.echo(f"delivered {handed.partition} to {handed.delivery}: {handed.rows} rows ({handed.state})", err=True)
    if any(outcome.state in ("missing", "failed") for outcome in outcomes):
        raise click.exceptions.Exit(1)


def score_nights(
    runtime: Runtime, partitions: Sequence[str], model: str | int, *, anew: bool = False, parallel: int = 1
) -> list[Outcome]:
    """Scores what can be scored and says what became of each partition, in order.

    Raises:
        NotFoundError: there is no such model.
    """
    held = runtime.published(partitions)
    outcomes = list(_absent(runtime, sorted(set(partitions) - set(held))))
    plans = runtime.plan_scores(held, model, anew=anew) if held else ()
    for plan in plans:
        outcomes += _carry_out(runtime, plan, parallel)
    without = sorted(set(held) - {key for plan in plans for key in plan.rows_in})
    outcomes += _as_they_are(runtime, without, "missing", "there was no champion yet when it ran")
    return sorted(outcomes, key=lambda outcome: outcome.partition)


def _absent(runtime: Runtime, partitions: Sequence[str]) -> Iterator[Outcome]:
    """Nights whose rows are not published, and why."""
    why = {
        "landed": "its file has landed and is not ingested",
        "missing": "there is no file in the landing zone",
        "to_come": "it is not due yet",
    }
    for night in runtime.nights(partitions) if partitions else ():
        told = why.get(night.input) or f"its rows are in quarantine ({'; '.join(night.quarantined)})"
        yield Outcome(partition=night.partition, state="missing", why=told)


def _carry_out(runtime: Runtime, plan: ScorePlan, parallel: int) -> Iterator[Outcome]:
    """Scores a plan and publishes what passes; what goes wrong with it stops no other plan."""
    from pipelines.processes import score_in_processes

    bad: dict[str, str] = {}
    done: tuple[Prediction, ...] = ()
    try:
        scored = score_in_processes(runtime, plan, parallel) if parallel > 1 else runtime.score_plan(plan)
        try:
            audited = runtime.audit_scores(scored)
        except QuarantinedError as error:
            bad = _refused(runtime, scored) or dict.fromkeys(plan.due, str(error))
            audited = runtime.audit_scores(_without(scored, bad))
        done = runtime.publish_scores(audited)
    except OvernightError as error:
        yield from _as_they_are(runtime, plan.unchanged, "failed", str(error))
        for partition in plan.due:
            yield Outcome(partition=partition, state="failed", why=bad.get(partition, str(error)))
        return
    for partition, told in bad.items():
        yield Outcome(partition=partition, state="failed", why=told)
    for each in done:
        fresh = each.state == "published"
        yield Outcome(
            partition=each.partition,
            state="scored" if fresh else "unchanged",
            model=f"{plan.model.name}@{each.model_version}",
            rows=each.rows_scored,
            snapshot=each.snapshot.id,
            why="" if fresh else _UNCHANGED,
        )


def _as_they_are(
    runtime: Runtime, partitions: Sequence[str], state: Literal["missing", "failed"], why: str
) -> Iterator[Outcome]:
    """Nights that are not scored now: those that have scores keep them, the others have none for this reason."""
    for night in runtime.nights(partitions) if partitions else ():
        if (scores := night.scores) is not None and night.due is None:
            yield Outcome(
                partition=night.partition,
                state="unchanged",
                model=f"{runtime.spec.name}@{scores.model}",
                rows=scores.rows,
                snapshot=scores.snapshot,
                why=_UNCHANGED,
            )
        else:
            yield Outcome(partition=night.partition, state=state, why=why)


def _refused(runtime: Runtime, scored: Scored) -> dict[str, str]:
    """What failed the audit just now, and why."""
    from pipelines.steps.predictions import PREDICTIONS

    staged = {(part.partition, part.digest) for part in scored.staged}
    return {
        entry.partition: "the scores failed their audit: "
        + "; ".join(f"{check.name} {check.observed}" for check in entry.report.failed)
        for entry in runtime.store.quarantined(PREDICTIONS)
        if (entry.partition, entry.report.digest) in staged
    }


def _without(scored: Scored, bad: Iterable[str]) -> Scored:
    """The rest of what was scored."""
    left = set(scored.rows_in) - set(bad)
    return scored.model_copy(
        update={
            "rows_in": {key: rows for key, rows in scored.rows_in.items() if key in left},
            "fingerprints": {key: found for key, found in scored.fingerprints.items() if key in left},
            "due": tuple(key for key in scored.due if key in left),
            "staged": tuple(part for part in scored.staged if part.partition in left),
        }
    )


@click.command()
@use_case_argument
@first_option
@last_option
@json_option
def nights(use_case: str, first: str | None, last: str | None, as_json: bool) -> None:
    """Show what became of every night: its rows, its labels, its scores, and what there is to do.

    By default all nights from the first that anything is known of to the last that was due.
    """
    runtime = Runtime.open(use_case)
    chosen = chosen_partitions(runtime, None, first, last) if first or last else None
    found = runtime.nights(chosen)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no night is known of: nothing has landed, nothing is published", err=True)
    else:
        print_nights(use_case, found)


COMMANDS: tuple[click.Command, ...] = (score, nights)

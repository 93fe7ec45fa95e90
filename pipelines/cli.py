"""`overnight`: every step and the whole chain without Airflow. Exit codes: 0 done, 1 failed, 2 misuse."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from pipelines import __version__, records
from pipelines import partitions as keys
from pipelines.errors import OvernightError, SpecError
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import load_spec

T = TypeVar("T")


class _Commands(click.Group):
    """Turns Overnight's errors into one line and exit code 1; a traceback is for bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OvernightError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Machine-learning nights without Airflow: for debugging, containers and tests.

    Everything is written under OVERNIGHT_HOME (default: var/).
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def _progress(items: Iterable[T], label: str, show: Callable[[T], str] = str) -> Iterable[T]:
    """A bar on a terminal, a plain line an item otherwise."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(list(items), description=label, console=Console(stderr=True))
        return
    for item in items:
        click.echo(f"{label}: {show(item)}", err=True)
        yield item


def _chosen(runtime: Runtime, partition: str | None, first: str | None, last: str | None) -> list[str]:
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


_use_case = click.argument("use_case")
_partition = click.option("--partition", help="One partition key, such as 2013-09-01 (UTC).")
_first = click.option("--from", "first", help="First partition of a range.")
_last = click.option("--to", "last", help="Last partition of a range, included.")


@main.command()
@click.argument("spec", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(spec: tuple[Path, ...]) -> None:
    """Read specs and say what is wrong with them."""
    failed = False
    for path in spec:
        try:
            found = load_spec(path)
        except SpecError as error:
            failed = True
            click.echo(f"SpecError: {error}", err=True)
        else:
            features = found.features.columns
            click.echo(f"{path}: good. {found.title}: {len(found.tables)} tables, {len(features)} features.")
    if failed:
        raise click.exceptions.Exit(1)


@main.command()
@_use_case
@_first
@_last
def data(use_case: str, first: str | None, last: str | None) -> None:
    """Lay a shipped data set out as a landing zone of daily files, as a source system would drop them."""
    settings = Settings()
    folder = settings.project / "include" / "landing"
    makers = {path.stem: path for path in folder.glob("*.py")}
    if use_case not in makers:
        raise click.UsageError(f"no data set {use_case!r} in {folder}; there are: {', '.join(sorted(makers))}")
    plan = importlib.util.spec_from_file_location(f"overnight_landing_{use_case}", makers[use_case])
    assert plan is not None
    assert plan.loader is not None
    module = importlib.util.module_from_spec(plan)
    plan.loader.exec_module(module)
    files = module.lay_out(settings.landing_zone, first, last)
    click.echo(f"{files} files in {settings.landing_zone}")


@main.command()
@_use_case
@_partition
@_first
@_last
@click.option("--train/--no-train", default=None, help="Train afterwards; by default when there is no champion yet.")
@click.option("--monitor/--no-monitor", default=False, help="Look back on the last partition's window and decide.")
def run(
    use_case: str, partition: str | None, first: str | None, last: str | None, train: bool | None, monitor: bool
) -> None:
    """Run the chain: ingest, train when there is no champion yet, score, and monitor when asked."""
    runtime = Runtime.open(use_case)
    chosen = _chosen(runtime, partition, first, last)
    bad = [entry for table in _progress(runtime.tables(), "ingest") for entry in _ingest(runtime, table, chosen)]
    if train or (train is None and runtime.champion() is None):
        _train(runtime, chosen[-1])
    held = runtime.published(chosen)
    if runtime.champion() is not None and held:
        predictions = runtime.publish_scores(runtime.audit_scores(runtime.score(held)))
        for done in predictions:
            click.echo(
                f"scored {done.partition}: {done.rows_scored} of {done.rows_in} rows by "
                f"{use_case}@{done.model_version} ({done.state})"
            )
    if monitor:
        decision = runtime.decide(runtime.observe(chosen[-1]))
        click.echo(f"retrain: {'yes' if decision.retrain else 'no'} ({'; '.join(decision.reasons)})")
    for entry in bad:
        failed = ", ".join(f"{check.name} {check.column or ''}".strip() for check in entry.report.failed)
        click.echo(f"quarantined {entry.table}/{entry.partition}: {failed}; see {entry.folder}", err=True)
    if bad:
        raise click.exceptions.Exit(1)


def _ingest(runtime: Runtime, table: str, chosen: list[str]) -> tuple[records.Quarantined, ...]:
    """One table; labels that have not arrived yet hold nothing up."""
    from pipelines.errors import MissingInput

    try:
        validated = runtime.validate(runtime.land(table, chosen))
    except MissingInput as error:
        if table != runtime.spec.label.table:
            raise
        click.echo(f"{table}: not there yet ({error})", err=True)
        return ()
    done = runtime.publish(validated)
    if done is not None:
        click.echo(
            f"ingested {table}: {len(done.published)} partitions published, {len(done.unchanged)} unchanged, "
            f"{len(validated.quarantined)} quarantined ({done.snapshot.id})"
        )
    return validated.quarantined


def _tell(values: Mapping[str, float]) -> None:
    """One line an epoch."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "epoch")
    click.echo(f"epoch {values.get('epoch', 0):.0f}: {losses}", err=True)


def _train(runtime: Runtime, as_of: str) -> None:
    training_set = runtime.build_training_set(as_of)
    click.echo(f"training set {training_set.digest[:12]}: {training_set.rows}", err=True)
    trained = runtime.train(training_set, _tell)
    evaluation = runtime.evaluate(trained)
    report = runtime.gate(trained, evaluation)
    for gate in report.gates:
        click.echo(f"gate {gate.name}: {'passed' if gate.passed else 'REFUSED'} ({gate.reason})")
    if report.passed:
        model = runtime.register(trained, evaluation, report)
        runtime.promote(model, evaluation, report, "trained by `overnight run`", as_of)
        click.echo(f"champion: {model.id}")


@main.command()
@_use_case
@click.option("--to", "to", type=int, help="A version that was champion before; the previous one by default.")
@click.option("--reason", required=True, help="Why; kept in the promotion log.")
def rollback(use_case: str, to: int | None, reason: str) -> None:
    """Make an earlier champion the champion again."""
    entry = Runtime.open(use_case).rollback(to, reason)
    click.echo(f"champion: {use_case}@{entry.version} (was {entry.previous})")


@main.command()
@_use_case
def log(use_case: str) -> None:
    """Print the promotion log."""
    for entry in Runtime.open(use_case).promotions():
        click.echo(
            f"{entry.epoch:>4}  {entry.kind:<8}  {use_case}@{entry.version}  was {entry.previous or '-'}  "
            f"as of {entry.as_of}  {entry.reason}  [{entry.run.dag_id}/{entry.run.run_id}]"
        )


@main.command()
@_use_case
def decisions(use_case: str) -> None:
    """Print every retraining decision with its reasons."""
    for entry in Runtime.open(use_case).decisions():
        answer = "yes" if entry.retrain else "no"
        click.echo(f"{entry.as_of}  {answer:<3}  {use_case}@{entry.champion}  {'; '.join(entry.reasons)}")


# -- single steps ------------------------------------------------------------------------------------------------------


class _Call(BaseModel):
    """The options of one `overnight step`."""

    table: str | None = None
    partitions: list[str] = []
    version: int | None = None
    reason: str = "by hand"
    inputs: list[dict[str, Any]] = []

    def record(self, kind: type[records.Record]) -> Any:
        """The input record of a type: steps name what they need, in any order."""
        for raw in self.inputs:
            try:
                return kind.model_validate(raw)
            except ValidationError:
                continue
        raise click.UsageError(f"this step needs --in FILE with a {kind.__name__} (the output of an earlier step)")

    def one(self) -> str:
        """The single partition of steps that look back from it."""
        if len(self.partitions) != 1:
            raise click.UsageError("this step needs --partition")
        return self.partitions[0]

    def named_table(self) -> str:
        """The table of ingest steps."""
        if self.table is None:
            raise click.UsageError("this step needs --table")
        return self.table


_STEPS: dict[str, Callable[[Runtime, _Call], Any]] = {
    "land": lambda rt, call: rt.land(call.named_table(), call.partitions),
    "validate": lambda rt, call: rt.validate(call.record(records.Landing)),
    "publish": lambda rt, call: rt.publish(call.record(records.Validated)),
    "score": lambda rt, call: rt.score(call.partitions, call.version),
    "audit-scores": lambda rt, call: rt.audit_scores(call.record(records.Scored)),
    "publish-scores": lambda rt, call: rt.publish_scores(call.record(records.AuditedScores)),
    "build-training-set": lambda rt, call: rt.build_training_set(call.one()),
    "train": lambda rt, call: rt.train(call.record(records.TrainingSet), _tell),
    "evaluate": lambda rt, call: rt.evaluate(call.record(records.TrainedModel)),
    "gate": lambda rt, call: rt.gate(call.record(records.TrainedModel), call.record(records.Evaluation)),
    "register": lambda rt, call: rt.register(
        call.record(records.TrainedModel), call.record(records.Evaluation), call.record(records.GateReport)
    ),
    "promote": lambda rt, call: rt.promote(
        call.record(records.ModelRef),
        call.record(records.Evaluation),
        call.record(records.GateReport),
        call.reason,
        call.one(),
    ),
    "observe": lambda rt, call: rt.observe(call.one()),
    "drift-report": lambda rt, call: rt.drift_report(call.record(records.Observations)),
    "decide": lambda rt, call: rt.decide(call.record(records.Observations)),
}


@main.command()
@click.argument("name", type=click.Choice(list(_STEPS)))
@_use_case
@click.option("--table", help="Of land: which table.")
@_partition
@_first
@_last
@click.option("--version", type=int, help="Of score: a model version instead of the champion.")
@click.option("--reason", default="by hand", help="Of promote: why.")
@click.option(
    "--in", "inputs", multiple=True, type=click.File("r"), help="JSON that an earlier step printed; - is stdin."
)
def step(
    name: str,
    use_case: str,
    table: str | None,
    partition: str | None,
    first: str | None,
    last: str | None,
    version: int | None,
    reason: str,
    inputs: tuple[Any, ...],
) -> None:
    """Run one step and print its result as JSON.

    overnight step land flights --table rows --partition 2013-09-01 > landing.json

    overnight step validate flights --in landing.json > validated.json
    """
    runtime = Runtime.open(use_case)
    chosen = _chosen(runtime, partition, first, last) if partition or first or last else []
    try:
        given = [json.load(file) for file in inputs]
    except ValueError as error:
        raise click.UsageError(f"--in is not JSON: {error}") from None
    call = _Call(table=table, partitions=chosen, version=version, reason=reason, inputs=given)
    if name in ("land", "score") and not chosen:
        raise click.UsageError("this step needs --partition, or --from and --to")
    if table is not None and table not in runtime.spec.tables:
        raise click.UsageError(f"no table {table!r}; there are: {', '.join(runtime.spec.tables)}")
    click.echo(json.dumps(_plain(_STEPS[name](runtime, call)), indent=2))


def _plain(result: Any) -> Any:
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    if isinstance(result, tuple):
        return [_plain(item) for item in result]
    return None if result is None else str(result)

"""The chain: check, data, run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from pipelines import records
from pipelines.alerts import subject
from pipelines.cli.shared import (
    chosen_partitions,
    first_option,
    last_option,
    partition_option,
    progress,
    tell_epoch,
    tell_line,
    tell_trial,
    use_case_argument,
)
from pipelines.errors import SpecError
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import load_spec


@click.command()
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


@click.command()
@use_case_argument
@first_option
@last_option
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


@click.command()
@use_case_argument
@partition_option
@first_option
@last_option
@click.option("--train/--no-train", default=None, help="Train afterwards; by default when there is no champion yet.")
@click.option(
    "--search/--no-search", default=None, help="Search settings before training; by default as the spec says."
)
@click.option("--monitor/--no-monitor", default=False, help="Look back on the last partition's window and decide.")
def run(
    use_case: str,
    partition: str | None,
    first: str | None,
    last: str | None,
    train: bool | None,
    search: bool | None,
    monitor: bool,
) -> None:
    """Run the chain: ingest, train when there is no champion yet, score, and monitor when asked."""
    runtime = Runtime.open(use_case)
    chosen = chosen_partitions(runtime, partition, first, last)
    bad = [entry for table in progress(runtime.tables(), "ingest") for entry in _ingest(runtime, table, chosen)]
    if train or (train is None and runtime.champion() is None):
        _train(runtime, chosen[-1], runtime.spec.training.search.enabled if search is None else search)
    held = runtime.published(chosen)
    if runtime.champion() is not None and held:
        predictions = runtime.publish_scores(runtime.audit_scores(runtime.score(held)))
        for done in predictions:
            click.echo(
                f"scored {done.partition}: {done.rows_scored} of {done.rows_in} rows by "
                f"{use_case}@{done.model_version} ({done.state})"
            )
        for handed in runtime.deliver(predictions) if runtime.spec.delivery else ():
            click.echo(f"delivered {handed.partition} to {handed.delivery}: {handed.rows} rows ({handed.state})")
        if (state := runtime.alias_state()).moved:
            click.echo(f"aliases: {state.told}; see `overnight aliases {use_case}`", err=True)
    if monitor:
        seen = runtime.observe(chosen[-1])
        decision = runtime.decide(seen)
        for told in runtime.alert(seen, decision):
            click.echo(f"alert: {subject(told)}: {told.what}", err=True)
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


def _train(runtime: Runtime, as_of: str, search: bool) -> None:
    training_set = runtime.build_training_set(as_of)
    click.echo(f"training set {training_set.digest[:12]}: {training_set.rows}", err=True)
    if search:
        training_set = runtime.search(training_set, tell_trial)
        assert training_set.searched is not None
        click.echo(f"search {training_set.searched.study}: {training_set.searched.parameters}")
    trained = runtime.train(training_set, tell_epoch, tell_line)
    evaluation = runtime.evaluate(trained)
    report = runtime.gate(trained, evaluation)
    for gate in report.gates:
        click.echo(f"gate {gate.name}: {'passed' if gate.passed else 'REFUSED'} ({gate.reason})")
    folder = runtime.review(trained, evaluation, report)
    click.echo(f"model card: {folder / 'model_card.html'}")
    if report.passed:
        model = runtime.register(trained, evaluation, report)
        runtime.review(trained, evaluation, report)  # the version's description
        runtime.promote(model, evaluation, report, "trained by `overnight run`", as_of)
        click.echo(f"champion: {model.id}")


COMMANDS: tuple[click.Command, ...] = (check, data, run)

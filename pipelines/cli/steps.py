"""`overnight step`: one step of the chain by itself, records in and records out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
from pydantic import BaseModel, ValidationError

from pipelines import records
from pipelines.cli.shared import (
    chosen_partitions,
    first_option,
    last_option,
    partition_option,
    print_json,
    tell_epoch,
    tell_line,
    tell_trial,
    use_case_argument,
)
from pipelines.runtime import Runtime


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
    "search": lambda rt, call: rt.search(call.record(records.TrainingSet), tell_trial),
    "train": lambda rt, call: rt.train(call.record(records.TrainingSet), tell_epoch, tell_line),
    "evaluate": lambda rt, call: rt.evaluate(call.record(records.TrainedModel)),
    "gate": lambda rt, call: rt.gate(call.record(records.TrainedModel), call.record(records.Evaluation)),
    "review": lambda rt, call: rt.review(
        call.record(records.TrainedModel), call.record(records.Evaluation), call.record(records.GateReport)
    ),
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


@click.command()
@click.argument("name", type=click.Choice(list(_STEPS)))
@use_case_argument
@click.option("--table", help="Of land: which table.")
@partition_option
@first_option
@last_option
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
    chosen = chosen_partitions(runtime, partition, first, last) if partition or first or last else []
    try:
        given = [json.load(file) for file in inputs]
    except ValueError as error:
        raise click.UsageError(f"--in is not JSON: {error}") from None
    call = _Call(table=table, partitions=chosen, version=version, reason=reason, inputs=given)
    if name in ("land", "score") and not chosen:
        raise click.UsageError("this step needs --partition, or --from and --to")
    if table is not None and table not in runtime.spec.tables:
        raise click.UsageError(f"no table {table!r}; there are: {', '.join(runtime.spec.tables)}")
    print_json(_STEPS[name](runtime, call))


COMMANDS: tuple[click.Command, ...] = (step,)

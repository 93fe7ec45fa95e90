"""The rollback DAG: an earlier champion becomes the champion again, by hand."""

from __future__ import annotations

from airflow.sdk import DAG, Param, TaskGroup, get_current_context

from pipelines.records import Promotion
from pipelines.spec import UseCase
from usecase_dags.context import open_runtime, param
from usecase_dags.shared import champion_asset, dag_options, reason_param, say_entry
from usecase_dags.steps import MODEL, made, step, training_url

_DOC = """\
Makes an earlier champion the champion again, its drift reference and decision threshold with it. By hand, with a form.

**What it does.** `rollback` verifies the earlier version's artifact and appends one entry to the promotion log, which
is never rewritten; the aliases in MLflow follow. The drift reference and the decision threshold are parts of that
artifact, so that they come back in the same moment: the next scoring gives what this model gave before, and the next
monitoring measures from its reference. Predictions that are published stay; to score partitions again with the restored
champion, run `{name}_score` with its version. The run that trained the version which is left here does not promote it
again. The task's log has the new entry; `overnight log {name}` shows them all.

**When it fails.** The message names the versions that may be rolled back to: only one that was champion before. A
message that bytes differ means that the artifact of that version is no longer what was registered: roll back to another
one. A conflict with a promotion at the same moment is retried. Nothing has changed where this task is red.
"""


def build(spec: UseCase) -> DAG:
    """`<use case>_rollback`."""
    champion = champion_asset(spec)

    @step(outlets=[champion], links=(MODEL,))
    def rollback() -> Promotion:
        runtime = open_runtime(spec)
        entry = runtime.rollback(param("to"), param("reason"))
        say_entry(spec, entry)
        made(MODEL, training_url(runtime, runtime.registry.get(entry.version).run_id))
        get_current_context()["outlet_events"][champion].extra = {
            "model_version": entry.version,
            "previous": entry.previous,
            "epoch": entry.epoch,
            "partition": entry.as_of,
        }
        return entry

    with (
        DAG(
            **dag_options(spec, "rollback", _DOC.format(name=spec.name)),
            schedule=None,
            params={
                "to": Param(
                    None,
                    type=["null", "integer"],
                    minimum=1,
                    title="Model version",
                    description="The version to go back to, one that was champion before. Empty: the champion before "
                    "the present one.",
                ),
                "reason": reason_param(None, "Why; kept in the promotion log. Required."),
            },
            max_active_runs=1,
        ) as dag,
        TaskGroup(group_id="champion", tooltip="the promotion log"),
    ):
        rollback()
    return dag

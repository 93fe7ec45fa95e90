"""What the DAGs of every use case have in common: defaults, asset names, schedules and form parameters."""

from __future__ import annotations

import logging
import re
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AsyncCallback, CronPartitionTimetable, DeadlineAlert, Param

from pipelines import partitions
from pipelines.errors import SpecError, explain
from usecase_dags.context import PROJECT

if TYPE_CHECKING:
    from pipelines.records import Promotion
    from pipelines.spec import UseCase

#: Crons of which each tick stands for one partition, by granularity.
_CRONS = {
    "day": (re.compile(r"\d{1,2} \d{1,2} \* \* \*"), "one time a day, such as '0 2 * * *'"),
    "hour": (re.compile(r"\d{1,2} \* \* \* \*"), "one time an hour, such as '10 * * * *'"),
}


def dag_options(spec: UseCase, kind: str, doc: str) -> dict[str, Any]:
    """Arguments of every DAG."""
    return {
        "dag_id": f"{spec.name}_{kind}",
        "description": doc.strip().splitlines()[0],
        "doc_md": doc,
        "tags": sorted({*spec.tags, spec.name, kind}),
        "catchup": False,
        "default_args": {
            "owner": spec.owner,
            # Only what may succeed later is tried again: a step's terminal error fails its task at once.
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=5),
        },
    }


def rows_asset(spec: UseCase) -> Asset:
    """Everything that scoring a partition needs is published."""
    return Asset(name=f"{spec.name}_rows", uri=f"overnight://{spec.name}/rows", group=spec.name)


def predictions_asset(spec: UseCase) -> Asset:
    """A partition's predictions are published."""
    return Asset(name=f"{spec.name}_predictions", uri=f"overnight://{spec.name}/predictions", group=spec.name)


def champion_asset(spec: UseCase) -> Asset:
    """The champion changed."""
    return Asset(name=f"{spec.name}_champion", uri=f"overnight://{spec.name}/champion", group=spec.name)


def last_tick(spec: UseCase) -> datetime | None:
    """The last moment at which a run may be scheduled: the tick for the last partition lies in the next one."""
    if spec.until is None:
        return None
    after = partitions.shift(spec.until, 1, spec.granularity)
    return partitions.end(after, spec.granularity) - timedelta(seconds=1)


def timetable(spec: UseCase, cron: str) -> CronPartitionTimetable:
    """A run at each tick of the cron, for the partition that has just ended: the tick before gives its key.

    Raises:
        SpecError: the cron's ticks are not one a partition.
    """
    shape, allowed = _CRONS[spec.granularity]
    if not shape.fullmatch(cron):
        raise SpecError(explain(f"{spec.name}: schedule", f"{cron!r} is not one tick a partition", allowed=allowed))
    return CronPartitionTimetable(
        cron, timezone="UTC", run_offset=-1, key_format=partitions.key_format(spec.granularity)
    )


def deadline(spec: UseCase) -> dict[str, Any]:
    """The DAG argument that has Airflow look whether a night's scores are published in time; see the plugin.

    Nothing, when the spec gives no deadline.
    """
    minutes = spec.scoring.deadline_minutes
    if minutes is None:
        return {}
    plugins = str(PROJECT / "plugins")
    if plugins not in sys.path:  # Airflow has put it there, a plain Python has not
        sys.path.append(plugins)
    from overnight_deadlines import NightDeadline, tell_if_late

    reference = NightDeadline(offset=tick_offset(spec).total_seconds(), minutes=minutes, granularity=spec.granularity)
    return {
        "deadline": DeadlineAlert(
            name=f"scores of a night, {minutes} min after its tick",
            reference=reference,
            interval=timedelta(minutes=minutes),
            callback=AsyncCallback(tell_if_late, {"use_case": spec.name}),
        )
    }


_LATE = """

**When it is late.** Scores that are not published {minutes} minutes after the night's tick are told once, in
`alerts/{name}.jsonl` and in the triggerer's log, with what is missing and what to do; publishing them, however late,
writes that it is over. Ranges and backfills have no deadline.
"""


def late_doc(spec: UseCase) -> str:
    """What a DAG's text says of the deadline; nothing without one."""
    minutes = spec.scoring.deadline_minutes
    return _LATE.format(minutes=minutes, name=spec.name).rstrip() if minutes is not None else ""


def tick_offset(spec: UseCase) -> timedelta:
    """From a partition's end to the tick of `schedule` that takes it: `0 2 * * *` gives two hours."""
    minute, hour, *_ = spec.schedule.split()
    return timedelta(hours=int(hour) if spec.granularity == "day" else 0, minutes=int(minute))


def partition_param(spec: UseCase, title: str, description: str) -> Param:
    """A field for one partition key, or nothing."""
    shapes = {"day": {"format": "date"}, "hour": {"pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}$"}}
    return Param(None, type=["null", "string"], title=title, description=description, **shapes[spec.granularity])


def partitions_params(spec: UseCase, verb: str) -> dict[str, Param]:
    """Fields for a partition or a range."""
    example = "2013-09-01" if spec.granularity == "day" else "2013-09-01T05"
    return {
        "partition": partition_param(spec, "Partition", f"The one partition to {verb}, such as {example} (UTC)."),
        "from": partition_param(spec, "From", f"Or a range to {verb}: its first partition."),
        "to": partition_param(spec, "To", "The range's last partition, included."),
    }


def reason_param(default: str | None, description: str) -> Param:
    """A field for a sentence that is kept."""
    if default is None:
        return Param(type="string", minLength=3, maxLength=500, title="Reason", description=description)
    return Param(default, type="string", minLength=3, maxLength=500, title="Reason", description=description)


def say_entry(spec: UseCase, entry: Promotion) -> None:
    """One line in the task's log about what became of the champion."""
    before = f"instead of {entry.previous}" if entry.previous is not None else "the first"
    who = f", approved by {entry.approval.by} at {entry.approval.at}" if entry.approval else ""
    logging.getLogger("task").info(
        "epoch %d: the champion of %s is version %d, %s (%s%s)",
        *(entry.epoch, spec.name, entry.version, before, entry.reason, who),
    )

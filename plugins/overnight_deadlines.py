"""The deadline of a night: until when its scores must be published, and who looks when that moment has passed.

It lies here because the scheduler and the triggerer import plugins, and no DAG folder. The scheduler works out when a
run's deadline is (`NightDeadline`) as it makes the run. At that moment the triggerer looks (`tell_if_late`): it needs
no worker, of which there may be none left when scoring hangs.

Airflow forgets a run's deadline when the run succeeds in time, and only then. So both the scheduled ingest run, which
is there even when no input is, and the scoring run, which exists only once the night was announced, have one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.definitions.deadline import BaseDeadlineReference

from pipelines import partitions
from pipelines.errors import SpecError

if TYPE_CHECKING:
    from pipelines.partitions import Granularity
    from pipelines.runtime import Runtime

PROJECT = Path(__file__).resolve().parents[1]
#: Looks at the tables before it is told that they cannot be read, and the seconds between two.
_LOOKS, _PAUSE = 3, 5.0

_log = logging.getLogger("overnight.alerts")


@dataclass(eq=False)
class NightDeadline(BaseDeadlineReference):
    """The tick of `schedule` that a run's partition belongs to. Airflow adds the deadline's minutes."""

    offset: float = 0.0
    """Seconds from the partition's end to its tick."""
    minutes: int = 0
    """From the tick to the deadline."""
    granularity: Granularity = "day"

    required_kwargs: ClassVar[set[str]] = {"dag_id", "run_id"}

    def serialize_reference(self) -> dict[str, Any]:
        """What the scheduler makes it of again."""
        return {
            **super().serialize_reference(),
            "offset": self.offset,
            "minutes": self.minutes,
            "granularity": self.granularity,
        }

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> NightDeadline:
        """The other way round."""
        return cls(reference_data["offset"], reference_data["minutes"], reference_data["granularity"])

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun  # noqa: TID251 (in the scheduler, as Airflow's own references do)
        from sqlalchemy import select

        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return self.tick(run.run_type, run.partition_key, run.conf or {}, datetime.now(UTC))

    def tick(self, run_type: str, key: str | None, conf: dict[str, Any], now: datetime) -> datetime | None:
        """When a run's night began; None: it has no deadline, as it makes up for the past.

        That are backfills, ranges, and what a person or a late announcement starts after the deadline: whether the
        night was late has been told by then, if it was to be told.
        """
        partition = key or conf.get("partition")
        if run_type == "backfill" or conf.get("from") or not partition:
            return None
        try:
            tick = partitions.end(partition, self.granularity) + timedelta(seconds=self.offset)
        except SpecError:  # a malformed key: the run's first task says so
            return None
        if run_type != "scheduled" and tick + timedelta(minutes=self.minutes) <= now:
            return None
        return tick


async def tell_if_late(use_case: str, context: dict[str, Any]) -> str:
    """What Airflow calls, in the triggerer, when a deadline has passed and its run had not succeeded.

    The run says little: another one may have published the night, or only Airflow's notice is late. So the tables are
    asked. What is missing is told once: in the use case's book of alerts, in the triggerer's log, and over the spec's
    channels.
    """
    run, deadline = context["dag_run"], context["deadline"]["deadline_time"]
    partition = run["partition_key"] or (run["conf"] or {})["partition"]
    since = deadline if isinstance(deadline, datetime) else datetime.fromisoformat(deadline)
    runtime = await asyncio.to_thread(_open, use_case, run)
    told = ""
    for look in range(_LOOKS):
        try:
            said = await asyncio.to_thread(_look, runtime, partition, since)
            break
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            _log.warning("%s %s: whether its scores are published could not be seen: %s", use_case, partition, told)
        if look + 1 < _LOOKS:
            await asyncio.sleep(_PAUSE)
    else:
        said = await asyncio.to_thread(_tell, runtime, partition, since, f"whether they are there: {told}"[:500])
    await _send(runtime)
    return said


async def _send(runtime: Runtime) -> None:
    """Tells the spec's channels; what they do not take is sent with whatever is told next."""
    import overnight_channels

    try:
        await overnight_channels.tell_from_triggerer(runtime.spec, runtime.alerts)
    except Exception as error:
        _log.warning("%s: %s", runtime.spec.name, error)


def _open(use_case: str, run: dict[str, Any]) -> Runtime:
    from pipelines.records import RunInfo
    from pipelines.runtime import Runtime
    from pipelines.settings import Settings

    info = RunInfo(run_id=run["dag_run_id"], dag_id=run["dag_id"])
    return Runtime.open(use_case, run=info, settings=Settings(project=PROJECT))


def _look(runtime: Runtime, partition: str, since: datetime) -> str:
    found = runtime.missing(partition)
    if found is None:
        return f"{partition} is published"
    return _tell(runtime, partition, since, found.what, found.remedy)


def _tell(runtime: Runtime, partition: str, since: datetime, what: str, remedy: str = "look at the store") -> str:
    from pipelines.records import Alert

    alert = Alert(
        kind="late",
        state="open",
        use_case=runtime.spec.name,
        partition=partition,
        since=since,
        at=datetime.now(UTC),
        what=what,
        remedy=remedy,
        run=f"{runtime.run.dag_id}/{runtime.run.run_id}",
    )
    if not runtime.alerts.tell(alert):
        return f"{partition}: told before"
    _log.warning(
        "%s: the scores of %s are late, since %s: %s. Remedy: %s", alert.use_case, partition, since, what, remedy
    )
    return f"{partition}: told"


class OvernightDeadlines(AirflowPlugin):
    """Registers the reference: the scheduler makes no other of a serialized DAG."""

    name = "overnight_deadlines"
    deadline_references: ClassVar[list[Any]] = [NightDeadline]

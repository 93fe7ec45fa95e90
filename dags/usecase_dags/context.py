"""What a task knows about its run: which partitions it is for, who it is, and the chain it works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

from pipelines import partitions
from pipelines.errors import SpecError, explain
from pipelines.records import RunInfo

if TYPE_CHECKING:
    from pipelines.runtime import Runtime
    from pipelines.spec import UseCase

#: The folder that holds dags/ and include/.
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The partitions that a run is for."""

    partitions: list[str]
    ranged: bool
    """Given as a range: history, or nights caught up with. Such a run starts no other run."""

    @property
    def label(self) -> str:
        """`2013-09-01`, or `2013-01-01..2013-08-31`."""
        first, last = self.partitions[0], self.partitions[-1]
        return f"{first}..{last}" if self.ranged else first


def asked(spec: UseCase, key: str | None, params: dict[str, Any]) -> Asked:
    """Reads the partitions from the run's partition key, else from the form.

    Raises:
        SpecError: nothing was named, half a range, both a partition and a range, or a malformed key.
    """
    single, first, last = (params.get(name) or None for name in ("partition", "from", "to"))
    where = f"{spec.name}: partitions of this run"
    if key or single:
        if first or last or (key and single and key != single):
            raise SpecError(
                explain(where, "more than one way of naming them was used", allowed="one partition, or from and to")
            )
        partition = key or single
        partitions.start(partition, spec.granularity)
        return Asked(partitions=[partition], ranged=False)
    if first and last:
        return Asked(partitions=partitions.span(first, last, spec.granularity), ranged=True)
    raise SpecError(
        explain(
            where,
            "only half a range was given" if first or last else "none was named",
            allowed="a partition key, the form's partition, or its from and to",
            remedy="trigger the DAG again and fill in the form",
        )
    )


def asked_of(spec: UseCase) -> Asked:
    """`asked` of the running task."""
    context = get_current_context()
    return asked(spec, context["dag_run"].partition_key, dict(context["params"]))


def param(name: str) -> Any:
    """A form parameter of the running task's run."""
    return get_current_context()["params"].get(name)


def open_runtime(spec: UseCase) -> Runtime:
    """The chain of the use case, acting for the running task's run."""
    from pipelines.runtime import Runtime
    from pipelines.settings import Settings

    settings = Settings(project=PROJECT)
    context = get_current_context()
    run = context["dag_run"]
    info = RunInfo(
        run_id=run.run_id,
        dag_id=run.dag_id,
        code_version=settings.code_version or "unknown",
        # A range makes up for nights that have passed, as a backfill of Airflow's does.
        backfill=run.run_type == "backfill" or bool(context["params"].get("from")),
        at=run.run_after,
    )
    return Runtime(spec, settings, info)  # the spec that was parsed: reading it again costs as much as the parse

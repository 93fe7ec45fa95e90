"""`@step`: one step of the chain as an Airflow task.

A step returns a record. The task returns {"record": <the record as JSON>, "seconds": {"import", "work"}, "imported":
<modules that were not there before the task>}, links what it made, and fails at once, without retries, when a retry
cannot help. A step that a mapped task follows returns a `Mapped`: Airflow maps over nothing but what a task returns, so
the task returns that list, and the rest is its XCom `step`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink, get_current_context
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException
from pydantic import BaseModel

from pipelines.errors import OvernightError, TerminalError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.types import TaskInstanceKey

    from pipelines.records import SnapshotRef
    from pipelines.runtime import Runtime


@attrs.define(frozen=True)
class MadeLink(BaseOperatorLink):
    """A button on the task that opens what it made. The task stores the URL when it ends, failed or not."""

    name: str  # type: ignore[misc]
    key: str

    @property
    def xcom_key(self) -> str:
        """Where the URL is kept."""
        return f"link_{self.key}"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 (Airflow's signature)
        """The URL that the step gave with `made`; empty when it made nothing of the kind."""
        return getattr(operator, "made", {}).get(self.key, "")


SNAPSHOT = MadeLink("Snapshot", "snapshot")
VALIDATION = MadeLink("Validation report", "validation")
DRIFT = MadeLink("Drift report", "drift")
MODEL = MadeLink("MLflow run", "model")
COMPARISON = MadeLink("Comparison", "comparison")
CARD = MadeLink("Model card", "card")
JOB = MadeLink("Training job", "job")


def made(link: MadeLink, url: str | None) -> None:
    """Puts a URL behind one of the running task's links; None changes nothing."""
    if url:
        get_current_context()["task"].made[link.key] = url


def _base() -> str:
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + "/overnight"


def report_url(path: str | None, root: Any) -> str | None:
    """The URL of an HTML report below `root`, as the plugin overnight_reports serves it."""
    if path is None:
        return None
    relative = path.removeprefix(str(root)).lstrip("/")
    return f"{_base()}/reports/{quote(relative)}"


def snapshot_url(ref: SnapshotRef) -> str:
    """The URL of the page that shows a snapshot."""
    return f"{_base()}/snapshots/{quote(ref.use_case)}/{quote(ref.table)}/{ref.version}"


def training_url(runtime: Runtime, run_id: str) -> str | None:
    """Where a person sees a training run. A link is never worth a retry: no answer means no link."""
    try:
        return runtime.registry.url(run_id)
    except OvernightError:
        return None


def review_url(runtime: Runtime, run_id: str, page: str) -> str | None:
    """The URL of a page that a reviewer reads about a training (`comparison`, `model_card`); None: it is not there."""
    reports = runtime.settings.reports
    path = reports / runtime.spec.name / "models" / run_id / f"{page}.html"
    return report_url(str(path), reports) if path.is_file() else None


def warmed(step: str) -> tuple[int, float]:
    """Imports what a step needs: how many modules that added to this process, and the seconds it took."""
    from pipelines import warm

    begun = time.perf_counter()
    imported = warm.load(step)
    return imported, round(time.perf_counter() - begun, 3)


def timed(step: str, work: Callable[[], Any]) -> dict[str, Any]:
    """Imports what a step needs, then does its work; both are timed. See the module for what comes back.

    Raises:
        AirflowFailException: the work said that a retry cannot help.
    """
    imported, seconds = warmed(step)
    begun = time.perf_counter()
    try:
        value = work()
    except TerminalError as error:
        raise AirflowFailException(str(error)) from error
    worked = round(time.perf_counter() - begun, 3)
    return {"record": _as_json(value), "seconds": {"import": seconds, "work": worked}, "imported": imported}


#: The XCom that holds what a task would return, did it not return what is mapped over.
STEP = "step"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapped:
    """What a step returns that a mapped task follows."""

    record: Any
    over: Sequence[dict[str, Any]]
    """One mapped task each; none, and Airflow skips them without starting a process."""


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    return value


class StepOperator(DecoratedOperator):
    """Runs one step; see the module."""

    custom_operator_name = "@step"
    ui_color: ClassVar[str] = "#dfe9f7"

    def __init__(self, *, links: Collection[MadeLink] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operator_extra_links = tuple(links)
        self.made: dict[str, str] = {}

    def execute(self, context: Context) -> dict[str, Any] | list[dict[str, Any]]:
        """Imports, then works; both are timed.

        Raises:
            AirflowFailException: the step said that a retry cannot help.
        """
        over: list[Sequence[dict[str, Any]]] = []

        def work() -> Any:
            value = self.python_callable(*self.op_args, **self.op_kwargs)
            if not isinstance(value, Mapped):
                return value
            over.append(value.over)
            return value.record

        done = timed(self.python_callable.__name__, work)
        if not over:
            return done
        context["ti"].xcom_push(key=STEP, value=done)
        return list(over[0])


def on_queue(name: str | None) -> dict[str, str]:
    """Options of a task that goes to the queue of this name, if there is one."""
    return {} if name is None else {"queue": name}


def step(function: Callable[..., Any] | None = None, **options: Any) -> TaskDecorator:
    """Makes a task of a function whose name is a step's; `links` are the buttons that it may fill with `made`."""
    return task_decorator_factory(
        python_callable=function, multiple_outputs=False, decorated_operator_class=StepOperator, **options
    )

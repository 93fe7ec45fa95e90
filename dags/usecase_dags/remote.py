"""The task `train` for `trainer: sagemaker`: it starts a job, waits for it without a worker slot, and collects it.

One task, because its retry must begin with the submit: that finds the job again, or makes the next attempt after one
that failed. While it waits it is deferred to the triggerer (plugins/overnight_sagemaker.py: the triggerer knows no DAG
folder). Every few minutes it wakes on a worker for a moment to pass the job's log on to its own log and to MLflow.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from pipelines.errors import TerminalError
from usecase_dags.context import open_runtime
from usecase_dags.steps import JOB, MODEL, training_url, warmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from pipelines.records import RemoteTraining, TrainedModel
    from pipelines.runtime import Runtime
    from pipelines.spec import UseCase

    #: A training that is here, and the seconds since its job was submitted.
    Collected = tuple[TrainedModel, float]

#: A trigger that has not answered this long after it should have: the triggerer is not running.
_SILENCE = timedelta(minutes=30)


def train_remotely(spec: UseCase, built: XComArg) -> XComArg:
    """The task, given the output of `build_training_set`."""
    return TrainRemotely(spec=spec, built=built, task_id="train").output


def remote_runtime(spec: UseCase) -> Runtime:
    """The chain of the use case; its AWS credentials are the connection's, where the settings name one."""
    from overnight_sagemaker import aws_session  # plugins/: where the triggerer finds it

    runtime = open_runtime(spec)
    session = aws_session(runtime.settings)
    return runtime if session is None else type(runtime)(spec, runtime.settings, runtime.run, aws=session)


class TrainRemotely(BaseOperator):
    """Submit, wait, collect; see the module."""

    template_fields = ("built",)
    ui_color: ClassVar[str] = "#dfe9f7"

    def __init__(self, *, spec: UseCase, built: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.built = built
        self.operator_extra_links = (MODEL, JOB)
        self.made: dict[str, str] = {}

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 (Airflow's signature)
        """Starts the job, or finds it again, and waits for it.

        Raises:
            AirflowFailException: a retry cannot help.
        """
        return self._guarded(lambda runtime: self._begin(runtime, time.time()))

    def resume(self, context: Context, event: dict[str, Any], waiting: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Called when the trigger has fired: the job is over, or its log is to be passed on.

        Args:
            event: what the trigger saw: {"job": its name, "over": whether it has ended}. Not relied on.
            waiting: {"remote": the job's record, "begun": seconds since the epoch}.

        Raises:
            AirflowFailException: the job failed in a way that a retry cannot help.
        """
        return self._guarded(lambda runtime: self._go_on(runtime, waiting))

    def _begin(self, runtime: Runtime, begun: float) -> Collected:
        from pipelines.records import TrainingSet

        remote = runtime.submit_training(TrainingSet.model_validate(self.built["record"]))
        if remote.job is None:
            return runtime.collect_training(remote, 0.0), 0.0
        self.log.info("training job %s, attempt %d", remote.job.name, remote.job.attempt)
        return self._wait(runtime, remote, begun)

    def _go_on(self, runtime: Runtime, waiting: dict[str, Any]) -> Collected:
        from pipelines.records import RemoteTraining
        from pipelines.steps.remote import patience, still_running

        remote, begun = RemoteTraining.model_validate(waiting["remote"]), float(waiting["begun"])
        assert remote.job is not None
        status = runtime.remote_trainer.status(remote.job)
        runtime.follow_training(remote, say=lambda line: self.log.info("job: %s", line))
        self.log.info("%s: %s (%s)", remote.job.name, status.state, status.secondary)
        if status.over:
            if remote.ending:
                return self._begin(runtime, begun)
            seconds = time.time() - begun
            return runtime.collect_training(remote, seconds), seconds
        if time.time() - begun > patience(self.spec).total_seconds():
            raise still_running(self.spec, remote)
        return self._wait(runtime, remote, begun)

    def _wait(self, runtime: Runtime, remote: RemoteTraining, begun: float) -> Collected:
        """Never returns: Airflow goes on in `resume`."""
        from overnight_sagemaker import JobTrigger  # plugins/: where the triggerer finds it

        assert remote.job is not None
        self._link(runtime, remote)
        settings = runtime.settings
        wake = datetime.now(UTC) + timedelta(seconds=settings.sagemaker_wake)
        self.defer(
            trigger=JobTrigger(
                job=remote.job.model_dump(mode="json"), wake=wake.timestamp(), poll=settings.sagemaker_poll
            ),
            method_name="resume",
            kwargs={"waiting": {"remote": remote.model_dump(mode="json"), "begun": begun}},
            timeout=timedelta(seconds=settings.sagemaker_wake) + _SILENCE,
        )
        raise AssertionError("defer raises")

    def _link(self, runtime: Runtime, remote: RemoteTraining) -> None:
        assert remote.job is not None
        for link, url in ((MODEL, training_url(runtime, remote.opened.run_id)), (JOB, remote.job.url)):
            if url:
                self.made[link.key] = url

    def _guarded(self, work: Callable[[Runtime], Collected]) -> dict[str, Any]:
        """Imports, works, and returns what a step returns. The seconds of work are those since the submit, and those of
        the imports are this process's: each time that the task wakes is a process of its own.
        """
        imported, seconds = warmed("train_remotely")
        try:
            runtime = remote_runtime(self.spec)
            trained, worked = work(runtime)
        except TerminalError as error:
            raise AirflowFailException(str(error)) from error
        if url := training_url(runtime, trained.run_id):
            self.made[MODEL.key] = url
        record = trained.model_dump(mode="json")
        return {"record": record, "seconds": {"import": seconds, "work": round(worked, 3)}, "imported": imported}

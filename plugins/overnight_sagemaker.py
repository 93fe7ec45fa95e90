"""The trigger that waits for a training job. It lies here because the triggerer imports plugins, and no DAG folder.

It fires when the job is over, or at a given moment at the latest, so that the task can pass the job's log on. That
moment is a time and not a number of looks: a trigger that another triggerer takes over keeps it. What the provider
offers gives up after a number of looks that starts anew with each triggerer, and needs aiobotocore beside boto3.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from pipelines.settings import Settings

#: Looks that may fail one after the other before the task itself is woken to look.
_FAILURES = 5


class JobTrigger(BaseTrigger):
    """Waits for one training job."""

    def __init__(self, job: dict[str, Any], wake: float, poll: float) -> None:
        """Sets what is waited for.

        Args:
            job: a JobRef as JSON.
            wake: seconds since the epoch at which it fires at the latest.
            poll: seconds between two looks.
        """
        super().__init__()
        self.job = job
        self.wake = wake
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return "overnight_sagemaker.JobTrigger", {"job": self.job, "wake": self.wake, "poll": self.poll}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks now and then, in a thread, as boto3 blocks. A look that fails is made again, at last by the task."""
        trainer, failures, over = None, 0, False
        while not over and failures < _FAILURES:
            try:
                trainer = trainer or await asyncio.to_thread(_trainer)
                over = await asyncio.to_thread(_over, trainer, self.job)
                failures = 0
            except Exception as error:
                failures += 1
                self.log.warning("%s: %s", self.job["name"], error)
            if over or time.time() + self.poll > self.wake:
                break
            await asyncio.sleep(self.poll)
        yield TriggerEvent({"job": self.job["name"], "over": over})

    async def on_kill(self) -> None:
        """A person marked the waiting task, or cleared it: the job is stopped, and writes a checkpoint first.

        Airflow calls this for nothing else: not when a triggerer ends, and not when the trigger has fired.
        """
        await asyncio.to_thread(_stop, self.job)


def aws_session(settings: Settings) -> Any:
    """A boto3 session with the credentials of the connection that the settings name; None where they name none."""
    if settings.sagemaker_credentials is None:
        return None
    from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

    hook = SageMakerHook(aws_conn_id=settings.sagemaker_credentials, region_name=settings.sagemaker_region)
    return hook.get_session()


def _trainer() -> Any:
    """The adapter, with the connection's credentials where the settings name one."""
    from pipelines.backends.sagemaker_trainer import SageMakerTrainer
    from pipelines.settings import Settings

    settings = Settings()
    return SageMakerTrainer(settings, aws_session(settings))


def _over(trainer: Any, job: dict[str, Any]) -> bool:
    from pipelines.records import JobRef

    return bool(trainer.status(JobRef.model_validate(job)).over)


def _stop(job: dict[str, Any]) -> None:
    from pipelines.records import JobRef

    _trainer().stop(JobRef.model_validate(job))

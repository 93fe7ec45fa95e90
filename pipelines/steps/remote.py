"""Train elsewhere: a job is submitted, followed and collected; what comes before and after is that of a local training.

    open_training -> submit -> follow ... follow -> collect -> (sealed and logged as any other)

Every part can be repeated by another process: a submit finds its job again, a log is read on from a position, and an
artifact that was sealed is not fetched a second time.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pipelines.errors import UnavailableError, explain
from pipelines.ports import DriftDetector, ModelRegistry, OnProgress, RemoteTrainer
from pipelines.records import OpenTraining, RemoteTraining, TrainedModel
from pipelines.spec import UseCase
from pipelines.steps.search import chosen
from pipelines.steps.training import is_sealed, log_training, prepare_folder, seal_training

JOB = "overnight.job"
JOB_URL = "overnight.job_url"
#: After the time that the service itself gives a job: starting, stopping and uploading.
_MARGIN = timedelta(minutes=30)
#: Longest line of a log that is looked at for figures.
_LINE = 4096


def patience(spec: UseCase) -> timedelta:
    """How long a job may take, from asking for it to its end, before something is wrong with waiting itself."""
    return timedelta(minutes=spec.training.sagemaker.wait_minutes) + _MARGIN


def submit(spec: UseCase, trainer: RemoteTrainer, registry: ModelRegistry, opened: OpenTraining) -> RemoteTraining:
    """Starts the job of an open training or finds it again; without one when its artifact is sealed here already.

    Raises:
        SpecError, ServiceRefused, TrainingError: a person must change something first.
        UnavailableError: the service does not answer as it should.
    """
    if is_sealed(Path(opened.folder)):
        return RemoteTraining(opened=opened, job=None)
    job = trainer.submit(chosen(spec, opened.training_set), Path(opened.training_set.folder), opened.key)
    registry.annotate(opened.run_id, {JOB: job.name, **({JOB_URL: job.url} if job.url else {})})
    return RemoteTraining(opened=opened, job=job, ending=trainer.status(job).state == "stopping")


def follow(
    trainer: RemoteTrainer,
    registry: ModelRegistry,
    remote: RemoteTraining,
    tell: OnProgress = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Passes on what the job logged since the last call: figures to the MLflow run's curves, other lines to `say`.

    How far the log was read lies in a file, so that another process, or a retry, goes on there.
    """
    if remote.job is None:
        return
    place = Path(remote.opened.folder).parent.parent / "jobs" / f"{remote.job.name}.json"
    found = trainer.tail(remote.job, _position(place))
    for line in found.lines:
        if (values := figures(line)) is None:
            say(line)
            continue
        registry.log_progress(remote.opened.run_id, values)
        tell(values)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(found.position), "utf-8")
    partial.replace(place)


def _position(place: Path) -> dict[str, str]:
    try:
        position: dict[str, str] = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return position


def figures(line: str) -> dict[str, float] | None:
    """The figures of a progress line, such as {"epoch": 1, "loss": 0.4}; None for any other line."""
    text = line.strip()
    if len(text) > _LINE or not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    if "epoch" not in numbers or not all(math.isfinite(value) for value in numbers.values()):
        return None
    return {name: float(value) for name, value in numbers.items()}


def collect(
    spec: UseCase,
    trainer: RemoteTrainer,
    registry: ModelRegistry,
    drift: DriftDetector,
    remote: RemoteTraining,
    seconds: float,
) -> TrainedModel:
    """Brings the artifact of a finished job here, freezes the drift reference, seals it and stores it in the run.

    Args:
        seconds: how long the training took, waiting included.

    Raises:
        TrainingError, ServiceRefused: the job failed, and a retry cannot help.
        UnavailableError, InterruptedTraining: submitted again it may succeed.
        IntegrityError: what came back is no artifact.
    """
    folder = Path(remote.opened.folder)
    if not is_sealed(folder):
        assert remote.job is not None, "a training without a job is sealed"
        trainer.check(remote.job, trainer.status(remote.job))
        prepare_folder(folder)
        trainer.collect(remote.job, folder)
        seal_training(spec, drift, remote.opened)
    return log_training(registry, remote.opened, seconds)


def train(
    spec: UseCase,
    trainer: RemoteTrainer,
    registry: ModelRegistry,
    drift: DriftDetector,
    opened: OpenTraining,
    poll: float,
    tell: OnProgress = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> TrainedModel:
    """All of it in one process that waits, for the command line.

    Args:
        poll: seconds between two looks.

    Raises:
        UnavailableError: the job is not over after all the time that it may take. It is left as it is.
    """
    begun = time.monotonic()
    remote = submit(spec, trainer, registry, opened)
    while remote.job is not None:
        status = trainer.status(remote.job)
        follow(trainer, registry, remote, tell, say)
        if status.over and not remote.ending:
            break
        if status.over:
            remote = submit(spec, trainer, registry, opened)
            continue
        if time.monotonic() - begun > patience(spec).total_seconds():
            raise still_running(spec, remote)
        time.sleep(poll)
    return collect(spec, trainer, registry, drift, remote, time.monotonic() - begun)


def still_running(spec: UseCase, remote: RemoteTraining) -> UnavailableError:
    """For a wait that took longer than the service gives the job."""
    name = remote.job.name if remote.job else "?"
    what = f"it is not over after {patience(spec)}"
    return UnavailableError(explain(f"training job {name}", what, remedy="a retry looks again; or stop it in AWS"))

"""Trainer that trains here: in this process, or in one process a GPU that torchrun starts."""

from __future__ import annotations

from pathlib import Path

from pipelines.artifacts import building
from pipelines.errors import InterruptedTraining, TrainingError, explain
from pipelines.machine import usable_cores
from pipelines.ports import OnProgress
from pipelines.spec import UseCase
from pipelines.training.job import Job


class LocalTrainer:
    """This machine's processor, or its CUDA devices when torch finds some."""

    def __init__(self, threads: int | None = None) -> None:
        """Sets the processor threads of all processes; absent, the cores that the scheduler grants this process."""
        self._threads = threads or usable_cores()

    def train(self, spec: UseCase, data: Path, out: Path, checkpoints: Path, on_progress: OnProgress) -> None:
        """See `Trainer.train`. `out` appears complete or not at all; what an interrupted try left is swept away.

        SIGTERM, when this is the main thread, makes it write a checkpoint and end; whatever handled SIGTERM before
        then hears of it.

        Raises:
            TrainingError: this data cannot give a usable model, or `out` holds something already.
            InterruptedTraining: it was told to stop.
            UnavailableError: a training process died.
        """
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainingError(explain(str(out), "it exists already", remedy="give the training a new folder"))
        with building(out) as folder:
            processes = _processes(spec)
            threads = max(1, self._threads // processes)
            job = Job(spec=spec, data=data, out=folder, checkpoints=checkpoints, threads=threads)
            _train(job, processes, on_progress)


def _processes(spec: UseCase) -> int:
    """How many processes train: what the spec says, or one a GPU, and one without a GPU."""
    if isinstance(spec.training.processes, int):
        return spec.training.processes
    import torch

    return max(1, torch.cuda.device_count())


def _train(job: Job, processes: int, on_progress: OnProgress) -> None:
    from pipelines.training import launch
    from pipelines.training.entry import run
    from pipelines.training.signals import stopping

    with stopping() as stop:
        if processes == 1:
            run(job, on_progress, stop)
            return
        try:
            launch.run(job, processes, on_progress, stop)
        except InterruptedTraining:
            if stop():
                raise
            # Nobody told it to: all processes had to end because one was short of memory, and to begin again.
            launch.run(job, processes, on_progress, stop)

"""One trial of a search: the teacher alone, on the training rows, judged on the validation rows after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from pipelines.errors import TrainingError, explain
from pipelines.spec import Teacher
from pipelines.training.entry import own_torch
from pipelines.training.job import Job
from pipelines.training.learnable import learnable, prepared, tables
from pipelines.training.session import Session
from pipelines.training.teaching import teach

#: Called with the epoch (from 1) and what early stopping watches there, less is better; False ends the trial.
AfterEpoch = Callable[[int, float], bool]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a trial came to."""

    value: float
    """The best validation loss."""
    epoch: int
    """The epoch that gave it, from 1."""
    pruned: bool
    """Whether it was ended before its time."""


class _Ended(Exception):
    """The trial was told to end; leaves the loop."""


class Trials:
    """The rows of a training set, read and encoded once for any number of trials.

    Every trial draws from the spec's own seed: the same settings give the same losses whichever trials came before,
    bit for bit on a CPU with the same number of threads.
    """

    def __init__(self, job: Job, worker: int = 0) -> None:
        """Reads train.parquet and validation.parquet.

        Args:
            job: nothing is written to its `out`, and no checkpoint is kept: a trial is short.
            worker: which of several workers this is; they share the GPUs among them.

        Raises:
            TrainingError: no trial whatever can learn from this data.
        """
        self._job = replace(job, checkpoints=None)
        gpus = torch.cuda.device_count()
        self._device = torch.device("cuda", worker % gpus) if gpus else torch.device("cpu")
        held = tables(job, self._device)
        self._learnable = learnable(job, held, prepared(job.spec, held), self._device)

    def run(self, settings: Teacher, after_epoch: AfterEpoch) -> Judged:
        """Trains one teacher.

        Raises:
            TrainingError: a loss was not finite.
        """
        curve: list[float] = []

        def progress(values: Mapping[str, float]) -> None:
            # The loop also tells how it goes within an epoch.
            if (judged := values.get("teacher_validation")) is None:
                return
            curve.append(judged)
            # After the last epoch there is nothing left to save.
            if not after_epoch(len(curve), judged) and len(curve) < settings.epochs:
                raise _Ended

        spec = self._job.spec
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"teacher": settings})})
        pruned = False
        with own_torch(self._job.threads, spec.training.seed):
            session = Session(
                job=replace(self._job, spec=spec),
                device=self._device,
                threads=torch.get_num_threads(),
                progress=progress,
            )
            given = self._learnable
            try:
                teach(session, given.preparation, given.sample, given.rows, given.judged)
            except _Ended:
                pruned = True
        finite = [(value, epoch) for epoch, value in enumerate(curve, 1) if math.isfinite(value)]
        if not finite:
            raise TrainingError(explain("teacher validation", "the loss was never finite"))
        value, epoch = min(finite)
        return Judged(value, epoch, pruned)

"""The ports of training: on this machine, on machines that are rented for it, and the search for settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from pipelines.records import JobRef, JobStatus, LogTail, SearchResult, Trial
from pipelines.spec import UseCase

#: Called with the name of a curve's step and its values, such as {"epoch": 1, "loss": 0.4}.
OnProgress = Callable[[Mapping[str, float]], None]


#: Called with a trial when it begins and when it has ended.
OnTrial = Callable[[Trial], None]


class Trainer(Protocol):
    """Turns a training set into an artifact folder."""

    def train(self, spec: UseCase, data: Path, out: Path, checkpoints: Path, on_progress: OnProgress) -> None:
        """Trains, distils, compresses, and measures on the holdout. `out` then holds the artifact.

        A call that was interrupted goes on where it was when it is repeated with the same arguments.

        Args:
            data: a folder with train.parquet, validation.parquet and holdout.parquet: the features, `label`,
                `partition` and the key columns; and, perhaps, unlabelled.parquet: the same without `label`.
            checkpoints: a folder of this training alone, made when absent, that outlives an interruption.

        Raises:
            TrainingError: this data cannot give a usable model.
            InterruptedTraining: it was told to stop, and has written a checkpoint.
        """
        ...


class RemoteTrainer(Protocol):
    """Trains on machines that are rented for it. Every call can be repeated.

    Every method raises UnavailableError when the service does not answer as it should, and ServiceRefused when it says
    no for good.
    """

    def submit(self, spec: UseCase, data: Path, key: str) -> JobRef:
        """Brings code and data there and starts a job, or finds the one that this key has already.

        A job that runs or has completed is found again. After one that failed or was stopped the next attempt is
        made, which goes on from the checkpoints of the former.

        Args:
            data: as for `Trainer.train`.
            key: what decides the outcome: the same key never has two jobs at once.

        Raises:
            SpecError: a setting that this needs is missing.
            TrainingError: a former attempt found that this data cannot give a usable model.
        """
        ...

    def status(self, job: JobRef) -> JobStatus:
        """How the job is doing.

        Raises:
            NotFoundError: there is no such job.
        """
        ...

    def check(self, job: JobRef, status: JobStatus) -> None:
        """Does nothing for a job that completed.

        Raises:
            TrainingError: its data cannot give a usable model, or its code failed.
            ServiceRefused: a person must change something, or stopped it.
            UnavailableError: it may succeed when it is submitted again.
            InterruptedTraining: its machines were taken away for too long; submitted again it goes on.
        """
        ...

    def tail(self, job: JobRef, position: Mapping[str, str]) -> LogTail:
        """The lines that the job wrote after `position` (empty: from the beginning), in order within a stream."""
        ...

    def collect(self, job: JobRef, out: Path) -> None:
        """Brings the artifact of a completed job. `out` appears complete or not at all.

        Raises:
            IntegrityError: the archive holds links, paths that lead out of it, or more than an artifact may.
        """
        ...

    def stop(self, job: JobRef) -> None:
        """Asks the job to stop; it may write a checkpoint first. A job that is over stays as it is."""
        ...


class Searcher(Protocol):
    """Looks for better settings of the teacher."""

    def search(self, spec: UseCase, data: Path, study: str, on_trial: OnTrial) -> SearchResult:
        """Tries settings from `training.search.space` until its budget is spent; the first trial is the spec's own.

        A call that was interrupted, by SIGKILL even, goes on when it is repeated: trials that ended are kept and count,
        what was running is tried again. With one trial at a time the same arguments give the same result, interrupted
        or not.

        Args:
            data: the folder of a training set, as for `Trainer.train`.
            study: names what is searched; everything that a trial's outcome depends on must be in the name.
            on_trial: called when a trial begins and when it has ended; first of all for every trial that had ended
                before this call.

        Raises:
            TrainingError: no trial could be completed, or this data cannot give a usable model.
            UnavailableError: the study's database did not answer, or no trial could be begun.
        """
        ...

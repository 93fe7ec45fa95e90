"""Trainer that trains here, in this process, on the cores that this process may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pipelines.errors import TrainingError, explain
from pipelines.ports import OnProgress
from pipelines.spec import UseCase


class LocalTrainer:
    """Local CPU, or the first CUDA device when torch finds one."""

    def __init__(self, threads: int | None = None) -> None:
        """Sets the processor threads; absent, the cores that the scheduler grants this process."""
        self._threads = threads or len(os.sched_getaffinity(0))

    def train(self, spec: UseCase, data: Path, out: Path, checkpoints: Path, on_progress: OnProgress) -> None:
        """See `Trainer.train`. `out` appears complete or not at all; what an interrupted try left is swept away.

        Raises:
            TrainingError: this data cannot give a usable model, or `out` holds something already.
        """
        from pipelines.training.entry import run
        from pipelines.training.job import Job

        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainingError(explain(str(out), "it exists already", remedy="give the training a new folder"))
        out.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{out.name}.building-"
        for abandoned in out.parent.glob(f"{prefix}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        try:
            job = Job(spec=spec, data=data, out=building, checkpoints=checkpoints, threads=self._threads)
            run(job, on_progress)
            building.chmod(0o755)
            building.replace(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)

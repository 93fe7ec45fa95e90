"""What every stage of one training shares: the job, where it computes, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.ports import OnProgress
from pipelines.spec import Task, UseCase
from pipelines.training.job import Job

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Made once by the entry, handed to every stage."""

    job: Job
    device: torch.device
    threads: int
    progress: OnProgress
    """Called after every epoch, and in between, with `epoch` and that network's figures."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage, for model.json."""

    @property
    def spec(self) -> UseCase:
        """What is trained."""
        return self.job.spec

    @property
    def task(self) -> Task:
        """Binary, multiclass or regression."""
        return self.job.spec.label.task

    @property
    def outputs(self) -> int:
        """Width of the logits: the classes, or 1."""
        return len(self.job.spec.label.classes) or 1

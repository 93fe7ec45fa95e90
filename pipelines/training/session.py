"""What every stage of one training shares: the job, where it computes, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.errors import InterruptedTraining, explain
from pipelines.ports import OnProgress
from pipelines.spec import Task, UseCase
from pipelines.training.distributed import Team
from pipelines.training.job import Job
from pipelines.training.signals import Stop, never

if TYPE_CHECKING:
    import torch

    from pipelines.training.checkpoint import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Made once by the entry, handed to every stage."""

    job: Job
    device: torch.device
    threads: int
    progress: OnProgress
    """Called after every epoch, and in between, by the leader, with the values of `pipelines.training.progress`."""
    record: OnProgress = lambda _: None
    """Called once an epoch, resumed or not, with what the curves keep: the values that no clock has a say in."""
    team: Team = field(default_factory=Team)
    store: Store | None = None
    """Where checkpoints are kept; None: nowhere."""
    stop: Stop = never
    """Whether this process was told to stop."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What happened on the way, for model.json: a halved batch, say."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage, for model.json."""

    def pause(self) -> None:
        """A point between stages at which nothing is lost.

        Raises:
            InterruptedTraining: this process was told to stop.
        """
        if self.stop():
            raise InterruptedTraining(explain(f"{self.spec.name}: training", "it was told to stop between two stages"))

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

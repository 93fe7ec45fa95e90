"""Between the loop and the folder of checkpoints: what is kept of a training, and how it goes on from that."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipelines.training.checkpoint import pack, unpack
from pipelines.training.session import Session

_log = logging.getLogger(__name__)
_MINUTE = 60.0


@dataclass(slots=True)
class Course:
    """How far a network's training has come: what a checkpoint holds beside weights, optimizer and random numbers."""

    epoch: int = 1
    step: int = 0
    """Steps done in this epoch."""
    total: float = 0.0
    """Of this epoch's rows so far: the sum of their batches' mean losses."""
    best: float = math.inf
    """The least validation loss so far."""
    best_epoch: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """What was recorded, an entry an epoch."""


class Stateful(Protocol):
    """The optimisation step, as far as a checkpoint is concerned."""

    random: torch.Generator

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, pace and, as `random`, the generator's state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        ...


class Keeper:
    """Keeps the checkpoints of one network, and finds what an earlier try left.

    The leader reads and writes; the others are told. Weights and optimizer are the same in every process, random
    numbers are not: the states of all are kept. A try with another number of processes draws other random numbers, and
    ends with other, equally good weights; all else is exact.
    """

    def __init__(self, session: Session, name: str, net: nn.Module) -> None:
        self._session, self._name, self._net = session, name, net
        self._saved_at = time.monotonic()
        found = session.store.newest(name) if session.store and session.team.leads else None
        content = session.team.share(found)
        self._found: dict[str, Any] | None = unpack(content)["state"] if content else None

    @property
    def due(self) -> bool:
        """Whether the leader thinks that it is time for a checkpoint."""
        session = self._session
        if session.store is None or not session.team.leads:
            return False
        return time.monotonic() - self._saved_at >= session.spec.training.checkpoint_minutes * _MINUTE

    def finished(self) -> bool:
        """Whether an earlier try finished this network; then weights and random numbers are as it left them."""
        if self._found is None or not self._found["finished"]:
            return False
        self._net.load_state_dict(self._found["net"])
        self._net.eval()
        _set_random(self._session, self._found["random"][0])
        self._record()
        _log.info("%s: finished by an earlier try", self._name)
        return True

    def resume(self, step: Stateful) -> Course:
        """Where to go on: in the middle of an epoch, or at the beginning."""
        team, found = self._session.team, self._found
        if team.rank:
            # Dropout is to differ between the processes.
            torch.manual_seed(self._session.spec.training.seed + 1_000_003 * team.rank)
        if found is None:
            return Course()
        course = Course(**found["course"])
        course.kept = {name: tensor.to(self._session.device) for name, tensor in course.kept.items()}
        self._net.load_state_dict(found["net"])
        random = found["random"]
        if len(random) == team.size:
            step.load_state_dict({**found["step"], "random": _set_random(self._session, random[team.rank])})
        else:
            _log.warning("%s: %d processes go on for %d: with other random numbers", self._name, team.size, len(random))
            step.load_state_dict({**found["step"], "random": step.random.get_state()})
        self._record()
        _log.info("%s: goes on in epoch %d after step %d", self._name, course.epoch, course.step)
        return course

    def save(self, step: Stateful, course: Course) -> None:
        """Keeps a training under way. Every process takes part."""
        state = step.state_dict()
        random = self._session.team.gather(_random(self._session, state.pop("random")))
        held = {field.name: getattr(course, field.name) for field in dataclasses.fields(course)}
        self._write({"finished": False, "net": self._net.state_dict(), "step": state, "course": held, "random": random})

    def finish(self, step: Stateful, course: Course) -> None:
        """Keeps the weights of a network that is done. The random numbers of all processes become the leader's."""
        random = self._session.team.gather(_random(self._session, step.random.get_state()))
        if self._session.team.rank:
            _set_random(self._session, random[0])
        self._write(
            {"finished": True, "net": self._net.state_dict(), "course": {"curve": course.curve}, "random": random[:1]}
        )

    def _write(self, state: dict[str, Any]) -> None:
        self._saved_at = time.monotonic()
        if self._session.store is not None and self._session.team.leads:
            self._session.store.save(self._name, state, finished=state["finished"])

    def _record(self) -> None:
        if self._found is not None:
            for values in self._found["course"]["curve"]:
                self._session.record(values)


def _random(session: Session, generator: Tensor) -> Tensor:
    """[n] uint8: the states of the step's generator, of the processor's, and of the GPU's, with the first one's length.

    They are one row so that processes can exchange them without pickling.
    """
    states = [generator.cpu(), torch.get_rng_state()]
    if session.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(session.device))
    content = pack({"states": states})
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _set_random(session: Session, row: Tensor) -> Tensor:
    """Puts back what `_random` gave; returns the generator's state."""
    generator, processor, *gpu = unpack(row.numpy().tobytes())["states"]
    torch.set_rng_state(processor)
    if gpu and session.device.type == "cuda":
        torch.cuda.set_rng_state(gpu[0], session.device)
    state: Tensor = generator
    return state

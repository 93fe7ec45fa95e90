"""The training loop: one for teacher and student. A feed says where the rows come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import InterruptedTraining, TrainingError, explain
from pipelines.spec import Task, Training
from pipelines.training.feed import Batch, Feed
from pipelines.training.prepare import MISSING, UNKNOWN
from pipelines.training.progress import Meter
from pipelines.training.resume import Course, Keeper
from pipelines.training.session import Session
from pipelines.training.shortage import halved

_EVALUATION_ROWS = 8192
_WARMUP = 0.05
_CLIP_NORM = 1.0
#: Share of category codes hidden in training (half as unseen, half as missing), so that both indices mean something.
_HIDDEN = 0.01
#: Steps whose losses are read at once: reading one makes the processor wait for the device.
_UNREAD = {"cpu": 1, "cuda": 16}
#: Rows that a message names.
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long and how fast."""

    name: str
    epochs: int
    patience: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    seed: int


def losses(task: Task, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean loss of logits [b, k, o]: each member is judged alone, as TabM asks.

    Cross-entropy in nats against soft targets, or the squared error.
    """
    b, k, _ = logits.shape
    how = "mean" if weight is None else "none"
    if task == "multiclass":
        loss = functional.cross_entropy(logits.flatten(0, 1), target.repeat_interleave(k, dim=0), reduction=how)
    else:
        spread = target[:, None].expand(b, k)
        if task == "binary":
            loss = functional.binary_cross_entropy_with_logits(logits[..., 0], spread, reduction=how)
        else:
            loss = functional.mse_loss(logits[..., 0], spread, reduction=how)
    return loss if weight is None else (loss.view(b, k).mean(1) * weight).mean()


def predict(task: Task, net: nn.Module, rows: Feed, temperature: float = 1.0) -> Tensor:
    """The members' mean: probabilities [n] or [n, classes]; regression [n], standardised.

    Args:
        temperature: the logits are divided by it first.
    """
    return torch.cat([predicted(task, net, tile, temperature) for tile in rows.tiles(_EVALUATION_ROWS)])


def predicted(task: Task, net: nn.Module, tile: Batch, temperature: float = 1.0) -> Tensor:
    """See `predict`, of some rows."""
    net.eval()
    with torch.no_grad():
        logits: Tensor = net(tile.numeric, tile.missing, tile.codes) / temperature
        if task == "multiclass":
            return logits.softmax(-1).mean(1)
        return (logits[..., 0].sigmoid() if task == "binary" else logits[..., 0] * temperature).mean(1)


def validation_loss(task: Task, prediction: Tensor, target: Tensor) -> float:
    """Log loss (nats) or mean squared error (standardised) of the members' mean."""
    if task == "regression":
        return functional.mse_loss(prediction, target).item()
    prediction = prediction.clamp(1e-7, 1 - 1e-7)
    if task == "binary":
        return functional.binary_cross_entropy(prediction, target).item()
    return -(target * prediction.log()).sum(1).mean().item()


def train(session: Session, net: nn.Module, rows: Feed, validation: Feed, schedule: Schedule) -> None:
    """Fits `net` in place and leaves it with the weights of its best epoch, in eval mode.

    AdamW, warm-up and cosine decay; stops after `patience` epochs without a better validation loss. The same seed,
    rows and thread count give the same weights, bit for bit, on a CPU; also when the training was killed and goes on
    from a checkpoint. With several processes each takes its shard of every batch. A batch that memory is too small for
    is halved once, and the network begins again.

    Raises:
        TrainingError: the loss is NaN or infinite: network, epoch, step (from 1) and rows are named. Or memory is too
            small for half a batch as well.
        InterruptedTraining: it was told to stop, and has written a checkpoint if it has a folder for them.
    """

    def fit(batch_rows: int) -> None:
        _fit(session, net, rows, validation, replace(schedule, batch_rows=batch_rows))

    halved(session, net, schedule.name, schedule.batch_rows, fit)


def _fit(session: Session, net: nn.Module, rows: Feed, validation: Feed, schedule: Schedule) -> None:
    name, team, steps = schedule.name, session.team, math.ceil(len(rows) / schedule.batch_rows)
    keeper = Keeper(session, name, net)
    if keeper.finished():
        return
    step = Step(
        session.spec.training,
        session.task,
        team.wrap(net),
        device=session.device,
        batch_rows=schedule.batch_rows // team.size,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        pace=_pace(schedule.epochs * steps),
        seed=schedule.seed + 1_000_003 * team.rank,
    )
    course = keeper.resume(step)
    meter = Meter((schedule.epochs - course.epoch + 1) * len(rows) - course.step * schedule.batch_rows)
    while course.epoch <= schedule.epochs and course.epoch - 1 - course.best_epoch < schedule.patience:
        net.train()
        unread: list[Tensor] = []
        feed = rows.batches(schedule.batch_rows, schedule.seed, course.epoch, course.step, team.rank, team.size)
        for number, batch in enumerate(feed, course.step + 1):
            unread.append(step(batch) / team.size)
            if len(unread) < _UNREAD[session.device.type] and number < steps:
                continue
            # Here alone the processor waits for the device, and the processes for each other.
            values, told_to_stop, due = _read(session, unread, keeper.due)
            unread.clear()
            for value in values:
                course.step += 1
                if not math.isfinite(value):
                    raise TrainingError(_no_number(rows, schedule, course, value))
                seen = min(schedule.batch_rows, len(rows) - (course.step - 1) * schedule.batch_rows)
                course.total += value * seen
                meter.passed(seen, value)
            if told_to_stop or due:
                keeper.save(step, course)
            if told_to_stop:
                raise InterruptedTraining(_stopped(session, schedule, course))
            if meter.due and number < steps and team.leads:
                session.progress(_told(course, steps, {f"{name}_recent_loss": meter.loss} | meter.speed()))
        judged = _judge(session, net, validation)
        figures = {f"{name}_loss": course.total / len(rows), f"{name}_validation": judged}
        course.curve.append(_told(course, steps, figures))
        if team.leads:
            session.record(course.curve[-1])
            session.progress(course.curve[-1] | meter.speed())
        if judged < course.best:
            course.best, course.best_epoch = judged, course.epoch
            course.kept = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        course.epoch, course.step, course.total = course.epoch + 1, 0, 0.0
    if not course.kept:
        raise TrainingError(explain(f"{name} validation", f"the loss is {judged} after every epoch"))
    net.load_state_dict(course.kept)
    net.eval()
    keeper.finish(step, course)


def _read(session: Session, unread: list[Tensor], due: bool) -> tuple[list[float], bool, bool]:
    """The losses of the last steps; whether a process was told to stop; whether the leader wants a checkpoint.

    Every process reads the same.
    """
    wishes = torch.tensor([float(session.stop()), float(due)], device=session.device)
    *values, stop, save = session.team.total(torch.cat([torch.stack(unread), wishes])).tolist()
    return values, stop > 0, save > 0


def _judge(session: Session, net: nn.Module, validation: Feed) -> float:
    """The validation loss: of each process's tiles, then of all, the same number in every process."""
    team = session.team
    if team.size == 1:
        return validation_loss(session.task, predict(session.task, net, validation), validation.target)
    mine = torch.zeros(2, dtype=torch.float64, device=session.device)
    for tile in validation.tiles(_EVALUATION_ROWS, team.rank, team.size):
        loss = validation_loss(session.task, predicted(session.task, net, tile), tile.target)
        mine += torch.tensor([loss * len(tile), len(tile)], dtype=torch.float64, device=session.device)
    loss, count = team.total(mine)
    return float(loss / count)


def _told(course: Course, steps: int, figures: dict[str, float]) -> dict[str, float]:
    return {"epoch": course.epoch, "step": (course.epoch - 1) * steps + course.step, **figures}


def _no_number(rows: Feed, schedule: Schedule, course: Course, value: float) -> str:
    """Says which batch; the feed gives it once more."""
    begin = (course.step - 1) * schedule.batch_rows
    batch = next(rows.batches(schedule.batch_rows, schedule.seed, course.epoch, course.step - 1))
    said = f"its batch is rows {begin + 1} to {begin + len(batch)} of the epoch's order (seed {schedule.seed})"
    if batch.numbers is not None:
        good = batch.numeric.isfinite().flatten(1).all(1) & batch.target.isfinite().reshape(len(batch), -1).all(1)
        named = batch.numbers[~good] if not good.all() else batch.numbers
        which = "those with a number that is not finite" if not good.all() else "which"
        shown = ", ".join(map(str, named[:_SHOWN].tolist())) + (", ..." if len(named) > _SHOWN else "")
        said += f", {which} lie at {shown} (from 0) in the training rows"
    return explain(
        f"{schedule.name} epoch {course.epoch} step {course.step}",
        f"the loss is {value}; {said}",
        remedy="lower training's learning_rate, or look for absurd labels",
    )


def _stopped(session: Session, schedule: Schedule, course: Course) -> str:
    return explain(
        f"{schedule.name} epoch {course.epoch} step {course.step}",
        "training was told to stop",
        remedy=f"the same call {'goes on from here' if session.store else 'begins again: it has no checkpoints'}",
    )


def _pace(steps: int) -> Callable[[int], float]:
    warm = max(1, int(_WARMUP * steps))

    def at(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return at


class Step:
    """What happens to a network for one batch, with the optimizer's state and the random hiding of categories."""

    def __init__(
        self,
        training: Training,  # noqa: ARG002
        task: Task,
        net: nn.Module,
        *,
        device: torch.device,  # noqa: ARG002
        batch_rows: int,  # noqa: ARG002
        learning_rate: float,
        weight_decay: float,
        pace: Callable[[int], float],
        seed: int,
    ) -> None:
        self._task, self._net = task, net
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self.pace = torch.optim.lr_scheduler.LambdaLR(self.optimizer, pace)
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, batch: Batch) -> Tensor:
        """Improves the network by one batch; returns `share` times its mean loss before that, [], not waited for.

        A shard without rows gives 0, and the gradients of 0.
        """
        logits = self._net(batch.numeric, batch.missing, _hide(batch.codes, self.random))
        loss = losses(self._task, logits, batch.target, batch.weight) if len(batch) else logits.sum()
        if batch.share != 1.0:
            loss = loss * batch.share
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._net.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self.pace.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the network's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "pace": self.pace.state_dict(),
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.pace.load_state_dict(state["pace"])
        self.random.set_state(state["random"])


def _hide(codes: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.rand(codes.shape, generator=generator).to(codes.device)
    codes = torch.where(draw < _HIDDEN, MISSING, codes)
    return torch.where(draw < _HIDDEN / 2, UNKNOWN, codes)

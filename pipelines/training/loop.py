"""The training loop: one for teacher and student. A feed says where the rows come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import InterruptedTraining, TrainingError, explain
from pipelines.spec import Task, UseCase
from pipelines.training.feed import Batch, Feed, shard
from pipelines.training.progress import Meter
from pipelines.training.resume import Course, Keeper
from pipelines.training.session import Session
from pipelines.training.shortage import halved
from pipelines.training.step import Step

_EVALUATION_ROWS = 8192
_WARMUP = 0.05
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


def validation_loss(task: Task, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> float:
    """Log loss (nats) or mean squared error (standardised) of the members' mean; rows weigh as in training."""
    if task == "regression":
        loss = functional.mse_loss(prediction, target, reduction="none")
    elif task == "binary":
        loss = functional.binary_cross_entropy(prediction.clamp(1e-7, 1 - 1e-7), target, reduction="none")
    else:
        loss = -(target * prediction.clamp(1e-7, 1 - 1e-7).log()).sum(1)
    return (loss if weight is None else loss * weight).mean().item()


def judge(spec: UseCase, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> float:
    """What early stopping watches on the validation rows, less is better: 1 - AUC where the gates judge by AUC, else
    the loss.

    The share of positives drifts, and where the validation rows have another share than the training rows, log loss
    is at its least long before the order of the scores is at its best; scores are calibrated on that very slice
    afterwards. Soft targets, and rows of one class only, have no AUC: their loss is taken. NaN when a prediction is
    not finite.

    Args:
        prediction: as `predict` gives it.
        target: as a feed's.
        weight: [n]; None where every row weighs the same.
    """
    if not prediction.isfinite().all():
        return math.nan
    positive = target == 1
    if spec.gates.metric != "auc" or positive.all() or not positive.any() or not (positive | (target == 0)).all():
        return validation_loss(spec.label.task, prediction, target, weight)
    from sklearn.metrics import roc_auc_score

    weights = None if weight is None else weight.cpu().numpy()
    return 1.0 - float(roc_auc_score(target.cpu().numpy(), prediction.cpu().numpy(), sample_weight=weights))


def train(session: Session, net: nn.Module, rows: Feed, validation: Feed, schedule: Schedule) -> None:
    """Fits `net` in place and leaves it with the weights of its best epoch, in eval mode.

    AdamW, warm-up and cosine decay; stops after `patience` epochs in which `judge` found nothing better. The same seed,
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
    first, last = shard(0, schedule.batch_rows, team.rank, team.size)
    step = Step(
        session.spec.training,
        session.task,
        team.wrap(net),
        device=session.device,
        batch_rows=last - first,
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
    """See `judge`. Each process predicts its tiles; all judge the same predictions of all rows."""
    team = session.team
    prediction = torch.zeros_like(validation.target)
    for number, tile in enumerate(validation.tiles(_EVALUATION_ROWS, team.rank, team.size)):
        begin = (number * team.size + team.rank) * _EVALUATION_ROWS
        prediction[begin : begin + len(tile)] = predicted(session.task, net, tile)
    return judge(session.spec, team.total(prediction), validation.target, validation.weight)


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

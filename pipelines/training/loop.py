"""The training loop: one for teacher and student. A feed says where the rows come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import TrainingError, explain
from pipelines.spec import Task
from pipelines.training.feed import Feed
from pipelines.training.prepare import MISSING, UNKNOWN
from pipelines.training.session import Session

_EVALUATION_ROWS = 8192
_WARMUP = 0.05
_CLIP_NORM = 1.0
#: Share of category codes hidden in training (half as unseen, half as missing), so that both indices mean something.
_HIDDEN = 0.01


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

    Args:
        target: binary and regression [b], multiclass [b, o]; [b, k] and [b, k, o] where each member has its own.
        weight: [b], or [b, k] where each member has its own.
    """
    b, k, _ = logits.shape
    how = "mean" if weight is None else "none"
    each = (
        target
        if target.dim() == (3 if task == "multiclass" else 2)
        else target[:, None].expand(b, k, *target.shape[1:])
    )
    if task == "multiclass":
        loss = functional.cross_entropy(logits.flatten(0, 1), each.flatten(0, 1), reduction=how)
    elif task == "binary":
        loss = functional.binary_cross_entropy_with_logits(logits[..., 0], each, reduction=how)
    else:
        loss = functional.mse_loss(logits[..., 0], each, reduction=how)
    if weight is None:
        return loss
    return (loss.view(b, k) * weight.view(b, -1)).mean()


def predict(task: Task, net: nn.Module, rows: Feed, temperature: float = 1.0) -> Tensor:
    """The members' mean: probabilities [n] or [n, classes]; regression [n], standardised.

    Args:
        temperature: the logits are divided by it first.
    """
    net.eval()
    with torch.no_grad():
        parts = []
        for tile in rows.tiles(_EVALUATION_ROWS):
            logits = net(tile.numeric, tile.missing, tile.codes) / temperature
            if task == "multiclass":
                parts.append(logits.softmax(-1).mean(1))
            else:
                parts.append((logits[..., 0].sigmoid() if task == "binary" else logits[..., 0] * temperature).mean(1))
        return torch.cat(parts)


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
    rows and thread count give the same weights, bit for bit, on a CPU.

    Raises:
        TrainingError: the loss is NaN or infinite; epoch and step (from 1) are named.
    """
    task = session.task
    shuffle = torch.Generator().manual_seed(schedule.seed)
    steps_an_epoch = math.ceil(len(rows) / schedule.batch_rows)
    optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, _pace(schedule.epochs * steps_an_epoch))
    best, best_epoch, kept = math.inf, 0, {}
    for epoch in range(1, schedule.epochs + 1):
        net.train()
        total = 0.0
        for step, batch in enumerate(rows.batches(schedule.batch_rows, schedule.seed, epoch), 1):
            codes = _hide(batch.codes, shuffle)
            loss = losses(task, net(batch.numeric, batch.missing, codes), batch.target, batch.weight)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    explain(
                        f"{schedule.name} epoch {epoch} step {step}",
                        f"the loss is {value}",
                        remedy="lower training's learning_rate, or look for absurd labels",
                    )
                )
            nn.utils.clip_grad_norm_(net.parameters(), _CLIP_NORM)
            optimizer.step()
            pace.step()
            total += value * len(batch)
        judged = validation_loss(task, predict(task, net, validation), validation.target)
        session.progress(
            {"epoch": epoch, f"{schedule.name}_loss": total / len(rows), f"{schedule.name}_validation": judged}
        )
        if judged < best:
            best, best_epoch = judged, epoch
            kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        elif epoch - best_epoch >= schedule.patience:
            break
    if not kept:
        raise TrainingError(explain(f"{schedule.name} validation", f"the loss is {judged} after every epoch"))
    net.load_state_dict(kept)
    net.eval()


def _pace(steps: int) -> Callable[[int], float]:
    warm = max(1, int(_WARMUP * steps))

    def at(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return at


def _hide(codes: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.rand(codes.shape, generator=generator).to(codes.device)
    codes = torch.where(draw < _HIDDEN, MISSING, codes)
    return torch.where(draw < _HIDDEN / 2, UNKNOWN, codes)

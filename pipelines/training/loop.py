"""The training loop: one for teacher and student. A feed says where the rows come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import TrainingError, explain
from pipelines.spec import Task, UseCase
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
        return validation_loss(spec.label.task, prediction, target)
    from sklearn.metrics import roc_auc_score

    weights = None if weight is None else weight.cpu().numpy()
    return 1.0 - float(roc_auc_score(target.cpu().numpy(), prediction.cpu().numpy(), sample_weight=weights))


def train(session: Session, net: nn.Module, rows: Feed, validation: Feed, schedule: Schedule) -> None:
    """Fits `net` in place and leaves it with the weights of its best epoch, in eval mode.

    AdamW, warm-up and cosine decay; stops after `patience` epochs in which `judge` found nothing better. The same seed,
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
        judged = judge(session.spec, predict(task, net, validation), validation.target)
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

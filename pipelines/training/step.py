"""One step of the optimisation: forward, loss, backward, clip, AdamW, pace. Where the time of a training goes.

On a GPU the forward and backward pass run in bfloat16, compiled, and replayed as CUDA graphs: torch.compile's
`reduce-overhead` captures them for the one shape of a full batch, and copies each batch into the graph's own inputs. A
smaller last batch runs the same function uncompiled. Nothing in a step waits for the device: the loss is returned as a
tensor, and who reads it, waits. On a CPU with the spec's defaults the arithmetic is plain eager float32.

Shapes: b rows, v numeric, u indicators, c categorical, k ensemble members, o outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pipelines.spec import Task, Training
from pipelines.training.feed import Batch
from pipelines.training.prepare import MISSING, UNKNOWN

_CLIP_NORM = 1.0
#: Share of category codes hidden in training (half as unseen, half as missing), so that both indices mean something.
_HIDDEN = 0.01


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


def precision(training: Training, device: torch.device) -> torch.dtype:
    """Of the forward and backward pass: what the spec says, or bfloat16 on a GPU whose matrix units have it."""
    if training.precision == "auto":
        has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has else torch.float32
    return torch.bfloat16 if training.precision == "bf16" else torch.float32


def compiles(training: Training, device: torch.device) -> bool:
    """Whether full batches run compiled: what the spec says, or on a GPU."""
    return device.type == "cuda" if training.compile == "auto" else training.compile == "on"


class Step:
    """What happens to a network for one batch, with the optimizer's state and the random hiding of categories.

    Args:
        net: gives logits [b, k, o] of numeric [b, v], missing [b, u] and codes [b, c]; may be wrapped in
            DistributedDataParallel, which then averages the gradients of the processes.
        batch_rows: rows of this process's full batch: the one shape that is compiled.
        pace: the factor of the learning rate at a step, from 0.
        seed: of the hiding; the same seed hides the same codes on the same kind of device.
    """

    def __init__(
        self,
        training: Training,
        task: Task,
        net: nn.Module,
        *,
        device: torch.device,
        batch_rows: int,
        learning_rate: float,
        weight_decay: float,
        pace: Callable[[int], float],
        seed: int,
    ) -> None:
        self._task, self._net, self._device, self._rows = task, net, device, batch_rows
        self._dtype = precision(training, device)
        self._full = self._compiled() if compiles(training, device) else self._loss
        # On a GPU one kernel updates all weights. On a CPU the plain loop keeps the bits of every earlier training.
        self.optimizer = torch.optim.AdamW(
            net.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True if device.type == "cuda" else None
        )
        self.pace = torch.optim.lr_scheduler.LambdaLR(self.optimizer, pace)
        #: On the device, so that no random number crosses the bus.
        self.random = torch.Generator(device).manual_seed(seed)

    def __call__(self, batch: Batch) -> Tensor:
        """Improves the network by one batch.

        Returns:
            The batch's `share` times the mean loss of its own rows before that (0 when it has none): [] float32 on the
            device, which is not waited for.
        """
        return self.improve(batch, hide(batch.codes, self.random))

    def improve(self, batch: Batch, codes: Tensor) -> Tensor:
        """See `__call__`; `codes` [b, c] take the place of the batch's own."""
        run = self._full if len(batch) == self._rows else self._loss
        if self._device.type == "cuda":
            # The graphs' memory is about to be written again: nothing of the last step may still be in use.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        loss = run(batch.numeric, batch.missing, codes, batch.target, batch.weight)
        if batch.share != 1:
            loss = loss * batch.share
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._net.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self.pace.step()
        # Gradients and loss may lie in the graphs' memory, and must be out of it before it is written again.
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the network's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "pace": self.pace.state_dict(),
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave on the same kind of device."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.pace.load_state_dict(state["pace"])
        self.random.set_state(state["random"])

    def _loss(self, numeric: Tensor, missing: Tensor, codes: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype is torch.bfloat16):
            logits: Tensor = self._net(numeric, missing, codes)
        if not len(target):
            # The mean of nothing is no number; the sum of nothing is 0, and its gradients as well, in every process.
            return logits.float().sum()
        return losses(self._task, logits.float(), target, weight)

    def _compiled(self) -> Callable[..., Tensor]:
        # The compiler keeps few versions of one function: this step is not to inherit those of an earlier network, nor
        # its graphs' memory.
        torch.compiler.reset()
        # DistributedDataParallel's hooks start its reductions during the backward pass: that cannot be replayed from a
        # graph which was captured without them.
        graphs = self._device.type == "cuda" and not isinstance(self._net, DistributedDataParallel)
        compiled: Callable[..., Tensor] = torch.compile(
            self._loss, dynamic=False, mode="reduce-overhead" if graphs else None
        )
        return compiled


def hide(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Codes [b, c], a hundredth of them hidden; drawn on the generator's device, which must be the codes' own."""
    draw = torch.rand(codes.shape, generator=generator, device=codes.device)
    codes = torch.where(draw < _HIDDEN, MISSING, codes)
    return torch.where(draw < _HIDDEN / 2, UNKNOWN, codes)

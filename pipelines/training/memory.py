"""What fits: whether the rows lie on the device or are streamed, and how many of them make a batch."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch
from torch import distributed, nn

from pipelines.machine import available_memory
from pipelines.spec import UseCase
from pipelines.training.feed import Batch, Feed
from pipelines.training.session import Session
from pipelines.training.step import Step
from pipelines.training.stream import row_groups

#: Of the free memory, how much the rows may take: on a GPU network, activations and graphs need the rest; on the host a
#: table is held raw and encoded, and once more while one is made from the other.
_DEVICE_SHARE, _HOST_SHARE, _HOST_COPIES = 0.5, 0.8, 3
#: Sizes of an automatic batch, and how many of them an epoch has at least: fewer steps learn little.
_SMALLEST, _LARGEST, _LARGEST_CPU, _STEPS = 256, 2**17, 2048, 64
#: Of the free memory of a GPU, how much a step may take.
_STEP_SHARE = 0.8


def encoded_bytes(spec: UseCase, rows: int) -> int:
    """Of so many rows as tensors, at most: float32 numbers, indicators, targets and weights, int64 codes."""
    numeric, categorical = len(spec.features.numeric), len(spec.features.categorical)
    outputs = len(spec.label.classes) if spec.label.task == "multiclass" else 1
    return rows * (4 * (2 * numeric + outputs + 1) + 8 * categorical)


def streams(spec: UseCase, train: Path, validation: Path, device: torch.device) -> bool:
    """Whether the training rows are streamed from their file: as the spec says, or when they do not fit.

    Validation and holdout rows are always held, so that they count as well. All processes decide alike.

    Raises:
        TrainingError: a file is not readable.
    """
    if spec.training.memory != "auto":
        return spec.training.memory == "stream"
    needed = encoded_bytes(spec, sum(row_groups(train)) + sum(row_groups(validation)))
    fits = _HOST_COPIES * needed * _local_processes() <= _HOST_SHARE * available_memory()
    if device.type == "cuda":
        fits = fits and needed <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    return _least(int(fits), device) == 0


def batch_rows(session: Session, net: nn.Module, rows: Feed) -> int:
    """The teacher's `batch_rows`, over all processes: as the spec says, or found.

    On a GPU: the largest power of two for which a step fits into `_STEP_SHARE` of the free memory, tried on a copy of
    the network. On a CPU, where a larger batch is hardly quicker: up to 2048. Never so many that an epoch has fewer
    than 64 steps, but 256 at least.
    """
    asked = session.spec.training.teacher.batch_rows
    if isinstance(asked, int):
        return asked
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    largest = min(_LARGEST * processes if session.device.type == "cuda" else _LARGEST_CPU, len(rows) // _STEPS)
    chosen = _SMALLEST
    if session.device.type == "cuda":
        sample = next(iter(rows.tiles(_SMALLEST)))
        while 2 * chosen <= largest and _least(
            int(_fits(session, net, sample, 2 * chosen // processes)), session.device
        ):
            chosen *= 2
    else:
        while 2 * chosen <= largest:
            chosen *= 2
    return chosen


def _fits(session: Session, net: nn.Module, sample: Batch, rows: int) -> bool:
    """Whether steps of so many rows of this process fit, with room to spare; leaves no trace of them."""
    device = session.device
    held = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
            _try(session, net, sample[torch.arange(rows, device=device) % len(sample)])
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        # What is cached for this size may be in the way of the next.
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_allocated(device) - held <= _STEP_SHARE * free


def _try(session: Session, net: nn.Module, batch: Batch) -> None:
    """Two steps on a copy of the network: the second has the optimizer's state beside the activations.

    Not compiled: that takes no less memory, and compiling takes long for a size that is tried once.
    """
    step = Step(
        session.spec.training.model_copy(update={"compile": "off"}),
        session.task,
        copy.deepcopy(net).train(),
        device=session.device,
        batch_rows=len(batch),
        learning_rate=0.0,
        weight_decay=0.0,
        pace=lambda _: 1.0,
        seed=0,
    )
    for _ in range(2):
        step(batch)


def _local_processes() -> int:
    """Training processes that share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if distributed.is_initialized() else 1


def _least(value: int, device: torch.device) -> int:
    """The smallest of all processes' values."""
    if not distributed.is_initialized():
        return value
    # NCCL reduces what lies on its GPU, gloo what lies on the host.
    where = device if distributed.get_backend() == "nccl" else torch.device("cpu")
    least = torch.tensor(value, device=where)
    distributed.all_reduce(least, op=distributed.ReduceOp.MIN)
    return int(least.item())

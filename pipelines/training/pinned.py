"""Batches from the host to a GPU, one ahead, through two pinned buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pipelines.training.feed import Batch


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on the GPU. While one is consumed, the next is copied on a stream of its own.

    A copy out of pageable memory would hold up the host until it is done; out of pinned memory it does not, but the
    buffer may not be written again before: each has an event for that, which lies two batches back and has long come.
    """
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    buffers = (_Pinned(), _Pinned())
    held: tuple[Batch, torch.cuda.Event] | None = None
    for number, batch in enumerate(batches):
        following = buffers[number % 2].send(batch, device, copying)
        if held is not None:
            yield _received(held)
        held = following
    if held is not None:
        yield _received(held)


class _Pinned:
    """Page-locked host memory for one batch, made when it is first needed and again for a larger one."""

    def __init__(self) -> None:
        self._memory: list[Tensor] = []
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def send(self, batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
        """Starts the copy of a batch; the event comes when it is done."""
        # Before its first record the event is taken for one that has come.
        self._copied.synchronize()
        tensors = _tensors(batch)
        if not self._memory or len(self._memory[0]) < len(batch):
            self._memory = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        there = []
        for tensor, memory in zip(tensors, self._memory, strict=True):
            staged = memory[: len(batch)].copy_(tensor)
            with torch.cuda.stream(stream):
                there.append(staged.to(device, non_blocking=True))
        self._copied.record(stream)
        return _rebuilt(batch, there), self._copied


def _received(sent: tuple[Batch, torch.cuda.Event]) -> Batch:
    """Makes the consumer's stream, not the host, wait for the copy."""
    batch, copied = sent
    stream = torch.cuda.current_stream(batch.target.device)
    stream.wait_event(copied)
    for tensor in _tensors(batch):
        # It was allocated on the copying stream: its memory may be used again only when the consumer's work is done.
        tensor.record_stream(stream)
    return batch


def _tensors(batch: Batch) -> list[Tensor]:
    """Of the batch, without what it does not have."""
    tensors = (batch.numeric, batch.missing, batch.codes, batch.target, batch.weight, batch.numbers)
    return [tensor for tensor in tensors if tensor is not None]


def _rebuilt(batch: Batch, tensors: list[Tensor]) -> Batch:
    """The batch with other tensors, in the order of `_tensors`."""
    numeric, missing, codes, target, *rest = tensors
    weight = None if batch.weight is None else rest.pop(0)
    numbers = None if batch.numbers is None else rest.pop(0)
    return replace(batch, numeric=numeric, missing=missing, codes=codes, target=target, weight=weight, numbers=numbers)

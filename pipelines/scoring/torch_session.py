"""One ONNX graph on a GPU, by torch: the same interface and the same registered bytes as a session on the processor.

Rows go to the GPU packed: the columns of float32 numbers in one pinned buffer, those of codes in another, each copied
at once. Threads pack side by side, and take turns at a few streams, so that one tile is copied there while another is
computed and a third one's scores come back.

What holds of a row's score: it does not depend on the rows beside it or on the tile. Rows are padded to whole blocks,
layers of int8 are exact sums of integers, and products of floats are computed a block at a time, all of one shape. (Of
those, where in its block a row lies must not matter either; no library promises that, and a test looks.)
Against ONNX Runtime it may differ in its last bits, and of int8 a value that lies between two steps may be rounded to
the other one: on a processor that moved 1 to 8 of 100,000 rows, by 0.004 of the label's spread at most.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import UnavailableError, explain
from pipelines.scoring.session import if_memory

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

#: A tile on its way there, one that is computed, one on its way back. Not one a thread: cuBLAS keeps 32 MiB for each
#: pair of a thread and a stream, and a tile's values are held as often.
_STREAMS = 3


class TorchSession:
    """Scores of columns. May be called from several threads at once, but on a GPU not after a fork."""

    def __init__(self, model: bytes, device: str = "cuda") -> None:
        """Loads a graph; its weights stay on the device.

        Args:
            device: cuda, or cpu, which is for tests.

        Raises:
            Unsupported: it has an operator that our networks have not: trees, and text that is encoded inside.
            ValueError: not an ONNX file.
            UnavailableError: this process has no GPU.
            MemoryError: there is not enough to load it.
        """
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise UnavailableError(
                explain(
                    "scoring.device",
                    "cuda is asked for, and this process has no GPU that torch can use",
                    allowed="cpu, or cuda on a worker with a GPU",
                    remedy="name a queue of workers with a GPU (queues.score), or set scoring.device: cpu",
                )
            )
        from pipelines.scoring.torch_graph import Program

        self.keeps_memory = True
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._streams: SimpleQueue[torch.cuda.Stream] = SimpleQueue()
        try:
            if self._cuda:  # images for GPUs may have switched it off: products with 10 bits of each factor
                torch.set_float32_matmul_precision("highest")
            self._program = Program(model, self._device)
            for _ in range(_STREAMS if self._cuda else 0):
                self._streams.put(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]
            if self._cuda:  # they do not wait for the stream on which the weights were copied
                torch.cuda.synchronize()
        except RuntimeError as error:
            if_memory(error)
            raise
        self.inputs = self._program.inputs

    def lean(self) -> TorchSession:
        """The same graph, with the same weights, in a session that keeps no memory."""
        lean = copy.copy(self)
        lean.keeps_memory = False
        lean._forget()
        return lean

    def run(self, columns: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Scores [n] or [n, classes], n at least 1.

        Args:
            columns: [n] a graph's input; codes are places in a vocabulary, which int32 holds.

        Raises:
            MemoryError: there is not enough.
        """
        import torch

        try:
            with torch.inference_mode():
                numbers = self._packed(columns, self._program.numbers, torch.float32)
                codes = self._packed(columns, self._program.codes, torch.int32)
                rows = len(next(iter(columns.values())))
                compute = self._on_stream if self._cuda else self._computed
                # Copied: what is pinned is for the next tile, and a slice would hold on to its padding.
                return np.array(compute(numbers, codes, rows).numpy())
        except RuntimeError as error:
            if_memory(error)
            raise
        finally:
            if not self.keeps_memory:
                self._forget()

    def _on_stream(self, numbers: torch.Tensor, codes: torch.Tensor, rows: int) -> torch.Tensor:
        """Scores in pinned memory, from packed rows in pinned memory."""
        import torch

        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                scores = self._computed(numbers, codes, rows)
                host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
                host.copy_(scores, non_blocking=True)
                # Waits asleep: the core is for another thread's packing.
                done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                done.record(stream)
                done.synchronize()
        finally:
            self._streams.put(stream)
        return host

    def _computed(self, numbers: torch.Tensor, codes: torch.Tensor, rows: int) -> torch.Tensor:
        """On a GPU, nothing is awaited: torch keeps memory, pinned or not, for as long as a stream uses it."""
        there = (part.to(self._device, non_blocking=True) for part in (numbers, codes))
        return self._program(*there)[:rows]

    def _packed(
        self, columns: Mapping[str, NDArray[np.generic]], names: Sequence[str], dtype: torch.dtype
    ) -> torch.Tensor:
        """[names, rows and some to whole blocks], the last row repeated."""
        import torch

        from pipelines.scoring.torch_operators import BLOCK

        rows = len(next(iter(columns.values())))
        shape = (len(names), -(-rows // BLOCK) * BLOCK)
        packed = torch.empty(shape, dtype=dtype, pin_memory=self._cuda and bool(names))
        for line, name in zip(packed.numpy(), names, strict=True):
            line[:rows] = columns[name]
            line[rows:] = line[rows - 1]
        return packed

    def _forget(self) -> None:
        import torch

        if self._cuda:
            torch.cuda.empty_cache()

"""One ONNX graph on ONNX Runtime's CPU provider, set up so that a row's score is the same bytes whatever is beside it.

ONNX Runtime could split one call over several threads. Here each call keeps to its caller's thread, and several calls
run at once: no operator waits for another thread, which made the flights' student 1.5 to 1.8 times as fast on two
cores, and no sum depends on how many threads there are (200 trees over two threads gave other last bits for batches of
33 rows and fewer). Nor has a session threads to lose in a fork.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORE = "score"
#: Rows are padded to a multiple of it: ONNX Runtime has kernels of their own for a single row and for what is left of
#: a vector, and some of them round otherwise.
_BLOCK = 64
#: What runtimes say where there was no memory: ONNX Runtime in front, then torch, which has several classes for it.
_NO_MEMORY = (
    *("Failed to allocate memory", "bad_alloc", "bad allocation"),
    *("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED"),
)


class Unsupported(ValueError):
    """A graph has what a session does not compute; the text says what, and what helps."""


class Session:
    """Scores of columns. May be called from several threads at once."""

    def __init__(self, model: bytes, *, keep_memory: bool = True) -> None:
        """Loads a graph.

        Args:
            keep_memory: whether what a call took is kept for the next one, which makes it a tenth faster.

        Raises:
            ValueError: ONNX Runtime cannot load it.
            MemoryError: there is not enough to load it.
        """
        import onnxruntime

        self._model = model
        self.keeps_memory = keep_memory
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = keep_memory
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what it would log is in the error that it raises
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class of their own
            if_memory(error)
            raise ValueError(f"ONNX Runtime cannot load the graph: {error}") from None
        self.inputs: dict[str, str] = {told.name: told.type for told in self._session.get_inputs()}
        """Type by name, such as `tensor(float)`."""

    def lean(self) -> Session:
        """The same graph in a session that keeps no memory; dropping this one gives back what it kept."""
        return Session(self._model, keep_memory=False)

    def run(self, columns: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Scores [n] or [n, classes], n at least 1.

        Args:
            columns: [n] a graph's input.

        Raises:
            MemoryError: there is not enough.
        """
        rows = len(next(iter(columns.values())))
        padded = -(-rows // _BLOCK) * _BLOCK
        fed = columns if padded == rows else {name: _pad(values, padded) for name, values in columns.items()}
        try:
            scores: NDArray[np.float32] = self._session.run([SCORE], fed)[0]
        except Exception as error:
            if_memory(error)
            raise
        return scores[:rows]


def if_memory(error: Exception) -> None:
    """Raises MemoryError where a runtime says in words that there was no memory."""
    if any(word in str(error) for word in _NO_MEMORY):
        raise MemoryError(str(error)) from None


def _pad(values: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    padded = np.empty(rows, values.dtype)
    padded[: len(values)] = values
    padded[len(values) :] = values[-1]
    return padded

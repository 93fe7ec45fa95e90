"""Memory that is too small for a batch: half of it, once, from the beginning; then an error."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.errors import TrainingError
from pipelines.training import loop
from pipelines.training.checkpoint import Store
from pipelines.training.feed import Batch
from pipelines.training.session import Session
from pipelines.training.shortage import out_of_memory
from tests.unit.training.test_loop import Line, rows, schedule, session

STEP = loop.Step


def short_of(monkeypatch: pytest.MonkeyPatch, limit: int, error: Exception) -> list[int]:
    """From its second step on, a batch past so many rows is too large; gives the batches that were tried."""
    tried: list[int] = []

    class Short(STEP):
        def __call__(self, batch: Batch) -> torch.Tensor:
            tried.append(len(batch))
            if len(batch) > limit and len(tried) > 1:
                raise error
            return super().__call__(batch)

    monkeypatch.setattr(loop, "Step", Short)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_half_a_batch_trains_as_if_the_spec_had_said_so(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    expected = Line()
    loop.train(session("binary"), expected, rows(100), rows(50), schedule(batch_rows=16))
    heard: list[dict[str, float]] = []
    told, net = session("binary", lambda values: heard.append(dict(values))), Line()
    tried = short_of(monkeypatch, 16, error)
    loop.train(told, net, rows(100), rows(50), schedule())
    assert tried[:3] == [32, 32, 16]
    assert torch.equal(net.weight, expected.weight)
    assert heard[0] == {"epoch": 0, "line_batch_rows": 16}
    assert told.facts == {"line_batch_rows_halved_to": 16}


def test_memory_that_is_too_small_for_half_as_well_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    short_of(monkeypatch, 8, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(
        TrainingError, match="line with 16 rows a batch, half of what it began with: memory is too small"
    ):
        loop.train(session("binary"), Line(), rows(100), rows(50), schedule())


def test_a_halved_batch_outlives_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kept() -> Session:
        return dataclasses.replace(session("binary"), store=Store(tmp_path, "key"))

    short_of(monkeypatch, 8, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingError):
        loop.train(kept(), Line(), rows(100), rows(50), schedule())
    tried = short_of(monkeypatch, 16, torch.OutOfMemoryError("CUDA out of memory"))
    loop.train(kept(), Line(), rows(100), rows(50), schedule())
    assert max(tried) == 16


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    cases: list[tuple[Any, bool]] = [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (TrainingError("out of memory"), False),
        (ValueError("out of memory"), False),
    ]
    assert [out_of_memory(error) for error, _ in cases] == [wanted for _, wanted in cases]

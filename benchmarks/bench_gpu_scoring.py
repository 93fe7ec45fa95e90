"""Scoring on a GPU: the engine from columns in memory to scores in memory, against what its bus carries.

The limit is the bus: the same bytes, 70 columns of float32, copied from pinned memory, tile by tile. Prediction, not
measured: such copies ran at 48 GB/s on an H100, 170 M rows/s, 0.38 ms a tile of 65,536 rows. On the GPU a tile's values
are read and written some twenty times, 0.1 ms, and its products are 0.04 ms at 60 TFLOP/s of float32: both lie beside
the next tile's copy. What does not is the host: some 60 calls of torch, 0.3 to 0.5 ms a tile that one thread at a time
can spend, and packing, which reads and writes the columns at 5 to 8 GB/s a core: 2.3 to 3.7 ms a tile, over 16 cores
0.15 to 0.23. So 0.5 to 0.7 of the limit, 85 to 120 M rows/s, with 16 cores for one GPU; with 2 cores, packing would let
through 0.1 to 0.2. Text costs its encoding besides, on the processor either way.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from benchmarks.harness import Result, seconds
from pipelines.machine import usable_cores
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase
from pipelines.training.job import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS, _ROWS, _TRAIN = 70, 4_000_000, 20_000
_REPEATS = 5
#: How far apart the two devices' int8 scores may be: a row in a hundred may be a step away.
_LAST_BITS, _STEP = 1e-5, 0.02


def measure() -> list[Result]:
    """Rows a second, the best of five; nothing where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        print("no GPU", file=sys.stderr)
        return []
    from pipelines.training import entry

    spec, generator = _spec(), np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        data.mkdir()
        for part, count in (("train", _TRAIN), ("validation", 4000), ("holdout", 4000)):
            _rows(count, generator).write_parquet(data / f"{part}.parquet")
        entry.run(Job(spec=spec, data=data, out=out, threads=usable_cores()), lambda _: None)
        return _measured(spec, out, _rows(_ROWS, generator).drop("label"))


def _spec() -> UseCase:
    """Numbers only, and the student as it is by default: speed does not depend on what it learned."""
    names = [f"n{index:02d}" for index in range(_COLUMNS)]
    columns: dict[str, Any] = {"id": {"type": "string", "nullable": False}, "outcome": {"type": "float"}}
    rows = {
        "path": "rows/{partition}.csv",
        "key": ["id"],
        "columns": columns | {name: {"type": "float"} for name in names},
    }
    teacher = {"k": 2, "width": 32, "depth": 1, "epochs": 1}
    return UseCase.model_validate(
        {
            "name": "bench",
            "title": "Bench",
            "description": "Seventy made-up numbers.",
            "owner": "benchmarks",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": rows, "labels": rows},
            "label": {"column": "outcome", "task": "binary", "positive": {"above": 0}},
            "features": {"numeric": names, "categorical": []},
            "training": {"teacher": teacher, "student": {"epochs": 1}, "sensitive_layers": "int8"},
            "gates": {"metric": "auc", "bound": 0.5},
        }
    )


def _rows(count: int, generator: np.random.Generator) -> pl.DataFrame:
    """Float32 as features are built, a hundredth of each missing."""
    values = generator.standard_normal((_COLUMNS, count), np.float32)
    label = (values[:3].sum(0) + generator.standard_normal(count, np.float32) > 1).astype(np.float32)
    for column in values:
        column[generator.integers(0, count, count // 100)] = np.nan
    return pl.DataFrame({f"n{index:02d}": column for index, column in enumerate(values)} | {"label": label})


def _measured(spec: UseCase, out: Path, rows: pl.DataFrame) -> list[Result]:
    gpu, cpu = (_engine(spec, out, device) for device in ("cuda", "cpu"))
    _check(gpu.score(rows), cpu.score(rows))  # the first calls pay for what torch loads and pins
    ours = _ROWS / seconds(lambda: gpu.score(rows), repeats=_REPEATS)
    processor = _ROWS / seconds(lambda: cpu.score(rows))
    limit, name = _bus(gpu.tile_rows)
    text = f"{_ROWS:,} rows of {_COLUMNS} float32 numbers, int8, tiles of {gpu.tile_rows:,}, {name}"
    cores = f"{usable_cores()} cores"
    return [
        Result(
            name="score_gpu_vs_pinned_limit",
            ours=ours,
            peer=limit,
            unit="rows/s",
            goal=0.5,
            note=f"{text}, {cores}; peer: the same bytes copied from pinned memory, "
            f"{limit * 4 * _COLUMNS / 1e9:.1f} GB/s",
        ),
        Result(
            name="score_gpu_vs_cpu",
            ours=ours,
            peer=processor,
            unit="rows/s",
            goal=None,
            note=f"{text}; peer: the engine on {cores}",
        ),
    ]


def _engine(spec: UseCase, out: Path, device: Literal["cpu", "cuda"]) -> Engine:
    return Engine(out, tile_rows=spec.scoring.tile_rows, device=device)


def _check(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    gap = np.abs(ours - theirs)
    assert (gap > _LAST_BITS).mean() < 0.01, "rows that a rounding moved"
    assert gap.max() < _STEP


def _bus(tile: int) -> tuple[float, str]:
    """Rows a second that the bus carries, from one pinned tile into one on the GPU, and the GPU's name."""
    import torch

    shape, times = (_COLUMNS, tile), -(-_ROWS // tile)
    host, there = torch.ones(shape).pin_memory(), torch.empty(shape, device="cuda")

    def copies() -> None:
        for _ in range(times):
            there.copy_(host, non_blocking=True)
        torch.cuda.synchronize()

    copies()
    return tile * times / seconds(copies, repeats=_REPEATS), torch.cuda.get_device_name()

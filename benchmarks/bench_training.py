"""Training: how the loop is fed on a CPU, how much memory the rows take, and how fast a GPU is driven.

Limits and predictions, written before measuring.

CPU feeding: the limit is a loop of forward, backward and step alone. A batch of 1024 rows is 150 KB to be gathered,
some 0.1 ms, and hiding categories draws 6,000 numbers, another 0.1 ms; a step of the teacher takes some 60 ms and of
the student 3 ms. Prediction: well under 1% outside for the teacher, near 5% for the student. Streamed, a window is read
by a thread which takes a core's time from the steps: under 5% on two cores, as 1 M rows are encoded in some 2 s.

Measured: the teacher 1.7 to 3%, the student 10 to 13% (missed). Of 2.3 ms a batch, 2.05 are its step. Outside are 0.144
to gather rows that no cache holds (0.024 when one does), 0.088 to hide categories, 0.036 to read the loss, 0.045 of
each batch's part of judging. Tried: 16 batches gathered at once, 11.0%; reading without a sum over processes and hiding
in place, 11.4%; the next batch gathered by a thread, fewer percent outside and no shorter epoch, for on two cores it
takes from the step what it spares the loop. One row of 124 bytes in the place of four tensors would leave some 8%.

Memory: the limit of a resident table is its tensors, 1x. Read whole (1.2x raw, float64 on the way) and encoded with
temporaries: prediction 2.5x to 3x. Streamed: two windows whatever the length, so 1.0x between 1x and 4x the rows; the
targets add 4 bytes a row.

GPU (an H100): a row of TabM's default size (k=32, 3 x 512; 24 numbers and 6 categories of 5 as 54 inputs) costs
3 * 2 * 32 * 512 * (54 + 2 * 512) = 106 MFLOP; at some 700 TFLOP/s of measured bf16 products, the limit is 6.6 M rows/s.
Between the products lie activations of 32 * 512 * 2 = 32 KB a layer and row that are written and read several times in
forward and backward: at 3 TB/s some 0.4 MB a row are 0.13 us beside 0.15 us of products. Prediction: 1.6 to 2.6 M
rows/s (25-40% of the limit), 6 to 9 times the DataLoader's loop, which is held up by collating rows one by one.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Result, seconds

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipelines.spec import UseCase
    from pipelines.training.feed import Feed
    from pipelines.training.prepare import Encoded, Preparation
    from pipelines.training.session import Session

_NEEDED = ("torch", "pyarrow", "numpy", "sklearn", "tabm", "rtdl_num_embeddings", "pydantic", "yaml")
_NUMERIC, _CATEGORICAL, _WORDS = 24, 6, 3
_ROWS, _BATCH = 60_000, 1024
_MEMORY_ROWS = 400_000
_WINDOW = 100_000
_GPU_ROWS, _GPU_BATCH, _PEER_BATCH, _PEER_STEPS = 4_000_000, 16_384, 4096, 60


def measure() -> list[Result]:
    """Feeding and memory on this machine's processor, then on its GPU when it has one."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f"this benchmark needs {', '.join(missing)}")
    import torch

    results = _feeding() + _memory()
    if not torch.cuda.is_available():
        print("no GPU")
        return results
    return results + _gpu()


# --- what is trained on


def _spec(**training: Any) -> UseCase:
    from pipelines.spec import UseCase

    numeric = [f"n{i}" for i in range(_NUMERIC)]
    categorical = [f"c{i}" for i in range(_CATEGORICAL)]
    columns: dict[str, Any] = {"id": {"type": "string", "nullable": False}, "outcome": {"type": "float"}}
    columns |= {name: {"type": "float"} for name in numeric} | {name: {"type": "string"} for name in categorical}
    rows = {"path": "rows/{partition}.csv", "key": ["id"], "columns": columns}
    return UseCase.model_validate(
        {
            "name": "bench",
            "title": "Bench",
            "description": "A synthetic table.",
            "owner": "benchmarks",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": rows, "labels": rows},
            "label": {"column": "outcome", "task": "binary", "positive": {"above": 0}},
            "features": {"numeric": numeric, "categorical": categorical},
            "training": training,
            "gates": {"metric": "auc", "bound": 0.5},
        }
    )


def _write(path: Path, rows: int) -> None:
    """A Parquet file as training sets are: doubles, words, a label; row groups of 20,000."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(7)
    words = np.array([f"word{i}" for i in range(_WORDS)])
    writer = None
    for _ in range(-(-rows // 20_000)):
        numbers = draw.normal(size=(20_000, _NUMERIC))
        table = pa.table(
            {f"n{i}": numbers[:, i] for i in range(_NUMERIC)}
            | {f"c{i}": draw.choice(words, 20_000) for i in range(_CATEGORICAL)}
            | {"label": (numbers[:, :3].sum(1) + draw.normal(size=20_000) > 1).astype(float)}
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _encoded(rows: int) -> tuple[Preparation, Encoded, np.ndarray]:
    """Rows as the networks see them, made directly: what a table of millions would be encoded to."""
    import numpy as np

    from pipelines.training.prepare import FIRST, Encoded, Preparation

    draw = np.random.default_rng(7)
    ones = np.ones(_NUMERIC, np.float32)
    preparation = Preparation(
        varying=tuple(range(_NUMERIC)),
        flagged=(),
        centre=0 * ones,
        low=-3 * ones,
        high=3 * ones,
        scale=ones,
        width=ones,
        vocabularies=(tuple(f"word{i}" for i in range(_WORDS)),) * _CATEGORICAL,
    )
    numeric = draw.standard_normal((rows, _NUMERIC), np.float32)
    codes = draw.integers(FIRST, FIRST + _WORDS, (rows, _CATEGORICAL))
    target = (numeric[:, :3].sum(1) > 0).astype(np.float32)
    return preparation, Encoded(numeric, np.zeros((rows, 0), np.float32), codes), target


def _session(spec: UseCase, device: torch.device, listen: Callable[[Any], None] = lambda _: None) -> Session:
    import torch

    from pipelines.training.job import Job
    from pipelines.training.session import Session

    job = Job(spec=spec, data=Path("unused"), out=Path("unused"))
    return Session(job=job, device=device, threads=torch.get_num_threads(), progress=listen)


# --- the loop's time on a processor


def _feeding() -> list[Result]:
    import torch

    from pipelines.training import prepare
    from pipelines.training.data import read
    from pipelines.training.feed import Resident
    from pipelines.training.networks import Student, Teacher
    from pipelines.training.stream import Streamed

    cpu = torch.device("cpu")
    spec = _spec(teacher={"k": 4, "width": 128, "depth": 2}, student={"widths": [128, 64]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        _write(path, _ROWS)
        table = read(spec, path)
        preparation = prepare.fit(table)
        encoded, target = preparation.encode(table), torch.from_numpy(table.label)
        resident = Resident.of(encoded, target, None, cpu)
        streamed = Streamed.of(spec, path, preparation, target, None, cpu, window_rows=20_000)
        teacher = Teacher(spec.training.teacher, preparation, encoded, 1)
        student = Student(spec.training.student, preparation, 1)
        found = []
        for name, net, rows in (
            ("teacher", teacher, resident),
            ("student", student, resident),
            ("teacher_streamed", teacher, streamed),
        ):
            whole, steps = _loop_time(_session(spec, cpu), net, rows)
            found.append(
                Result(
                    name=f"train_cpu_outside_steps_{name}",
                    ours=whole - steps,
                    peer=0.05 * whole,
                    unit="s",
                    goal=1,
                    note=f"{100 * (1 - steps / whole):.1f}% of an epoch's {whole:.2f} s outside forward, backward and "
                    f"step; peer: 5% of it; {_ROWS:,} rows, batch {_BATCH}, {torch.get_num_threads()} threads",
                )
            )
    return found


def _loop_time(session: Session, net: torch.nn.Module, rows: Feed) -> tuple[float, float]:
    """Seconds of one epoch in the loop, and of them inside forward, backward and step; validation is 64 rows."""
    from pipelines.training import loop
    from pipelines.training.feed import Resident

    few = next(iter(rows.tiles(64)))
    took = []
    with _clocked() as inside:
        for _ in range(4):  # the first time pays for imports; the quickest was disturbed least
            inside.clear()
            begun = time.perf_counter()
            loop.train(session, net, rows, Resident(few), _schedule(1, _BATCH))
            took.append((time.perf_counter() - begun, sum(inside)))
    return min(took)


@contextmanager
def _clocked() -> Iterator[list[float]]:
    """The seconds of each step: from the batch and its codes to the changed weights."""
    from pipelines.training.step import Step

    plain, took = Step.improve, []

    def improve(self: Step, batch: Any, codes: Any) -> Any:
        begun = time.perf_counter()
        try:
            return plain(self, batch, codes)
        finally:
            took.append(time.perf_counter() - begun)

    Step.improve = improve  # type: ignore[method-assign]
    try:
        yield took
    finally:
        Step.improve = plain  # type: ignore[method-assign]


def _schedule(epochs: int, batch_rows: int) -> Any:
    from pipelines.training.loop import Schedule

    return Schedule(
        name="bench",
        epochs=epochs,
        patience=epochs,
        batch_rows=batch_rows,
        learning_rate=2e-3,
        weight_decay=1e-4,
        seed=7,
    )


# --- memory, each in a process of its own


def _memory() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.parquet", Path(folder) / "long.parquet"
        _write(short, _MEMORY_ROWS)
        _write(long, 4 * _MEMORY_ROWS)
        resident, tensors = _apart(_resident_peak, long)
        few, _ = _apart(_streamed_peak, short)
        many, _ = _apart(_streamed_peak, long)
    mebi = 2**20
    return [
        Result(
            name="train_memory_resident",
            ours=resident / mebi,
            peer=3 * tensors / mebi,
            unit="MiB",
            goal=1,
            note=f"{resident / tensors:.2f}x the table's tensors from reading to the end of an epoch; peer: 3x; "
            f"{4 * _MEMORY_ROWS:,} rows",
        ),
        Result(
            name="train_memory_streamed",
            ours=many / mebi,
            peer=1.2 * few / mebi,
            unit="MiB",
            goal=1,
            note=f"an epoch over {4 * _MEMORY_ROWS:,} rows; peer: 1.2x what {_MEMORY_ROWS:,} rows take; windows of "
            f"{_WINDOW:,} rows",
        ),
    ]


def _apart(call: Callable[[Path], tuple[int, int]], path: Path) -> tuple[int, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, path).result()


class _Peak:
    """Bytes of this process above those when the peak was reset. (A child's ru_maxrss begins at its parent's.)"""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def bytes(self) -> int:
        """The highest so far."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024


def _resident_peak(path: Path) -> tuple[int, int]:
    """Bytes above what the libraries take, and bytes of the tensors."""
    import torch

    from pipelines.training import prepare
    from pipelines.training.data import read
    from pipelines.training.feed import Resident

    spec = _spec()
    prepare.fit(read(spec, path, groups=[0]))
    peak = _Peak()
    table = read(spec, path)
    preparation = prepare.fit(table)
    feed = Resident.of(preparation.encode(table), torch.from_numpy(table.label), None, torch.device("cpu"))
    for _ in feed.batches(_BATCH, 1, 1):
        pass
    rows = feed.rows
    return peak.bytes(), sum(part.nbytes for part in (rows.numeric, rows.missing, rows.codes, rows.target))


def _streamed_peak(path: Path) -> tuple[int, int]:
    import torch

    from pipelines.training import prepare, stream

    spec = _spec()
    preparation = prepare.fit(stream.sample(spec, path, rows=20_000))
    rows = sum(stream.row_groups(path))
    target = torch.ones(rows)  # 4 bytes a row stay in memory, and are not counted
    peak = _Peak()
    feed = stream.Streamed.of(spec, path, preparation, target, None, torch.device("cpu"), _WINDOW)
    for _ in feed.batches(_BATCH, 1, 1):
        pass
    return peak.bytes(), 4 * rows


# --- a GPU


def _gpu() -> list[Result]:
    import torch

    from pipelines.training import loop, memory
    from pipelines.training.feed import Resident
    from pipelines.training.networks import Teacher

    gpu, name = torch.device("cuda"), torch.cuda.get_device_name()
    size = {"k": 32, "width": 512, "depth": 3, "dropout": 0.1, "embeddings": "none", "batch_rows": "auto"}
    spec = _spec(teacher=size)
    preparation, encoded, target = _encoded(_GPU_ROWS)

    def network() -> torch.nn.Module:
        torch.manual_seed(7)
        return Teacher(spec.training.teacher, preparation, encoded, 1).to(gpu)

    rows = Resident.of(encoded, torch.from_numpy(target), None, gpu)
    ends: list[float] = []

    def listen(values: Any) -> None:
        if any(key.endswith("_validation") for key in values):
            ends.append(time.perf_counter())

    session = _session(spec, gpu, listen)
    automatic = memory.batch_rows(session, network(), rows)
    # The first epoch compiles and captures; an epoch ends when its validation loss was read.
    loop.train(session, network(), rows, Resident(rows.rows[:4096]), _schedule(3, _GPU_BATCH))
    ours = _GPU_ROWS / min(later - earlier for earlier, later in itertools.pairwise(ends))
    peer = _dataloader_rows(network(), encoded, target)
    flops, products = _flops_a_row(network(), rows.rows[:64]), _matrix_flops()
    what = f"k=32, 3 x 512, {_NUMERIC} numeric + {_CATEGORICAL} categorical, batch {_GPU_BATCH}, bf16, {name}"
    return [
        Result(
            name="train_gpu_vs_dataloader",
            ours=ours,
            peer=peer,
            unit="rows/s",
            goal=6,
            note=f"{what}; peer: DataLoader with 8 workers, pinned, bf16, fused AdamW, batch {_PEER_BATCH}",
        ),
        Result(
            name="train_gpu_rows",
            ours=ours,
            peer=1.6e6,
            unit="rows/s",
            goal=1,
            note=f"{what}; peer: the aim on an H100; batch_rows auto gives {automatic}",
        ),
        Result(
            name="train_gpu_of_matrix_limit",
            ours=ours,
            peer=products / flops,
            unit="rows/s",
            goal=0.4,
            note=f"{what}; peer: {flops / 1e6:.0f} MFLOP a row at {products / 1e12:.0f} TFLOP/s of bf16 products of "
            "8192 x 8192",
        ),
    ]


def _dataloader_rows(net: torch.nn.Module, encoded: Encoded, target: np.ndarray) -> float:
    """Rows a second of the loop that one writes first: a DataLoader over rows, eager, bf16, fused AdamW."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from pipelines.training.step import losses

    numbers, codes = torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.codes)
    table = TensorDataset(numbers, codes, torch.from_numpy(target))
    loader = DataLoader(table, _PEER_BATCH, shuffle=True, num_workers=8, pin_memory=True, drop_last=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, fused=True)
    nothing = torch.zeros(_PEER_BATCH, 0, device="cuda")
    net.train()
    begun = 0.0
    for number, batch in enumerate(loader):
        if number == _PEER_STEPS // 3:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        if number == _PEER_STEPS:
            break
        numeric, words, label = (part.to("cuda", non_blocking=True) for part in batch)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            logits = net(numeric, nothing, words)
        losses("binary", logits.float(), label).backward()
        optimizer.step()
    torch.cuda.synchronize()
    return (_PEER_STEPS - _PEER_STEPS // 3) * _PEER_BATCH / (time.perf_counter() - begun)


def _flops_a_row(net: torch.nn.Module, batch: Any) -> float:
    """Of the products of a forward and a backward pass, counted operator by operator."""
    from torch.utils.flop_counter import FlopCounterMode

    from pipelines.training.step import losses

    with FlopCounterMode(display=False) as counter:
        losses("binary", net(batch.numeric, batch.missing, batch.codes), batch.target).backward()
    return float(counter.get_total_flops()) / len(batch)


def _matrix_flops() -> float:
    """Floating-point operations a second of large bf16 products on this GPU."""
    import torch

    side, times = 8192, 20
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(times):
            a @ b
        torch.cuda.synchronize()

    products()
    return 2 * side**3 * times / seconds(products)


if __name__ == "__main__":  # on a machine with little installed: the results as lines of JSON
    for result in measure():
        print(json.dumps(result.as_dict()))

"""A streamed table: each row once, in an order that can be entered anywhere, in memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from pipelines.errors import TrainingError
from pipelines.training import loop, prepare, stream
from pipelines.training.data import read
from pipelines.training.feed import Batch, Resident
from pipelines.training.job import Job
from pipelines.training.networks import Student
from pipelines.training.session import Session
from pipelines.training.stream import Streamed
from tests.unit.training.conftest import make_columns, make_spec

CPU = torch.device("cpu")
ROWS, GROUP, WINDOW = 1000, 64, 200
SPEC = make_spec("binary")


def write(path: Path, rows: int = ROWS, group: int = GROUP, seed: int = 0) -> Path:
    pq.write_table(pa.table(make_columns("binary", rows, seed)), path, row_group_size=group)
    return path


def feeds(path: Path, **changed: Any) -> tuple[Streamed, Resident]:
    """The same rows, streamed and resident; weights tell rows apart."""
    table = read(SPEC, path)
    preparation = prepare.fit(table)
    target, weight = torch.from_numpy(table.label), torch.arange(len(table), dtype=torch.float32)
    arguments = {"window_rows": WINDOW} | changed
    return (
        Streamed.of(SPEC, path, preparation, target, weight, CPU, **arguments),
        Resident.of(preparation.encode(table), target, weight, CPU),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stream") / "train.parquet")


def ids(batches: list[Batch]) -> list[int]:
    return [int(number) for batch in batches for number in _numbers(batch)]


def _numbers(batch: Batch) -> Tensor:
    assert batch.numbers is not None
    return batch.numbers


def same(a: Batch, b: Batch) -> bool:
    pairs = ((a.numeric, b.numeric), (a.missing, b.missing), (a.codes, b.codes), (a.target, b.target))
    return all(torch.equal(left, right) for left, right in pairs) and torch.equal(a.weight, b.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_rows", [32, 150, 450, 5000])
def test_an_epoch_has_each_row_once_with_its_own_features_target_and_weight(file: Path, batch_rows: int) -> None:
    streamed, resident = feeds(file)
    batches = list(streamed.batches(batch_rows, 3, 1))
    assert [len(batch) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    assert sorted(ids(batches)) == list(range(ROWS))
    for batch in batches:
        assert same(batch, resident.rows[_numbers(batch)])


def test_epochs_and_seeds_have_orders_of_their_own_and_the_same_ones_again(file: Path) -> None:
    streamed, _ = feeds(file)
    first = ids(list(streamed.batches(64, 3, 1)))
    assert first == ids(list(streamed.batches(64, 3, 1)))
    assert first != ids(list(streamed.batches(64, 3, 2)))
    assert first != ids(list(streamed.batches(64, 4, 1)))
    assert len({number // GROUP for number in first[:64]}) >= 3, "a batch mixes row groups"


@pytest.mark.parametrize("start", [0, 1, 5, 10, 16])
def test_an_epoch_that_is_entered_in_the_middle_goes_on_as_it_would_have(file: Path, start: int) -> None:
    streamed, _ = feeds(file)
    whole, rest = list(streamed.batches(60, 3, 2)), list(streamed.batches(60, 3, 2, start))
    assert len(rest) == len(whole) - start > 0
    assert all(same(left, right) for left, right in zip(whole[start:], rest, strict=True))


def test_windows_that_were_passed_are_not_read_again(file: Path, tmp_path: Path) -> None:
    streamed, _ = feeds(file)
    whole = list(streamed.batches(100, 3, 1))
    # The first row group of the epoch's order is made unreadable: only who begins at the start meets it.
    torn = Path(tmp_path / "train.parquet")
    torn.write_bytes(file.read_bytes())
    group = int(_numbers(whole[0])[0]) // GROUP
    spoil(torn, group)
    cut = replace(streamed, path=torn)
    with pytest.raises(TrainingError, match=r"train\.parquet: not a readable Parquet file"):
        list(cut.batches(100, 3, 1))
    assert ids(list(cut.batches(100, 3, 1, start=5))) == ids(whole[5:])


def spoil(path: Path, group: int) -> None:
    """Overwrites the column chunks of a row group; the footer stays."""
    metadata = pq.read_metadata(path).row_group(group)
    raw = bytearray(path.read_bytes())
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        begin = column.dictionary_page_offset or column.data_page_offset
        raw[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(raw))


def test_the_shards_of_all_processes_are_the_batch(file: Path) -> None:
    streamed, _ = feeds(file)
    whole = list(streamed.batches(77, 3, 1))
    shards = [list(streamed.batches(77, 3, 1, rank=rank, size=3)) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [shards[rank][step] for rank in range(3)]
        assert ids(parts) == ids([batch])
        assert [part.share * len(batch) / 3 for part in parts] == pytest.approx([len(part) for part in parts])
    tiles = [tile.numeric for rank in range(3) for tile in streamed.tiles(100, rank, 3)]
    assert sum(len(tile) for tile in tiles) == ROWS
    assert torch.equal(tiles[0], next(streamed.tiles(100)).numeric)


def test_tiles_come_in_the_files_order(file: Path) -> None:
    streamed, resident = feeds(file)
    for mine, theirs in zip(streamed.tiles(90), resident.tiles(90), strict=True):
        assert same(mine, theirs)


def test_rows_can_be_taught_another_target(file: Path) -> None:
    streamed, _ = feeds(file)
    soft = torch.rand(ROWS)
    taught = streamed.taught(soft, None)
    assert torch.equal(taught.target, soft)
    assert taught.weight is None
    assert all(
        torch.equal(batch.target, soft[_numbers(batch)]) and batch.weight is None for batch in taught.batches(128, 1, 1)
    )


def test_a_torn_file_is_an_error_where_the_rows_are_asked_for(file: Path, tmp_path: Path) -> None:
    streamed, _ = feeds(file)
    torn = tmp_path / "train.parquet"
    torn.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"train\.parquet: not a readable Parquet file"):
        next(replace(streamed, path=torn).batches(64, 1, 1))
    with pytest.raises(TrainingError, match="not a readable Parquet file"):
        Streamed.of(SPEC, torn, streamed.preparation, streamed.targets, None, CPU)
    write(torn, rows=ROWS + 1, seed=1)
    with pytest.raises(TrainingError, match="1001 rows, 1000 targets"):
        Streamed.of(SPEC, torn, streamed.preparation, streamed.targets, None, CPU)
    with pytest.raises(TrainingError, match="row group 15 has 41 rows, and had 40"):
        list(replace(streamed, path=torn).batches(64, 1, 1))
    assert_no_reader()


def assert_no_reader() -> None:
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("reader of")] == []


def test_leaving_early_leaves_no_thread(file: Path) -> None:
    streamed, _ = feeds(file)
    for batch in streamed.batches(32, 1, 1):
        assert len(batch) == 32
        assert any(thread.name == "reader of train.parquet" for thread in threading.enumerate())
        break
    assert_no_reader()
    batches = streamed.batches(32, 1, 1)
    next(batches)

    def fail() -> None:
        for _ in batches:
            raise ValueError("the step failed")

    with pytest.raises(ValueError, match="the step failed"):
        fail()
    batches.close()  # type: ignore[attr-defined]
    assert_no_reader()


def test_a_sample_is_drawn_by_row_groups_and_is_the_same_again(file: Path) -> None:
    part = stream.sample(SPEC, file, rows=200)
    assert len(part) in (4 * GROUP, 3 * GROUP + ROWS % GROUP)
    assert np.array_equal(part.label, stream.sample(SPEC, file, rows=200).label)
    everything = read(SPEC, file)
    assert np.array_equal(stream.sample(SPEC, file).numeric, everything.numeric, equal_nan=True)
    assert np.array_equal(read(SPEC, file, features=False).label, everything.label)


def test_a_network_learns_as_well_from_a_stream_as_from_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", rows=3000, group=100)
    streamed, resident = feeds(path, window_rows=1000)
    judged = read(SPEC, write(tmp_path / "validation.parquet", rows=1000, seed=7))
    validation = Resident.of(streamed.preparation.encode(judged), torch.from_numpy(judged.label), None, CPU)
    job = Job(spec=SPEC, data=tmp_path, out=tmp_path)
    session = Session(job=job, device=CPU, threads=1, progress=lambda _: None)
    found = []
    for rows in (streamed, resident):
        torch.manual_seed(1)
        net = Student(SPEC.training.student, streamed.preparation, 1)
        schedule = loop.Schedule(
            name="net", epochs=5, patience=5, batch_rows=64, learning_rate=0.01, weight_decay=0.0, seed=1
        )
        loop.train(session, net, rows.taught(rows.target, None), validation, schedule)
        found.append(loop.validation_loss("binary", loop.predict("binary", net, validation), validation.target))
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert found[0] < 0.45, "a constant has 0.69"


_EPOCH = """
import sys, torch
from pathlib import Path
from pipelines.training import prepare, stream
from tests.unit.training.test_stream import CPU, SPEC
def kib(name):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1])
path = Path(sys.argv[1])
torch.set_num_threads(1)
preparation = prepare.fit(stream.sample(SPEC, path, rows=20_000))
rows = sum(stream.row_groups(path))
feed = stream.Streamed.of(SPEC, path, preparation, torch.zeros(rows), None, CPU, window_rows=40_000)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kib("VmRSS")
assert sum(len(batch) for batch in feed.batches(2048, 1, 1)) == rows
print(kib("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    short, long = 100_000, 800_000
    grown = {}
    once = pa.table(make_columns("binary", 20_000, 1))
    for rows in (short, long):
        path = tmp_path / f"{rows}.parquet"
        with pq.ParquetWriter(path, once.schema) as writer:
            for _ in range(rows // len(once)):
                writer.write_table(once)
        done = subprocess.run([sys.executable, "-c", _EPOCH, str(path)], capture_output=True, text=True, check=True)
        grown[rows] = int(done.stdout) / 1024
    # Encoded, a row has 3 numbers, an indicator and two codes, and its number: 40 bytes, 30 MiB in the long file.
    assert grown[short] > 1, f"the windows themselves are seen: {grown}"
    assert grown[long] - grown[short] < 12, f"MiB of an epoch by rows: {grown}"

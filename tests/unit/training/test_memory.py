"""What fits: rows in memory or streamed, and the automatic batch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.spec import UseCase
from pipelines.training import entry, memory, stream
from pipelines.training.feed import Batch, Resident
from pipelines.training.job import Job
from pipelines.training.session import Session
from tests.unit.training.conftest import ROWS, make_spec, write

CPU = torch.device("cpu")


def parts(spec: UseCase, folder: Path) -> tuple[UseCase, Path, Path, torch.device]:
    data = write(folder, "binary")
    return spec, data / "train.parquet", data / "validation.parquet", CPU


def test_the_spec_may_decide_where_the_rows_lie(tmp_path: Path) -> None:
    assert memory.streams(*parts(make_spec("binary", memory="stream"), tmp_path))
    assert not memory.streams(*parts(make_spec("binary", memory="resident"), tmp_path))


def test_rows_are_streamed_when_three_copies_of_them_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("binary")
    # Three numbers and indicators, a target and a weight of 4 bytes, two codes of 8.
    needed = (ROWS["train"] + ROWS["validation"]) * 48
    assert memory.encoded_bytes(spec, ROWS["train"] + ROWS["validation"]) == needed
    arguments = parts(spec, tmp_path)
    monkeypatch.setattr(memory, "available_memory", lambda: int(needed * 3 / 0.8) + 1)
    assert not memory.streams(*arguments)
    monkeypatch.setattr(memory, "available_memory", lambda: int(needed * 3 / 0.8) - 1)
    assert memory.streams(*arguments)


def session(**teacher: Any) -> Session:
    spec = make_spec("binary", teacher={"k": 2, "width": 8, "depth": 1, **teacher})
    job = Job(spec=spec, data=Path("unused"), out=Path("unused"))
    return Session(job=job, device=CPU, threads=1, progress=lambda _: None)


def rows(count: int) -> Resident:
    nothing = torch.zeros(count, 0)
    return Resident(Batch(nothing, nothing, nothing.long(), torch.zeros(count)))


@pytest.mark.parametrize(("count", "batch"), [(100, 256), (32_767, 256), (32_768, 512), (10**5, 1024), (10**7, 2048)])
def test_an_automatic_batch_on_a_processor_leaves_64_steps_an_epoch(count: int, batch: int) -> None:
    assert memory.batch_rows(session(batch_rows="auto"), torch.nn.Linear(1, 1), rows(count)) == batch
    assert memory.batch_rows(session(batch_rows=777), torch.nn.Linear(1, 1), rows(count)) == 777


def test_an_automatic_batch_on_a_gpu_is_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    # The rule alone: what fits is decided by the real steps of `_fits`, which need a GPU.
    tried: list[int] = []

    def fits(session: Session, net: torch.nn.Module, sample: Batch, count: int) -> bool:
        tried.append(count)
        return count <= 5000

    monkeypatch.setattr(memory, "_fits", fits)
    gpu: Any = SimpleNamespace(spec=session(batch_rows="auto").spec, device=torch.device("cuda"))
    assert memory.batch_rows(gpu, torch.nn.Linear(1, 1), rows(10**6)) == 4096
    assert tried == [512, 1024, 2048, 4096, 8192]
    assert memory.batch_rows(gpu, torch.nn.Linear(1, 1), rows(70_000)) == 1024, "64 steps an epoch"


def test_trying_a_step_leaves_the_network_as_it_was() -> None:
    class Rows(torch.nn.Linear):
        def forward(self, numeric: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(numeric)[:, :, None]

    net = Rows(2, 4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    batch = Batch(torch.ones(8, 2), torch.zeros(8, 0), torch.zeros(8, 0, dtype=torch.long), torch.ones(8))
    memory._try(session(), net, batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_streamed_training_gives_a_model_like_a_resident_one(tmp_path: Path, binary: Any) -> None:
    data = write(tmp_path / "data", "binary")
    spec = make_spec("binary", memory="stream")
    entry.run(Job(spec=spec, data=data, out=tmp_path / "out", threads=1), lambda _: None)

    def aucs(folder: Path) -> dict[str, float]:
        cards = json.loads((folder / "scorecards.json").read_text())
        return {card["model"]: card["metrics"]["auc"] for card in cards}

    streamed, resident = aucs(tmp_path / "out"), aucs(binary.out)
    assert streamed.keys() == resident.keys()
    assert streamed["teacher"] == pytest.approx(resident["teacher"], abs=0.02)
    assert streamed["student_fp32"] == pytest.approx(resident["student_fp32"], abs=0.02)
    assert json.loads((tmp_path / "out" / "model.json").read_text())["rows"]["train"] == ROWS["train"]


def test_a_sample_prepares_what_the_stream_gives(tmp_path: Path) -> None:
    _, train, _, _ = parts(make_spec("binary"), tmp_path)
    assert len(stream.sample(make_spec("binary"), train, rows=10)) == ROWS["train"], "one row group, taken whole"

"""Several processes: the rows they see, what they learn, and that none waits for a dead one. Real processes, gloo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.backends.local_trainer import LocalTrainer
from pipelines.errors import TrainingError
from pipelines.training.distributed import team
from tests.unit.training.conftest import ROWS, make_spec, write
from tests.unit.training.test_resume import launch, prepare, toy


def seen(root: Path, network: str, processes: int) -> list[list[list[int]]]:
    """By process, by step: the numbers of the rows."""
    files = [root / f"rows-{network}-{rank}.jsonl" for rank in range(processes)]
    return [[json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files]


def metrics(root: Path) -> dict[str, float]:
    cards: list[dict[str, Any]] = json.loads((root / "out" / "scorecards.json").read_text("utf-8"))
    return {card["model"]: card["metrics"]["auc"] for card in cards}


def test_two_processes_share_each_epochs_rows_and_learn_what_one_learns(tmp_path: Path) -> None:
    # 1500 rows in batches of 499: three full ones, cut 249 + 250, and a last one of 3 rows, cut 1 + 2.
    quiet = {"teacher": {"k": 2, "width": 16, "depth": 1, "epochs": 3, "batch_rows": 499, "bins": 4, "dropout": 0.0}}
    one, two = prepare(tmp_path / "one", toy(**quiet)), prepare(tmp_path / "two", toy(**quiet))
    for root, processes in ((one, 1), (two, 2)):
        code, said = launch(root, how="rows", processes=processes)
        assert code == 0, said
    alone, shared = seen(one, "teacher", 1), seen(two, "teacher", 2)
    assert [len(rows) for rows in shared[0][:4]] == [249, 249, 249, 1]
    assert [mine + theirs for mine, theirs in zip(*shared, strict=True)] == alone[0], "the same batches, cut in two"
    for epoch in range(3):
        rows = [row for part in shared for step in part[4 * epoch : 4 * epoch + 4] for row in step]
        assert sorted(rows) == list(range(ROWS["train"]))
    # What differs is which categories are hidden at random (one code in a hundred), and the order of sums.
    ends = [
        [json.loads(line) for line in (root / "out" / "curves.jsonl").read_text().splitlines()] for root in (one, two)
    ]
    for mine, theirs in zip(*ends, strict=True):
        assert mine == pytest.approx(theirs, rel=0.02)
    assert metrics(two) == pytest.approx(metrics(one), abs=0.01)


def test_without_chance_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    plain = toy(
        teacher={"k": 2, "width": 16, "depth": 1, "epochs": 2, "batch_rows": 499, "bins": 4, "dropout": 0.0},
    ).model_dump(mode="json")
    plain["features"]["categorical"] = []
    spec = type(toy()).model_validate(plain)
    one, two = prepare(tmp_path / "one", spec), prepare(tmp_path / "two", spec)
    assert launch(one)[0] == 0
    assert launch(two, processes=2)[0] == 0
    for file in ("teacher.safetensors", "student.safetensors"):
        mine, theirs = load_file(one / "out" / file), load_file(two / "out" / file)
        for name, tensor in mine.items():
            assert torch.allclose(tensor, theirs[name], atol=1e-4), (file, name)


def test_a_process_that_dies_fails_the_training_instead_of_hanging_it(tmp_path: Path) -> None:
    root = prepare(tmp_path, toy())
    code, said = launch(root, "teacher", 4, "exit", processes=2)
    assert code != 0
    assert "exitcode  : 9" in said
    assert not (root / "out" / "model.json").exists()


def test_the_trainer_starts_as_many_processes_as_the_spec_says(tmp_path: Path) -> None:
    spec = toy(processes=2)
    heard: list[dict[str, float]] = []
    LocalTrainer(threads=2).train(
        spec,
        write(tmp_path / "data", "binary"),
        tmp_path / "out",
        tmp_path / "kept",
        lambda values: heard.append(dict(values)),
    )
    assert [row["epoch"] for row in heard if "teacher_validation" in row] == [1, 2, 3]
    assert json.loads((tmp_path / "out" / "model.json").read_text("utf-8"))["facts"]["processes"] == 2


def test_what_a_process_said_comes_back_whole(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "binary", train=lambda old: {**old, "label": [1.0] * len(old["label"])})
    with pytest.raises(TrainingError, match=r"^train.parquet: every label is 1. Allowed: two classes or more.$"):
        LocalTrainer(threads=2).train(toy(processes=2), data, tmp_path / "out", tmp_path / "kept", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_rendezvous_that_is_half_there_is_an_error() -> None:
    with (
        pytest.raises(TrainingError, match="WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT are not set"),
        team({"WORLD_SIZE": "2"}),
    ):
        pass
    assert make_spec("binary").training.processes == "auto"

"""Pruning: what goes, what the smaller network computes, and what it still knows."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from pipelines.training import data, entry, prepare, prune
from pipelines.training.feed import Resident
from pipelines.training.job import Job
from pipelines.training.networks import Student

from .conftest import Trained, make_spec
from .test_entry import cards


@pytest.fixture
def rows(binary: Trained) -> Resident:
    table = data.read(binary.spec, binary.data / "train.parquet")
    encoded = prepare.fit(table).encode(table)
    return Resident.of(encoded, torch.from_numpy(table.label), None, torch.device("cpu"))


@pytest.fixture
def student(binary: Trained) -> Student:
    table = data.read(binary.spec, binary.data / "train.parquet")
    made = Student(binary.spec.training.student, prepare.fit(table), 1)
    made.load_state_dict(load_file(binary.out / "student.safetensors"))
    return made


def outputs(student: Student, rows: Resident) -> torch.Tensor:
    with torch.no_grad():
        return student(rows.rows.numeric, rows.rows.missing, rows.rows.codes)


def test_the_smaller_network_computes_what_the_masked_one_does(student: Student, rows: Resident) -> None:
    kept = prune.kept_units(student, 0.4, prune.hidden_rms(student, rows))
    small = prune.without(student, kept)
    assert [tuple(layer.weight.shape) for layer in small.linears] == [(20, 20), (10, 20), (1, 10)]
    masks = []
    for layer, units in zip(student.linears, kept, strict=False):
        masks.append(torch.zeros(layer.out_features))
        masks[-1][units] = 1
    with torch.no_grad():
        x = student.features(rows.rows.numeric, rows.rows.missing, rows.rows.codes)
        for layer, mask in zip(student.linears, masks, strict=False):
            x = torch.relu(layer(x)) * mask
        masked = student.linears[-1](x)
    torch.testing.assert_close(outputs(small, rows)[:, 0], masked, rtol=1e-5, atol=1e-5)
    assert [layer.out_features for layer in student.linears] == [32, 16, 1], "the original stays as it was"


def test_units_that_never_fire_or_that_nobody_reads_go_first(student: Student, rows: Resident) -> None:
    with torch.no_grad():
        student.linears[0].bias[[1, 5]] = -1e6
        student.linears[1].weight[:, [2, 30]] = 0
        before = outputs(student, rows)
    kept = prune.kept_units(student, 4 / 32, prune.hidden_rms(student, rows))
    only_first = prune.without(student, [kept[0], torch.arange(16)])
    torch.testing.assert_close(outputs(only_first, rows), before, rtol=1e-5, atol=1e-5)
    half = prune.kept_units(student, 0.5, prune.hidden_rms(student, rows))
    assert not {1, 2, 5, 30} & set(half[0].tolist())


@pytest.mark.parametrize(("share", "left"), [(0.0, [32, 16]), (0.99, [4, 4])])
def test_a_few_units_always_stay(student: Student, rows: Resident, share: float, left: list[int]) -> None:
    kept = prune.kept_units(student, share, prune.hidden_rms(student, rows))
    assert [len(units) for units in kept] == left


def test_a_pruned_student_is_smaller_and_keeps_what_it_knows(binary: Trained, tmp_path: Path) -> None:
    told = binary.spec.training.student.model_dump() | {"prune": 0.5, "prune_epochs": 3}
    out = tmp_path / "out"
    progress: list[dict[str, float]] = []
    spec = make_spec("binary", student=told)
    entry.run(Job(spec=spec, data=binary.data, out=out, threads=1), lambda values: progress.append(dict(values)))
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(out / "student.safetensors").items()}
    assert (shapes["layers.0.weight"][0], shapes["layers.1.weight"], shapes["layers.2.weight"]) == (
        16,
        (8, 16),
        (1, 8),
    )
    about = json.loads((out / "model.json").read_text("utf-8"))
    assert about["student_widths"] == [16, 8]
    constants = {made.name: tuple(made.dims) for made in onnx.load(out / "model.onnx").graph.initializer}
    assert (16, 8) in constants.values()
    assert (out / "model.onnx").stat().st_size < (binary.out / "model.onnx").stat().st_size
    whole, small = cards(binary.out)["student_fp32"], cards(out)["student_fp32"]
    assert small.metrics["auc"] > whole.metrics["auc"] - 0.02
    assert sum("pruned_loss" in row for row in progress) == 3

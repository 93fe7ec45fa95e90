"""What the student learns from: the teacher at a temperature, labels, weights, and rows without a label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from pipelines.errors import TrainingError
from pipelines.training import data, distill, entry, loop, prepare, step, trees
from pipelines.training.baselines import LightGbm
from pipelines.training.compress import Scale
from pipelines.training.feed import Batch, Resident
from pipelines.training.job import Job
from pipelines.training.learnable import Tables
from pipelines.training.networks import Student, Teacher
from pipelines.training.session import Session

from .conftest import TASKS, make_columns, make_spec, write


class World:
    """A session, rows and networks that nobody has trained."""

    def __init__(self, task: str, root: Path, weight: torch.Tensor | None = None, **student: object) -> None:
        self.spec = make_spec(task, student={"widths": [8], "epochs": 1, "batch_rows": 64, **student})
        folder = write(root / "data", task)
        job = Job(spec=self.spec, data=folder, out=root / "out")
        self.session = Session(job=job, device=torch.device("cpu"), threads=1, progress=lambda _: None)
        self.table = data.read(self.spec, folder / "train.parquet").take(np.arange(60))
        self.preparation = prepare.fit(self.table)
        torch.manual_seed(3)
        label = torch.from_numpy(self.table.label)
        target = torch.eye(3)[label.long()] if task == "multiclass" else label
        encoded = self.preparation.encode(self.table)
        self.rows = Resident.of(encoded, target, weight, self.session.device)
        self.judged = Resident(self.rows.rows[:15])
        self.teacher = Teacher(self.spec.training.teacher, self.preparation, encoded, self.session.outputs)
        self.student = Student(self.spec.training.student, self.preparation, self.session.outputs)

    def add_unlabelled(self, rows: int = 20) -> None:
        columns = make_columns(self.session.task, rows, 9)
        del columns["label"]
        pq.write_table(pa.table(columns), self.session.job.part("unlabelled"))

    def lesson(self) -> Batch:
        more = distill.heard(self.session, self.preparation, self.rows, self.judged)
        taught = distill.lesson(self.session, self.teacher, self.rows, more)
        assert isinstance(taught, Resident)
        return taught.rows

    def loss(self, batch: Batch, temperature: float) -> torch.Tensor:
        net = distill.Tempered(self.student, temperature).train() if temperature != 1 else self.student
        logits = net(batch.numeric, batch.missing, batch.codes)
        return step.losses(self.session.task, logits, batch.target, batch.weight)


def cost(task: str, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[n]."""
    if task == "multiclass":
        return -(target * logits.log_softmax(1)).sum(1)
    if task == "binary":
        return functional.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    return (logits[:, 0] - target) ** 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_is_that_of_the_formula(task: str, temperature: float, weighted: bool, tmp_path: Path) -> None:
    """s T^2 CE(teacher / T, student / T) + (1 - s) w CE(label, student); without a label, its first part with s = 1."""
    weight = torch.linspace(0, 2, 60) if weighted else None
    world = World(task, tmp_path, weight, soft_share=0.6, temperature=temperature)
    world.add_unlabelled()
    batch = world.lesson()
    assert len(batch) == 60 + 15 + 20
    net, t = world.student, 1.0 if task == "regression" else temperature
    world.loss(batch, t).backward()
    found = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    everything = distill.heard(world.session, world.preparation, world.rows, world.judged)
    soft = loop.predict(task, world.teacher, everything, t)
    z = net(batch.numeric, batch.missing, batch.codes)[:, 0]
    w = torch.ones(60) if weight is None else weight
    of_teacher = t * t * cost(task, z / t, soft)
    of_labels = w * cost(task, z[:60], world.rows.target)
    total = torch.cat([0.6 * of_teacher[:60] + 0.4 * of_labels, of_teacher[60:]])
    total.mean().backward()
    for mine, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_the_student_hears_teacher_and_trees_by_their_shares_on_every_row(task: str, tmp_path: Path) -> None:
    world = World(task, tmp_path, soft_share=1.0, trees=0.25)
    world.add_unlabelled()
    label, table = Scale(2.0, 4.0) if task == "regression" else Scale(), world.table
    held = Tables(train=table, sample=table, validation=table.take(np.arange(15)))
    boosted = LightGbm(task, world.session.outputs, world.preparation, table, held.validation, 1, 7)
    heard = distill.heard(world.session, world.preparation, world.rows, world.judged)
    everywhere, on_validation = trees.said(world.session, boosted, held, label)
    lesson = distill.lesson(world.session, world.teacher, world.rows, heard, everywhere)
    more = data.read_unlabelled(world.spec, world.session.job.part("unlabelled"))
    scores = np.concatenate([boosted(part) for part in (table, held.validation, more)])
    soft = loop.predict(task, world.teacher, heard).numpy()
    wanted = 0.75 * soft + 0.25 * (scores - label.mean) / label.scale
    np.testing.assert_allclose(lesson.target.numpy(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(on_validation, everywhere[60:75])


def test_trees_are_heard_in_a_training_and_told_of(tmp_path: Path) -> None:
    folder, students = write(tmp_path / "data", "binary"), []
    for share in (0.0, 0.5):
        spec = make_spec(
            "binary", teacher={"k": 1, "width": 8, "epochs": 1}, student={"widths": [8], "epochs": 1, "trees": share}
        )
        out = tmp_path / f"out{share}"
        entry.run(Job(spec=spec, data=folder, out=out, threads=1), lambda _: None)
        assert json.loads((out / "model.json").read_text("utf-8"))["facts"].get("student_trees", 0.0) == share
        students.append((out / "student.safetensors").read_bytes())
    assert students[0] != students[1]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"student": {"trees": 0.5, "temperature": 2}}, "temperature 1"),
        ({"student": {"trees": 0.5}, "class_weight": "balanced"}, "class_weight none"),
    ],
)
def test_trees_are_refused_where_their_output_would_mean_something_else(training: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_spec("binary", **training)


def test_a_higher_temperature_teaches_softer_targets(tmp_path: Path) -> None:
    sharp = World("multiclass", tmp_path / "a", soft_share=1.0).lesson().target
    soft = World("multiclass", tmp_path / "b", soft_share=1.0, temperature=5.0).lesson().target[:, 1]
    assert (soft.amax(1) < sharp.amax(1)).all()


def test_unlabelled_rows_are_left_alone_where_the_spec_says_so(tmp_path: Path) -> None:
    world = World("binary", tmp_path, unlabelled=False)
    world.add_unlabelled()
    assert len(world.lesson()) == 60


def test_unlabelled_rows_change_the_student(tmp_path: Path) -> None:
    world = World("binary", tmp_path, epochs=2)
    students = []
    for rows in (0, 40):
        if rows:
            world.add_unlabelled(rows)
        torch.manual_seed(0)
        made = distill.distill(world.session, world.preparation, world.teacher, world.rows, world.rows)
        students.append(made.linears[0].weight)
    assert not torch.equal(*students)


def test_an_unlabelled_file_without_a_feature_is_refused_by_name(tmp_path: Path) -> None:
    world = World("binary", tmp_path)
    columns = make_columns("binary", 20, 9)
    del columns["gaps"]
    pq.write_table(pa.table(columns), world.session.job.part("unlabelled"))
    with pytest.raises(TrainingError, match="columns are missing: gaps"):
        world.lesson()


def test_bfloat16_logits_are_close_to_float32s(tmp_path: Path) -> None:
    world = World("multiclass", tmp_path)
    full = distill.logits(world.student, world.rows)
    half = distill.logits(world.student, world.rows, bf16=True)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half), "nothing was computed in bfloat16"
    torch.testing.assert_close(half, full, rtol=0.02, atol=0.02)

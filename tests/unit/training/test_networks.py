"""The teacher knows numbers in three ways, on every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.metrics import metrics
from pipelines.training import entry, learnable, loop, prepare
from pipelines.training.data import read
from pipelines.training.feed import Resident
from pipelines.training.job import Job
from pipelines.training.networks import Teacher
from pipelines.training.session import Session
from pipelines.training.teaching import teach

from .conftest import TASKS, make_spec, write

EMBEDDINGS = ("piecewise", "periodic", "none")


def teacher(embeddings: str, task: str, folder: Path, **training: Any) -> tuple[Teacher, float, float]:
    """A trained teacher, its holdout loss and that of a constant; regression: squared errors."""
    how = {"k": 2, "width": 32, "depth": 1, "epochs": 5, "batch_rows": 64, "bins": 8, "learning_rate": 0.01}
    spec = make_spec(task, teacher={**how, "embeddings": embeddings}, **training)
    data = write(folder / "data", task)
    job = Job(spec=spec, data=data, out=folder, threads=1)
    session = Session(job=job, device=torch.device("cpu"), threads=1, progress=lambda _: None)
    tables = learnable.tables(job, session.device)
    preparation = learnable.prepared(spec, tables)
    given = learnable.learnable(job, tables, preparation, session.device)
    with entry.own_torch(1, 0):
        net = teach(session, preparation, given.sample, given.rows, given.judged)
    holdout = read(spec, job.part("holdout"))
    target = learnable.target(spec, holdout, given.label)
    held = Resident.of(preparation.encode(holdout), target, None, session.device)
    prior = given.rows.target.mean(0)
    flat = prior.expand(len(holdout), *prior.shape)
    return (
        net,
        loop.validation_loss(task, loop.predict(task, net, held), held.target),  # type: ignore[arg-type]
        loop.validation_loss(task, flat, held.target),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("embeddings", EMBEDDINGS)
def test_each_embedding_learns_each_task(embeddings: str, task: str, tmp_path: Path) -> None:
    net, loss, constant = teacher(embeddings, task, tmp_path)
    assert loss < 0.7 * constant
    found = type(net.net.num_module).__name__
    assert (
        found
        == {
            "piecewise": "PiecewiseLinearEmbeddings",
            "periodic": "PeriodicEmbeddings",
            "none": "NoneType",
        }[embeddings]
    )


@pytest.mark.parametrize("embeddings", EMBEDDINGS)
def test_numbers_only_and_words_only_are_seen_by_each_embedding(embeddings: str, tmp_path: Path) -> None:
    spec = make_spec("binary", teacher={"k": 2, "width": 8, "embeddings": embeddings})
    for features in ({"categorical": ()}, {"numeric": ()}):
        only = spec.model_copy(update={"features": spec.features.model_copy(update=features)})
        train = read(only, write(tmp_path, "binary") / "train.parquet")
        preparation = prepare.fit(train)
        encoded = preparation.encode(train)
        net = Teacher(only.training.teacher, preparation, encoded, 1)
        logits = net(*(torch.from_numpy(part) for part in (encoded.numeric, encoded.missing, encoded.codes)))
        assert logits.shape == (len(train), 2, 1)
        assert net.bias.shape == (2, 1)


def test_a_periodic_teacher_goes_the_whole_way_to_the_served_student(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "binary")
    how = make_spec("binary").training.teacher.model_dump() | {"embeddings": "periodic"}
    spec = make_spec("binary", teacher=how)
    entry.run(Job(spec=spec, data=data, out=tmp_path / "out", threads=1), lambda _: None)
    holdout = read(spec, data / "holdout.parquet")
    from pipelines.training.scorecards import OnnxScorer

    score = np.asarray(OnnxScorer(tmp_path / "out" / "model.onnx", spec, 1)(holdout))
    assert metrics("binary", holdout.label, score)["auc"] > 0.85

"""The one entry of training: a training set and a spec in, an artifact folder out.

    teacher (TabM) -> soft targets -> student (MLP) -> calibration -> ONNX -> compression -> scorecards on the holdout

Written to the job's `out`: model.onnx (served), student_fp32.onnx, teacher.safetensors, student.safetensors,
model.json, scorecards.json and curves.jsonl. Nothing is sealed here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import TrainingError, explain
from pipelines.ports import OnProgress
from pipelines.records import Scorecard
from pipelines.spec import UseCase
from pipelines.training import calibrate, compress, loop, prepare, scorecards
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.card import card
from pipelines.training.compress import FP32, MODEL, Scale
from pipelines.training.data import Table, read
from pipelines.training.distill import distill, logits
from pipelines.training.feed import Feed, Resident
from pipelines.training.job import HOLDOUT, TRAIN, VALIDATION, Job
from pipelines.training.networks import Teacher
from pipelines.training.session import Session
from pipelines.training.teaching import teach


class Learnable(NamedTuple):
    """What the networks learn from, and by what it was encoded."""

    preparation: prepare.Preparation
    label: Scale
    sample: prepare.Encoded
    """Encoded training rows, all or many."""
    rows: Feed
    judged: Feed
    """The validation rows."""


def run(job: Job, on_progress: OnProgress) -> None:
    """Trains, distils, compresses, and measures.

    Args:
        on_progress: called after every epoch with `epoch` and that network's figures.

    Raises:
        TrainingError: the data cannot be read as the spec says, is too small, has one class only or nothing that
            varies; or a loss was not finite.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    train, validation, holdout = (read(job.spec, job.part(name)) for name in (TRAIN, VALIDATION, HOLDOUT))
    with (
        own_torch(job.threads, job.spec.training.seed),
        (job.out / "curves.jsonl").open("w", encoding="utf-8") as curves,
    ):

        def progress(values: Mapping[str, float]) -> None:
            curves.write(json.dumps(dict(values)) + "\n")
            curves.flush()
            on_progress(values)

        session = Session(
            job=job,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            threads=torch.get_num_threads(),
            progress=progress,
        )
        _train(session, train, validation, holdout)


def _train(session: Session, train: Table, validation: Table, holdout: Table) -> None:
    spec, out = session.spec, session.job.out
    preparation, label, encoded, rows, judged = learnable(spec, train, validation, session.device)
    with _timed(session.seconds, "teacher"):
        teacher = teach(session, preparation, encoded, rows, judged)
    with _timed(session.seconds, "student"):
        student = distill(session, preparation, teacher, rows, judged)
        calibration = calibrate.fit(spec.label.task, logits(student, judged), judged.target.cpu())
    teacher, student = teacher.cpu(), student.cpu()
    with _timed(session.seconds, "compression"):
        compress.write(session, preparation, student, calibration, label, train)
    _save(teacher, out / "teacher.safetensors")
    _save(student, out / "student.safetensors")
    with _timed(session.seconds, "lightgbm"):
        trees = LightGbm(
            spec.label.task,
            session.outputs,
            preparation,
            train,
            validation,
            session.threads,
            spec.training.seed,
        )
    cards = _measure(session, preparation, teacher, label, trees, train, holdout)
    counts = {"train": len(train), "validation": len(validation), "holdout": len(holdout)}
    _write_json(
        out / "model.json",
        card(spec, preparation, counts, calibration, label.mean, label.scale, session.threads, session.seconds),
    )
    _write_json(out / "scorecards.json", [entry.model_dump() for entry in cards])


def learnable(spec: UseCase, train: Table, validation: Table, device: torch.device) -> Learnable:
    """Fits the preparation and puts the encoded rows on the device.

    Raises:
        TrainingError: too few rows, one class only, or nothing that varies.
    """
    _check(spec, train)
    preparation = prepare.fit(train)
    if not (preparation.varying or preparation.flagged or spec.features.categorical):
        raise TrainingError(
            explain("train.parquet", "every feature is constant or null", remedy="name features that vary")
        )
    label = _label_scale(spec, train)
    encoded = preparation.encode(train)
    rows = Resident.of(encoded, _target(spec, train, label), None, device)
    judged = Resident.of(preparation.encode(validation), _target(spec, validation, label), None, device)
    return Learnable(preparation, label, encoded, rows, judged)


def _measure(
    session: Session,
    preparation: prepare.Preparation,
    teacher: Teacher,
    label: Scale,
    trees: LightGbm,
    train: Table,
    holdout: Table,
) -> list[Scorecard]:
    spec, out = session.spec, session.job.out

    def taught(table: Table) -> np.typing.NDArray[np.floating]:
        seen = Resident.of(preparation.encode(table), torch.zeros(len(table)), None, torch.device("cpu"))
        return loop.predict(spec.label.task, teacher, seen).numpy().astype(np.float64) * label.scale + label.mean

    def size(file: str) -> int:
        return (out / file).stat().st_size

    cards = [scorecards.measure(spec, "teacher", taught, holdout, size("teacher.safetensors"))]
    served = {"int8": "student_int8", "fp16": "student_fp16", "none": None}[spec.training.compression]
    for name, file in (("student_fp32", FP32), (served, MODEL)):
        if name is not None:
            scorer = scorecards.OnnxScorer(out / file, spec, session.threads)
            cards.append(scorecards.measure(spec, name, scorer, holdout, size(file)))
    cards.append(scorecards.measure(spec, "lightgbm", trees, holdout, trees.bytes))
    constant = Constant(spec.label.task, session.outputs, train)
    cards.append(scorecards.measure(spec, "constant", constant, holdout, None))
    return cards


def _check(spec: UseCase, train: Table) -> None:
    if len(train) < spec.training.min_rows:
        raise TrainingError(
            explain(
                "train.parquet",
                f"{len(train)} rows",
                allowed=f"training.min_rows: {spec.training.min_rows} or more",
                remedy="wait for more partitions, or lower it",
            )
        )
    if spec.label.task != "regression" and len(np.unique(train.label)) < 2:
        raise TrainingError(
            explain("train.parquet", f"every label is {train.label[0]:g}", allowed="two classes or more")
        )


def _label_scale(spec: UseCase, train: Table) -> Scale:
    if spec.label.task != "regression":
        return Scale()
    label = train.label.astype(np.float64)
    if label.min() == label.max():
        raise TrainingError(explain("train.parquet", f"every label is {label[0]:g}", allowed="labels that vary"))
    return Scale(float(label.mean()), float(label.std()))


def _target(spec: UseCase, table: Table, label: Scale) -> Tensor:
    if spec.label.task == "multiclass":
        return torch.eye(len(spec.label.classes))[torch.from_numpy(table.label).long()]
    return torch.from_numpy(((table.label - label.mean) / label.scale).astype(np.float32))


def _save(net: torch.nn.Module, path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - begin, 2)


@contextmanager
def own_torch(threads: int | None, seed: int) -> Iterator[None]:
    """This training's threads and random numbers; the caller's are put back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        # Denormal numbers cost a hundred times as much and mean nothing here.
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(before)

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
from typing import Any

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
from pipelines.training.checkpoint import Store, identity
from pipelines.training.compress import FP32, MODEL, Scale
from pipelines.training.data import Table, read
from pipelines.training.distill import distill, logits
from pipelines.training.distributed import Team, team
from pipelines.training.feed import Resident
from pipelines.training.job import HOLDOUT, TRAIN, VALIDATION, Job
from pipelines.training.networks import Teacher
from pipelines.training.session import Session
from pipelines.training.signals import Stop, never
from pipelines.training.teaching import teach


def run(job: Job, on_progress: OnProgress, stop: Stop = never) -> None:
    """Trains, distils, compresses, and measures; goes on from the job's checkpoints, and removes them at the end.

    Of several processes (see `distributed.team`) all train, and the leader alone writes `out` and tells.

    Args:
        on_progress: called after every epoch, and in between, with the values of `pipelines.training.progress`.
        stop: whether this process was told to stop.

    Raises:
        TrainingError: the data cannot be read as the spec says, is too small, has one class only or nothing that
            varies; or a loss was not finite.
        InterruptedTraining: `stop` said so.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    train, validation, holdout = (read(job.spec, job.part(name)) for name in (TRAIN, VALIDATION, HOLDOUT))
    _check(job.spec, train)
    with team() as here, _torch(job.threads, job.spec.training.seed), _curves(job, here) as record:
        session = Session(
            job=job,
            device=here.device,
            threads=torch.get_num_threads(),
            progress=on_progress if here.leads else lambda _: None,
            record=record,
            team=here,
            store=Store(job.checkpoints, identity(job)) if job.checkpoints else None,
            stop=stop,
        )
        session.facts["processes"] = here.size
        _train(session, train, validation, holdout)
        if session.store and here.leads:
            session.store.clear()


def _train(session: Session, train: Table, validation: Table, holdout: Table) -> None:
    spec, out = session.spec, session.job.out
    preparation = prepare.fit(train)
    if not (preparation.varying or preparation.flagged or spec.features.categorical):
        raise TrainingError(
            explain("train.parquet", "every feature is constant or null", remedy="name features that vary")
        )
    label = _label_scale(spec, train)
    encoded = preparation.encode(train)
    rows = Resident.of(encoded, _target(spec, train, label), None, session.device)
    judged = Resident.of(preparation.encode(validation), _target(spec, validation, label), None, session.device)
    with _timed(session.seconds, "teacher"):
        teacher = teach(session, preparation, encoded, rows, judged)
    with _timed(session.seconds, "student"):
        student = distill(session, preparation, teacher, rows, judged)
        session.pause()
        if not session.team.leads:
            return  # What follows is not shared.
        calibration = calibrate.fit(spec.label.task, logits(student, judged), judged.target.cpu())
    teacher, student = teacher.cpu(), student.cpu()
    with _timed(session.seconds, "compression"):
        compress.write(session, preparation, student, calibration, label, train)
    _save(teacher, out / "teacher.safetensors")
    _save(student, out / "student.safetensors")
    session.pause()
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
    session.pause()
    cards = _measure(session, preparation, teacher, label, trees, train, holdout)
    counts = {"train": len(train), "validation": len(validation), "holdout": len(holdout)}
    _write_json(
        out / "model.json",
        card(spec, preparation, counts, calibration, label.mean, label.scale, session.threads, session.seconds)
        | {"facts": session.facts},
    )
    _write_json(out / "scorecards.json", [entry.model_dump() for entry in cards])


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
def _curves(job: Job, here: Team) -> Iterator[OnProgress]:
    """Writes `curves.jsonl`: a line an epoch."""
    if not here.leads:
        yield lambda _: None
        return
    with (job.out / "curves.jsonl").open("w", encoding="utf-8") as curves:

        def record(values: Mapping[str, float]) -> None:
            curves.write(json.dumps(dict(values)) + "\n")
            curves.flush()

        yield record


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - begin, 2)


@contextmanager
def _torch(threads: int | None, seed: int) -> Iterator[None]:
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

"""The one entry of training: three Parquet files and a spec in, an artifact folder out.

    teacher (TabM) -> soft targets -> student (MLP) -> temperature -> ONNX -> int8 -> scorecards on the holdout

Written to `out`: model.onnx (served), student_fp32.onnx, teacher.safetensors, student.safetensors, model.json,
scorecards.json and curves.jsonl. Nothing is sealed here.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import TrainingError, explain
from pipelines.ports import OnProgress
from pipelines.records import Scorecard
from pipelines.spec import UseCase
from pipelines.training import graph, loop, prepare, quantize, scorecards
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.calibrate import temperature
from pipelines.training.card import card
from pipelines.training.data import Table, read
from pipelines.training.networks import Student, Teacher

MODEL, FP32 = "model.onnx", "student_fp32.onnx"
_STUDENT_WEIGHT_DECAY = 1e-4


def run(spec: UseCase, data: Path, out: Path, on_progress: OnProgress, threads: int | None = None) -> None:
    """Trains, distils, compresses, and measures.

    Args:
        spec: what to train; nothing else is configured anywhere.
        data: a folder with train.parquet, validation.parquet and holdout.parquet: the features, and `label` (0 or 1, a
            class index, or a value). Other columns are ignored.
        out: where the files are written; made when absent.
        on_progress: called after every epoch with `epoch` and that network's losses.
        threads: processor threads; what torch finds when absent. The same number gives the same weights.

    Raises:
        TrainingError: the data cannot be read as the spec says, is too small, has one class only or nothing that
            varies; or a loss was not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    train, validation, holdout = (read(spec, data / f"{part}.parquet") for part in ("train", "validation", "holdout"))
    _check(spec, train)
    with _torch(threads, spec.training.seed), (out / "curves.jsonl").open("w", encoding="utf-8") as curves:

        def progress(values: Mapping[str, float]) -> None:
            curves.write(json.dumps(dict(values)) + "\n")
            curves.flush()
            on_progress(values)

        _Training(spec, train, validation, holdout, out, progress, torch.get_num_threads()).run()


@dataclass(slots=True)
class _Training:
    spec: UseCase
    train: Table
    validation: Table
    holdout: Table
    out: Path
    progress: OnProgress
    threads: int

    def run(self) -> None:
        spec, task, training = self.spec, self.spec.label.task, self.spec.training
        outputs = len(spec.label.classes) or 1
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        preparation = prepare.fit(self.train)
        if not (preparation.varying or preparation.flagged or spec.features.categorical):
            raise TrainingError(
                explain("train.parquet", "every feature is constant or null", remedy="name features that vary")
            )
        mean, scale = _label_scale(spec, self.train)
        encoded = preparation.encode(self.train)
        rows = loop.Rows.of(encoded, _target(spec, self.train, mean, scale), device)
        judged = loop.Rows.of(preparation.encode(self.validation), _target(spec, self.validation, mean, scale), device)
        seconds: dict[str, float] = {}

        with _timed(seconds, "teacher"):
            teacher = Teacher(training.teacher, preparation, encoded, outputs).to(device)
            loop.train(task, teacher, rows, judged, self._teacher_schedule(), self.progress)
            soft = loop.predict(task, teacher, rows)
        with _timed(seconds, "student"):
            share = training.student.soft_share
            taught = replace(rows, target=share * soft + (1 - share) * rows.target)
            student = Student(training.student, preparation, outputs).to(device)
            loop.train(task, student, taught, judged, self._student_schedule(), self.progress)
            logits = _logits(student, judged)
            heat = temperature(task, logits, judged.target.cpu())
        teacher, student = teacher.cpu(), student.cpu()
        with _timed(seconds, "compression"):
            drawn = quantize.calibration_rows(self.train, training.calibration_rows, training.seed)
            smooth, even = quantize.equalize(preparation, student, preparation.encode(drawn))
            onnx.save(graph.build(spec, smooth, even, heat, mean, scale), self.out / FP32)
            if training.compression == "int8":
                quantize.quantize(
                    self.out / FP32, self.out / MODEL, drawn, spec.features.numeric, spec.features.categorical
                )
            else:
                shutil.copyfile(self.out / FP32, self.out / MODEL)
        _save(teacher, self.out / "teacher.safetensors")
        _save(student, self.out / "student.safetensors")
        with _timed(seconds, "lightgbm"):
            trees = LightGbm(task, outputs, preparation, self.train, self.validation, self.threads, training.seed)

        def teach(table: Table) -> np.typing.NDArray[np.floating]:
            seen = loop.Rows.of(preparation.encode(table), torch.zeros(len(table)), torch.device("cpu"))
            return loop.predict(task, teacher, seen).numpy().astype(np.float64) * scale + mean

        cards = [scorecards.measure(spec, "teacher", teach, self.holdout, self._size("teacher.safetensors"))]
        for name, file in (("student_fp32", FP32), ("student_int8", MODEL)):
            if name == "student_fp32" or training.compression == "int8":
                scorer = scorecards.OnnxScorer(self.out / file, spec, self.threads)
                cards.append(scorecards.measure(spec, name, scorer, self.holdout, self._size(file)))
        cards.append(scorecards.measure(spec, "lightgbm", trees, self.holdout, trees.bytes))
        constant = Constant(task, outputs, self.train)
        cards.append(scorecards.measure(spec, "constant", constant, self.holdout, None))
        self._write(cards, preparation, heat, mean, scale, seconds)

    def _teacher_schedule(self) -> loop.Schedule:
        teacher = self.spec.training.teacher
        return loop.Schedule(
            name="teacher",
            epochs=teacher.epochs,
            patience=teacher.patience,
            batch_rows=teacher.batch_rows,
            learning_rate=teacher.learning_rate,
            weight_decay=teacher.weight_decay,
            seed=self.spec.training.seed,
        )

    def _student_schedule(self) -> loop.Schedule:
        student = self.spec.training.student
        return loop.Schedule(
            name="student",
            epochs=student.epochs,
            # The student is short and cheap: all its epochs, then the best of them.
            patience=student.epochs,
            batch_rows=student.batch_rows,
            learning_rate=student.learning_rate,
            weight_decay=_STUDENT_WEIGHT_DECAY,
            seed=self.spec.training.seed,
        )

    def _size(self, file: str) -> int:
        return (self.out / file).stat().st_size

    def _write(
        self,
        cards: list[Scorecard],
        preparation: prepare.Preparation,
        heat: float,
        mean: float,
        scale: float,
        seconds: dict[str, float],
    ) -> None:
        rows = {"train": len(self.train), "validation": len(self.validation), "holdout": len(self.holdout)}
        about = card(self.spec, preparation, rows, heat, mean, scale, self.threads, seconds)
        _write_json(self.out / "model.json", about)
        _write_json(self.out / "scorecards.json", [entry.model_dump() for entry in cards])


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


def _label_scale(spec: UseCase, train: Table) -> tuple[float, float]:
    if spec.label.task != "regression":
        return 0.0, 1.0
    label = train.label.astype(np.float64)
    if label.min() == label.max():
        raise TrainingError(explain("train.parquet", f"every label is {label[0]:g}", allowed="labels that vary"))
    return float(label.mean()), float(label.std())


def _target(spec: UseCase, table: Table, mean: float, scale: float) -> Tensor:
    if spec.label.task == "multiclass":
        return torch.eye(len(spec.label.classes))[torch.from_numpy(table.label).long()]
    return torch.from_numpy(((table.label - mean) / scale).astype(np.float32))


def _logits(student: Student, rows: loop.Rows) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(student(rows.numeric, rows.missing, rows.codes))[:, 0, :].cpu()


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

"""The one entry of training: a training set and a spec in, an artifact folder out.

    teacher (TabM) -> soft targets -> student (MLP) -> calibration -> ONNX -> compression -> scorecards on the holdout

Written to the job's `out`: model.onnx (served), model.json, scorecards.json, features.json and curves.jsonl; of
networks also student_fp32.onnx, teacher.safetensors, student.safetensors, compression.json and compression.html.
Nothing is sealed here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipelines.ports import OnProgress
from pipelines.records import Scorecard
from pipelines.training import calibrate, compress, conformal, decision, leaks, loop, report, scorecards, trees, weights
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.calibrate import Calibration
from pipelines.training.card import card, served
from pipelines.training.checkpoint import Store, identity
from pipelines.training.compress import FP32, MODEL, Compression, Scale
from pipelines.training.data import Table, read
from pipelines.training.distill import distill, logits
from pipelines.training.distributed import Team, team
from pipelines.training.feed import Resident
from pipelines.training.job import HOLDOUT, Job
from pipelines.training.learnable import Tables, learnable, prepared, tables, target
from pipelines.training.networks import Teacher
from pipelines.training.prepare import Preparation
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
    with team() as here, own_torch(job.threads, job.spec.training.seed), _curves(job, here) as record:
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
        held = tables(job, here.device)
        if held.streamed:
            # What is fitted once (preparation, trees, int8 ranges) saw these; the networks see every row.
            session.facts["streamed_sample_rows"] = len(held.sample)
        holdout = read(job.spec, job.part(HOLDOUT))
        preparation = prepared(job.spec, held)
        if here.leads:
            with _timed(session.seconds, "features"):
                _write_json(job.out / "features.json", leaks.measure(job.spec, held.sample))
        make = _boosted if job.spec.training.model == "lightgbm" else _distilled
        made = make(session, held, preparation, holdout)
        if made is not None:
            counts = {"train": len(held.train), "validation": len(held.validation), "holdout": len(holdout)}
            counts["unlabelled"] = session.facts.pop("unlabelled", 0)
            _write(session, preparation, counts, held.validation, holdout, *made)
        if session.store and here.leads:
            session.store.clear()


#: What is written down of a training; None in processes that do not lead. No compression: trees.
_Made = tuple[Calibration, Scale, Compression | None, list[Scorecard]] | None


def _boosted(session: Session, held: Tables, preparation: Preparation, holdout: Table) -> _Made:
    """LightGBM is what is served."""
    if not session.team.leads:
        return None
    with _timed(session.seconds, "lightgbm"):
        validation = target(session.spec, held.validation, Scale())
        calibration, cards = trees.train(session, preparation, held.sample, held.validation, holdout, validation)
    return calibration, Scale(), None, cards


def _distilled(session: Session, held: Tables, preparation: Preparation, holdout: Table) -> _Made:
    """The teacher, and the student that is served."""
    spec, out = session.spec, session.job.out
    given = learnable(session.job, held, preparation, session.device)
    with _timed(session.seconds, "teacher"):
        teacher = teach(session, preparation, given.sample, given.rows, given.judged)

    @cache
    def boosted() -> LightGbm:
        with _timed(session.seconds, "lightgbm"):
            return trees.boost(session, preparation, held.sample, held.validation)

    second = None
    if spec.training.student.trees and not held.streamed:
        # Here every process makes the same trees; otherwise the leader alone, at the end, as the gates' bar.
        second = trees.said(session, boosted(), held, given.label)
        session.pause()
    with _timed(session.seconds, "student"):
        student = distill(session, preparation, teacher, given.rows, given.judged, second)
        session.pause()
        if not session.team.leads:
            return None  # What follows is not shared.
        for net in (teacher, student):
            weights.restore_shares(net.bias, given.by_class)
        calibration = calibrate.fit(
            session.task, logits(student, given.judged), given.judged.target.cpu(), spec.training.probabilities
        )
    teacher, student = teacher.cpu(), student.cpu()
    with _timed(session.seconds, "compression"):
        compressed = compress.write(
            session, preparation, student, calibration, given.label, held.sample, held.validation
        )
    _save(teacher, out / "teacher.safetensors")
    _save(student, out / "student.safetensors")
    session.pause()
    bar = boosted()
    session.pause()
    cards = _measure(session, preparation, teacher, given.label, bar, held.train, holdout)
    report.write(spec, out, compressed, cards, session.threads)
    return calibration, given.label, compressed, cards


def _write(
    session: Session,
    preparation: Preparation,
    counts: Mapping[str, int],
    validation: Table,
    holdout: Table,
    calibration: Calibration,
    label: Scale,
    compressed: Compression | None,
    cards: list[Scorecard],
) -> None:
    out = session.job.out
    scorer = scorecards.OnnxScorer(out / MODEL, session.spec, session.threads)
    threshold = decision.threshold(session.spec, scorer, validation)
    intervals = None
    if session.task == "regression":
        intervals = conformal.fit(scorer(validation), validation.label)
        measured = {"intervals": conformal.measure(intervals, scorer(holdout), holdout.label)}
        mine = served(session.spec)
        cards = [entry.model_copy(update=measured) if entry.model == mine else entry for entry in cards]
    about = card(session.spec, preparation, counts, calibration, label, compressed, threshold, intervals, session)
    _write_json(out / "model.json", about | {"facts": session.facts})
    _write_json(out / "scorecards.json", [entry.model_dump() for entry in cards])


def _measure(
    session: Session,
    preparation: Preparation,
    teacher: Teacher,
    label: Scale,
    boosted: LightGbm,
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
    for name, file in {"student_fp32": FP32, served(spec): MODEL}.items():
        scorer = scorecards.OnnxScorer(out / file, spec, session.threads)
        cards.append(scorecards.measure(spec, name, scorer, holdout, size(file)))
    cards.append(scorecards.measure(spec, "lightgbm", boosted, holdout, boosted.bytes))
    constant = Constant(spec.label.task, session.outputs, train)
    cards.append(scorecards.measure(spec, "constant", constant, holdout, None))
    return cards


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

"""A challenger and a champion of each task, small and really trained, with hostile words wherever words come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import artifacts
from pipelines.backends.model_review import Reviews
from pipelines.metrics import metrics
from pipelines.policies.gates import evaluate_gates
from pipelines.ports import UnderReview
from pipelines.records import Comparison, Evaluation, Gate, Interval, Scorecard, SliceGain, TrainedModel, TrainingSet
from pipelines.scoring.engine import Engine
from pipelines.spec import GREATER_IS_BETTER, UseCase
from pipelines.steps.holdouts import of_training
from pipelines.steps.training import read_scorecards
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.unit.training.conftest import TASKS, Columns, make_spec, write

EVIL = "<script>alert(1)</script>{{ 7*7 }}{% x %}|`a`\n# no heading"
SNAPSHOT = {"store": "delta", "use_case": "toy", "table": "rows", "version": "3"}


@dataclass(frozen=True)
class Reviewed:
    """A case and what was written about it."""

    task: str
    spec: UseCase
    case: UnderReview
    out: Path

    def read(self, name: str) -> str:
        return (self.out / name).read_text("utf-8")


def _spec(task: str, **training: Any) -> UseCase:
    told = make_spec(task, **training).model_dump()
    told["features"]["slices"] = ["colour"]
    told["title"] = f"Toy {EVIL}"
    told["card"] = {"intended_use": "Nothing but tests.", "limits": [EVIL], "data_licence": "made up here"}
    return UseCase.model_validate(told)


def _hostile(columns: Columns) -> Columns:
    return {**columns, "colour": [EVIL if word == "green" else word for word in columns["colour"]]}


def _trained(spec: UseCase, data: Path, out: Path) -> TrainedModel:
    """Trains, and adds what a step would add to the artifact."""
    run(Job(spec=spec, data=data, out=out, threads=1), lambda _: None)
    told = TrainingSet.model_validate(
        {
            "use_case": spec.name,
            "folder": str(data),
            "as_of": "2024-01-02",
            "snapshots": [SNAPSHOT],
            **dict.fromkeys(("train", "validation", "holdout"), ("2024-01-01", "2024-01-01")),
            "rows": {"train": 1500, "validation": 300, "holdout": 400},
            "digest": "d" * 64,
        }
    )
    (out / "provenance.json").write_text(told.model_dump_json(exclude={"folder"}), "utf-8")
    pl.read_parquet(data / "train.parquet", columns=list(spec.features.columns)).write_parquet(
        out / "reference_sample.parquet"
    )
    return TrainedModel(
        folder=str(out),
        digest=artifacts.seal(out),
        run_id=f"run-{spec.name}",
        training_set=told,
        scorecards=read_scorecards(out),
        seconds=1.0,
    )


def _card(spec: UseCase, name: str, folder: Path, frame: pl.DataFrame) -> Scorecard:
    scores = Engine(folder).score(frame)
    found = metrics(spec.label.task, frame.get_column("label").to_numpy(), scores, len(spec.label.classes) or None)
    return Scorecard(model=name, rows=frame.height, metrics=found, calibration_error=0.0321)


def _measured(value: float) -> dict[str, Any]:
    gain = Interval(value=0.0123, low=-0.0045, high=0.0291, deviation=0.01, level=0.95, resamples=1000)
    parts = (
        SliceGain(slice="colour = red", rows=130, mine=0.9, other=0.8, gain=0.1),
        SliceGain(slice=f"colour = {EVIL}", rows=140, mine=0.7, other=0.8, gain=-0.1),
    )
    return {
        "interval": gain.model_copy(update={"value": value, "low": value - 0.02, "high": value + 0.02}),
        "comparisons": (Comparison(against="champion", gain=gain, slices=parts, worst=parts[1]),),
        "errors": {"fp32": f"OSError: {EVIL}"},
    }


def make(task: str, root: Path) -> Reviewed:
    """Everything of one task."""
    spec = _spec(task)
    data = write(root / "data", task, train=_hostile, validation=_hostile, holdout=_hostile)
    trained = _trained(spec, data, root / "challenger")
    champion = _trained(_spec(task, model="lightgbm"), data, root / "champion")
    holdout = of_training(trained.training_set)
    frame = pl.read_parquet(holdout.path)
    metric = spec.gates.metric
    card = _card(spec, "challenger", Path(trained.folder), frame)
    evaluation = Evaluation(
        use_case=spec.name,
        metric=metric,
        greater_is_better=GREATER_IS_BETTER[metric],
        holdout=holdout,
        learned={"challenger": "2024-01-01", "champion": "2024-01-01"},
        challenger=card,
        champion=_card(spec, "champion", Path(champion.folder), frame),
        champion_version=4,
        others=trained.scorecards,
        served=json.loads((root / "challenger" / "model.json").read_text("utf-8"))["served"],
        **_measured(card.metrics[metric]),
    )
    report = evaluate_gates(evaluation, spec)
    evil = Gate(name="made_up", passed=False, reason=EVIL)
    report = report.model_copy(update={"passed": False, "gates": (*report.gates, evil)})
    case = UnderReview(
        trained=trained,
        evaluation=evaluation,
        report=report,
        champion=Path(champion.folder),
        tags={"overnight.code_version": "abc123", "overnight.dag_run": EVIL},
        url="http://127.0.0.1:5000/#/runs/1",
    )
    Reviews().write(spec, case, root / "review")
    return Reviewed(task, spec, case, root / "review")


@pytest.fixture(scope="package")
def review_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reviewed]:
    """The review of a task, made when it is first asked for."""

    @cache
    def of(task: str) -> Reviewed:
        return make(task, tmp_path_factory.mktemp(f"review_{task}"))

    return of


@pytest.fixture(params=TASKS)
def reviewed(request: pytest.FixtureRequest, review_once: Callable[[str], Reviewed]) -> Reviewed:
    """A review of each task."""
    return review_once(request.param)


@pytest.fixture
def binary(review_once: Callable[[str], Reviewed]) -> Reviewed:
    """The binary review, for what does not depend on the task."""
    return review_once("binary")

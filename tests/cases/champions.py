"""A made-up use case with three registered versions and no champion yet: what promotion is tested on.

The rows are published straight into a real store, the models are tiny but trained, the registry is a real MLflow. Made
once a session; a test works on a copy. The copy's versions stay where they were made: MLflow keeps absolute addresses.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from pipelines import artifacts
from pipelines.partitions import span
from pipelines.policies.gates import evaluate_gates
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Evaluation, GateReport, ModelRef, RunInfo, TrainedModel
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from tests.contracts.stores import RUN, audit

NAME = "valves"
DAYS = tuple(span("2024-05-01", "2024-05-12", "day"))
#: Trainings see the first eight days: train 1 to 4, validation 5, holdout 6 and 7 (labels mature after a day).
AS_OF = DAYS[7]

SPEC: dict[str, Any] = {
    "name": NAME,
    "title": "Valves",
    "description": "Which valves stick.",
    "owner": "tests",
    "schedule": "0 2 * * *",
    "monitor_schedule": "0 6 * * *",
    "tables": {
        "rows": {
            "path": "rows/{partition}.csv",
            "columns": {
                "id": {"type": "string", "nullable": False},
                "pressure": {"type": "float"},
                "wear": {"type": "float"},
                "site": {"type": "string"},
            },
            "key": ["id"],
        },
        "labels": {
            "path": "labels/{partition}.csv",
            "columns": {"id": {"type": "string", "nullable": False}, "stuck": {"type": "bool"}},
            "key": ["id"],
        },
    },
    "label": {"column": "stuck", "task": "binary", "positive": {"equals": True}, "maturity": 1},
    "features": {"numeric": ["pressure", "wear"], "categorical": ["site"]},
    "training": {
        "model": "lightgbm",  # trains in a moment, without torch
        "validation": 1,
        "holdout": 2,
    },
    # Gates are evaluated here, not tested: what a few hundred rows teach passes all of them.
    "gates": {
        "metric": "auc",
        "bound": 0.5,
        "margin_over_champion": -1.0,
        "min_rows": 10,
        "resamples": 100,
        "max_slice_loss": 1.0,
        "max_calibration_error": 1.0,
        "max_loss_to_lightgbm": 1.0,
        "max_loss_to_fp32": 1.0,
        "max_single_feature": 1.0,
        "sanity": {"max_collapse": 1.0, "max_same": 1.0, "max_feature_share": 1.0, "min_distinct": 1},
    },
}


@dataclass(frozen=True, kw_only=True)
class Champions:
    """Three versions, judged on the same days: 1 and 3 are the same bytes, 2 has learned from fewer days."""

    project: Path
    home: Path
    evaluation: Evaluation
    """Of version 1, without a champion."""
    report: GateReport

    def settings(self) -> Settings:
        return Settings(project=self.project, home=self.home, code_version="test")

    def runtime(self, run_id: str = "test") -> Runtime:
        """The use case, for a run of this name."""
        run = RunInfo(run_id=run_id, dag_id=f"{NAME}_train", code_version="test")
        return Runtime.open(NAME, run=run, settings=self.settings())

    def copy(self, folder: Path, **changes: Any) -> Champions:
        """The same in a folder of the test's own; `changes` are sections of the spec, or keys in them."""
        shutil.copytree(self.home, folder / "var", ignore=shutil.ignore_patterns("artifacts", "checkpoints"))
        return Champions(
            project=write_project(folder / "project", **changes),
            home=folder / "var",
            evaluation=self.evaluation,
            report=self.report,
        )

    def judged(self, model: ModelRef, champion: int | None) -> tuple[Evaluation, GateReport]:
        """What a run would hold in its hands that had compared this version with that champion, and found it good."""
        changes = {
            "challenger_run": model.run_id,
            "champion_version": champion,
            "champion": self.evaluation.challenger if champion else None,
        }
        return self.evaluation.model_copy(update=changes), self.report

    def promote(self, version: int, run_id: str = "test", *, over: int | None = None, **options: Any) -> Any:
        """Promotes as a training's run does."""
        runtime = self.runtime(run_id)
        model = runtime.candidate(version)
        evaluation, report = self.judged(model, over)
        return runtime.promote(model, evaluation, report, "because", AS_OF, **options)


def write_project(folder: Path, **changes: Any) -> Path:
    """A project folder with this one use case."""
    raw = {**SPEC}
    for name, value in changes.items():
        raw[name] = {**raw.get(name, {}), **value} if isinstance(value, dict) else value
    path = folder / "include" / "use_cases" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return folder


def make_champions(root: Path) -> Champions:
    """Publishes the rows, trains twice, registers three versions."""
    project, home = write_project(root / "project"), root / "var"
    made = Champions(project=project, home=home, evaluation=None, report=None)  # type: ignore[arg-type]
    runtime = made.runtime()
    fill(runtime.store)
    first = runtime.train(runtime.build_training_set(AS_OF))
    evaluation = runtime.evaluate(first)
    report = evaluate_gates(evaluation, runtime.spec)
    assert report.passed, report.reason
    made = Champions(project=project, home=home, evaluation=evaluation, report=report)
    other = Runtime.open(NAME, run=runtime.run, settings=made.settings())
    other.spec = other.spec.model_copy(update={"training": other.spec.training.model_copy(update={"history": 5})})
    second = other.train(other.build_training_set(AS_OF))
    for trained in (first, second, again(runtime, first, "later")):
        runtime.register(trained, evaluation.model_copy(update={"challenger_run": trained.run_id}), report)
    return made


def again(runtime: Runtime, trained: TrainedModel, code_version: str) -> TrainedModel:
    """The same artifact in a run of its own, as if other code had made it."""
    from pipelines.steps.training import log_training, open_training

    run = runtime.run.model_copy(update={"code_version": code_version})
    opened = open_training(runtime.spec, runtime.registry, trained.training_set, run, runtime.settings.work)
    shutil.copytree(trained.folder, opened.folder, dirs_exist_ok=True)
    assert artifacts.seal(Path(opened.folder)) == trained.digest
    return log_training(runtime.registry, opened, 0.0)


def fill(store: SnapshotStore) -> None:
    """Twelve days of rows and labels, the same every time."""
    dice = random.Random(5)
    rows, labels = {}, {}
    for day in DAYS:
        found = [(f"{day}-{n}", dice.gauss(0, 1), dice.random(), dice.choice(("north", "south"))) for n in range(150)]
        stuck = [pressure + wear + dice.gauss(0, 0.5) > 0.5 for _, pressure, wear, _ in found]
        rows[day] = pl.DataFrame(found, schema=["id", "pressure", "wear", "site"], orient="row")
        labels[day] = rows[day].select("id", pl.Series("stuck", stuck))
    for table, frames in (("rows", rows), ("labels", labels)):
        staged = store.stage(table, [Draft(partition=day, frame=frame) for day, frame in frames.items()], RUN)
        store.publish(table, staged, [audit(part) for part in staged], RUN)

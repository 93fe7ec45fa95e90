"""Quality on the flights of 2013, month by month: train on every day before a month, test on the month.

Each month runs the use case as it ships: teacher, student, int8, its last `training.validation` days before the month
for early stopping. The peer is LightGBM on the same rows, columns and early stopping, with parameters that are tuned
here in as many trials as the use case's own settings took, and chosen as they were: by the mean AUC of May to July.
The teacher was chosen so; of the student's widths more months were seen before one was taken. August to December have
rows of their own.

Smaller: BENCH_QUALITY_MONTHS=5,12 and BENCH_QUALITY_TRIALS=4.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Printed

from benchmarks import flights_year
from benchmarks.harness import Result
from pipelines.machine import usable_cores
from pipelines.metrics import metrics
from pipelines.settings import Settings
from pipelines.spec import UseCase
from pipelines.training import entry, prepare
from pipelines.training.baselines import PARAMETERS, LightGbm
from pipelines.training.data import Table, read
from pipelines.training.job import Job

_MONTHS = tuple(range(5, 13))
_CHOSEN_BY = (5, 6, 7)
#: Settings of teacher and student that were tried for include/use_cases/flights.yaml.
_TRIALS = 30
_GOAL_TEACHER, _GOAL_INT8 = 0.003, 0.001
_TUNED, _DEFAULT = "lightgbm tuned", "lightgbm"
_MODELS = ("teacher", "student_fp32", "student_int8", _TUNED, _DEFAULT)
#: AUC by model, by month.
Months = dict[int, dict[str, float]]


def measure() -> list[Result]:
    """The rolling months, all or those that the environment names."""
    chosen = os.environ.get("BENCH_QUALITY_MONTHS")
    months = tuple(int(month) for month in chosen.split(",")) if chosen else _MONTHS
    trials = int(os.environ.get("BENCH_QUALITY_TRIALS", _TRIALS))
    spec = flights_year.spec()
    year = flights_year.year(spec)
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            month: flights_year.split(year, month, spec.training.validation, Path(folder) / f"{month:02d}")
            for month in months
        }
        parameters = _tune(spec, [sets[month] for month in months if month in _CHOSEN_BY] or [sets[months[0]]], trials)
        found = {month: _month(spec, data, parameters) for month, data in sets.items()}
    _tell(found, parameters)
    results = _results(found, f"{trials} trials", "")
    unseen = {month: aucs for month, aucs in found.items() if month not in _CHOSEN_BY}
    return results + (_results(unseen, f"{trials} trials", "_unseen") if 0 < len(unseen) < len(found) else [])


def _month(spec: UseCase, data: Path, parameters: Mapping[str, Any]) -> dict[str, float]:
    """AUC on the month by model."""
    out = data / "out"
    entry.run(Job(spec=spec, data=data, out=out, threads=usable_cores()), lambda _: None)
    cards = json.loads((out / "scorecards.json").read_text("utf-8"))
    found = {card["model"]: float(card["metrics"]["auc"]) for card in cards}
    found[_TUNED] = _auc(spec, _tables(spec, data), parameters)
    return {name: found[name] for name in _MODELS}


def _tables(spec: UseCase, data: Path) -> tuple[Table, Table, Table]:
    return (
        read(spec, data / "train.parquet"),
        read(spec, data / "validation.parquet"),
        read(spec, data / "holdout.parquet"),
    )


def _auc(spec: UseCase, tables: tuple[Table, Table, Table], parameters: Mapping[str, Any]) -> float:
    train, validation, holdout = tables
    boosted = LightGbm(
        "binary",
        1,
        prepare.fit(train),
        train,
        validation,
        usable_cores(),
        spec.training.seed,
        metric=spec.gates.metric,
        parameters=parameters,
    )
    return metrics("binary", holdout.label, boosted(holdout))["auc"]


def _tune(spec: UseCase, sets: Sequence[Path], trials: int) -> Mapping[str, Any]:
    """LightGBM's parameters with the best mean AUC on these sets' months; the first trial is the defaults."""
    import optuna

    tables = [_tables(spec, data) for data in sets]

    def objective(trial: optuna.Trial) -> float:
        parameters = {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 7, 127, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 20, 1000, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 100.0, log=True),
            "cat_smooth": trial.suggest_float("cat_smooth", 5.0, 200.0, log=True),
            "cat_l2": trial.suggest_float("cat_l2", 5.0, 200.0, log=True),
        }
        trial.set_user_attr("parameters", {**parameters, "bagging_freq": 1})
        return sum(_auc(spec, parts, {**parameters, "bagging_freq": 1}) for parts in tables) / len(tables)

    default = sum(_auc(spec, parts, PARAMETERS) for parts in tables) / len(tables)
    if trials < 2:
        return PARAMETERS
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=spec.training.seed))
    study.optimize(objective, n_trials=trials - 1)
    return PARAMETERS if default > study.best_value else dict(study.best_trial.user_attrs["parameters"])


def _results(found: Months, tuned: str, suffix: str) -> list[Result]:
    mean = {name: sum(aucs[name] for aucs in found.values()) / len(found) for name in _MODELS}
    over = f"mean AUC of {len(found)} months of 2013 ({', '.join(map(str, sorted(found)))})"

    def result(name: str, ours: str, peer: str, asked: float | None, what: str) -> Result:
        gain = mean[ours] - mean[peer]
        aim = "" if asked is None else f", at least {asked:+.4f} is asked for"
        return Result(
            name=f"quality_{name}{suffix}",
            ours=mean[ours],
            peer=mean[peer],
            unit="AUC",
            # The aim is a difference: here as the ratio that it comes to.
            goal=None if asked is None else 1 + asked / mean[peer],
            note=f"{gain:+.4f}{aim}; {over}; peer: {what}",
        )

    trees = f"LightGBM tuned in {tuned}"
    return [
        result("teacher_vs_lightgbm", "teacher", _TUNED, _GOAL_TEACHER, trees),
        result("int8_vs_lightgbm", "student_int8", _TUNED, 0.0, trees),
        result("int8_vs_fp32", "student_int8", "student_fp32", -_GOAL_INT8, "the student before quantization"),
        result("teacher_vs_default_lightgbm", "teacher", _DEFAULT, None, "LightGBM as the gate has it, not tuned"),
    ]


def _tell(found: Months, parameters: Mapping[str, Any]) -> None:
    """Prints the months, and keeps them as <home>/bench/quality.json."""
    table = Printed(title="flights: AUC on each month, trained on all before")
    for heading in ("month", *_MODELS):
        table.add_column(heading)
    for month, aucs in found.items():
        table.add_row(str(month), *(f"{aucs[name]:.4f}" for name in _MODELS))
    table.add_row("mean", *(f"{sum(aucs[name] for aucs in found.values()) / len(found):.4f}" for name in _MODELS))
    Console(width=120).print(table)
    target = Settings().home / "bench" / "quality.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"months": found, "lightgbm": dict(parameters)}, indent=2) + "\n", "utf-8")

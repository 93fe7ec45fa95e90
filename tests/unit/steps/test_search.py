"""The step: a study's name, trials as nested runs of a real MLflow store, and what a training does with the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from safetensors.numpy import load_file

from pipelines.backends.local_trainer import LocalTrainer
from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.backends.optuna_search import OptunaSearcher
from pipelines.backends.psi import PopulationStability
from pipelines.errors import SpecError, TrainingError
from pipelines.records import RunInfo, SearchResult, TrainingSet, Trial
from pipelines.spec import UseCase
from pipelines.steps import training
from pipelines.steps.search import chosen, search, searched_tags, study_name
from tests.registries import open_registry
from tests.unit.backends.test_optuna_search import SPACE, SYNTHETIC
from tests.unit.training.conftest import make_spec, write

RUN = RunInfo(run_id="night", dag_id="toy_train", code_version="abc")
SET = TrainingSet(
    use_case="toy_binary",
    folder="/nonexistent",
    as_of="2024-03-01",
    snapshots=(),
    train=("2024-01-01", "2024-01-20"),
    validation=("2024-01-21", "2024-01-25"),
    holdout=("2024-01-26", "2024-03-01"),
    rows={"train": 10, "validation": 5, "holdout": 5},
    digest="d" * 64,
)


def spec_of(**training: Any) -> UseCase:
    return make_spec("binary", **{"search": {"trials": 8, "space": SPACE}, **training})


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make a database: it is made once."""
    folder = tmp_path_factory.mktemp("store") / "mlflow"
    open_registry("toy_binary", f"sqlite:///{folder / 'mlflow.db'}", folder / "unused").versions()
    return folder


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> MlflowRegistry:
    folder = shutil.copytree(empty_store, tmp_path / "mlflow")
    return open_registry("toy_binary", f"sqlite:///{folder / 'mlflow.db'}", tmp_path / "cache")


@pytest.fixture
def searcher(tmp_path: Path) -> OptunaSearcher:
    return OptunaSearcher(SecretStr(f"sqlite:///{tmp_path / 'mlflow' / 'optuna.db'}"), threads=1, program=SYNTHETIC)


def runs(registry: MlflowRegistry, words: str = "") -> list[Any]:
    client = registry._mlflow()
    experiment = client.get_experiment_by_name("toy_binary")
    return list(client.search_runs([experiment.experiment_id], words, order_by=["attributes.start_time ASC"]))


def nested(registry: MlflowRegistry, parent: str) -> dict[int, Any]:
    found = runs(registry, f"tags.`mlflow.parentRunId` = '{parent}'")
    by_index = {int(run.data.tags["overnight.trial"]): run for run in found}
    assert len(by_index) == len(found), "one run a trial"
    return by_index


def result_of(found: TrainingSet) -> SearchResult:
    assert found.searched is not None
    return found.searched


# -- MLflow ---------------------------------------------------------------------------------------------------------


def test_every_trial_is_a_run_below_the_searchs_with_its_settings_curve_and_state(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    told: dict[int, Trial] = {}
    found = search(spec_of(), searcher, registry, SET, RUN, lambda trial: told.__setitem__(trial.index, trial))
    result = result_of(found)
    assert result.run_id is not None
    children = nested(registry, result.run_id)
    assert sorted(children) == list(range(8))
    for index, run in children.items():
        trial = told[index]
        state = {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]
        assert run.info.status == state
        assert run.data.params == {name: str(value) for name, value in trial.parameters.items()}
        curve = registry._mlflow().get_metric_history(run.info.run_id, "teacher_validation")
        assert [(point.step, point.value) for point in curve] == list(enumerate(trial.curve, 1))
    assert {"complete", "pruned"} == {trial.state for trial in told.values()}
    [parent] = runs(registry, f"attributes.run_id = '{result.run_id}'")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best_validation"] == result.value
    assert parent.data.metrics["trials_pruned"] == result.pruned
    assert parent.data.tags["overnight.training_set"] == SET.digest


def test_neither_a_search_nor_its_trials_are_trainings(registry: MlflowRegistry, searcher: OptunaSearcher) -> None:
    search(spec_of(), searcher, registry, SET, RUN)
    assert registry.trainings() == []
    training = registry.start_training(spec_of(), {"overnight.training_key": "a" * 64})
    assert [entry.run_id for entry in registry.trainings()] == [training]


class Killed(BaseException):
    """What nothing catches."""


def test_a_search_that_was_killed_and_repeated_has_one_run_a_trial(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    events = 0

    def die(_: Trial) -> None:
        nonlocal events
        events += 1
        if events == 7:  # in the middle of the fourth trial
            raise Killed

    with pytest.raises(Killed):
        search(spec_of(), searcher, registry, SET, RUN, die)
    [parent] = runs(registry, "tags.`overnight.as_of` = '2024-03-01'")
    before = nested(registry, parent.info.run_id)
    assert [run.info.status for _, run in sorted(before.items())][-1] == "RUNNING"
    result = result_of(search(spec_of(), searcher, registry, SET, RUN))
    assert result.run_id == parent.info.run_id
    after = nested(registry, parent.info.run_id)
    assert sorted(after) == list(range(8))
    assert {index: run.info.run_id for index, run in before.items()}.items() <= {
        index: run.info.run_id for index, run in after.items()
    }.items()
    assert not [run for run in after.values() if run.info.status == "RUNNING"]
    for index, run in after.items():
        curve = registry._mlflow().get_metric_history(run.info.run_id, "teacher_validation")
        assert len({point.step for point in curve}) == len(curve), f"trial {index}: each epoch once"


def test_a_repeat_adds_nothing_and_a_larger_budget_adds_below_the_same_run(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    first = search(spec_of(), searcher, registry, SET, RUN)
    count = len(runs(registry))
    assert search(spec_of(), searcher, registry, SET, RUN) == first
    assert len(runs(registry)) == count
    more = result_of(search(spec_of(search={"trials": 10, "space": SPACE}), searcher, registry, SET, RUN))
    assert more.run_id == result_of(first).run_id
    assert len(runs(registry)) == count + 2
    assert more.value <= result_of(first).value


def test_a_search_in_which_everything_fails_is_a_failed_run_with_failed_trials(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    spec = spec_of(teacher={"depth": 7}, search={"trials": 2, "space": {"depth": [7], "width": [64, 128]}})
    with pytest.raises(TrainingError, match="none of 2 trials"):
        search(spec, searcher, registry, SET, RUN)
    [parent] = runs(registry, "tags.`overnight.as_of` = '2024-03-01'")
    assert parent.info.status == "FAILED"
    trials = nested(registry, parent.info.run_id)
    assert [run.info.status for run in trials.values()] == ["FAILED", "FAILED"]
    assert "the loss is nan" in trials[0].data.tags["overnight.error"]


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_study_is_named_by_all_that_a_trial_depends_on_and_by_nothing_else() -> None:
    base = study_name(spec_of(), SET, "abc")
    assert base.startswith("toy_binary-")
    same = [
        spec_of(search={"trials": 99, "minutes": 5, "parallel": 4, "enabled": True, "space": SPACE}),
        spec_of(student={"epochs": 1}),
        spec_of(compression="none"),
    ]
    assert {study_name(spec, SET, "abc") for spec in same} == {base}
    others = [
        spec_of(seed=8),
        spec_of(search={"trials": 8, "space": {"width": [64]}}),
        spec_of(teacher={"epochs": 9}),
        spec_of(class_weight="balanced"),
    ]
    names = {study_name(spec, SET, "abc") for spec in others}
    names |= {
        study_name(spec_of(), SET.model_copy(update={"digest": "e" * 64}), "abc"),
        study_name(spec_of(), SET, "d"),
    }
    assert len(names - {base}) == 6


# -- what comes of it -----------------------------------------------------------------------------------------------


def test_the_result_travels_as_json_and_sets_the_teacher_alone(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    spec = spec_of()
    found = TrainingSet.model_validate(json.loads(search(spec, searcher, registry, SET, RUN).model_dump_json()))
    result = result_of(found)
    changed = chosen(spec, found)
    assert {name: getattr(changed.training.teacher, name) for name in result.parameters} == result.parameters
    others = {name: value for name, value in changed.training.teacher if name not in result.parameters}
    assert others == {name: value for name, value in spec.training.teacher if name not in result.parameters}
    assert changed.model_copy(update={"training": spec.training}) == spec
    assert chosen(changed, found) == changed, "twice is once"
    assert len(json.dumps(found.model_dump(mode="json"))) < 4096, "small enough for an XCom"
    tags = searched_tags(found)
    assert tags["overnight.study"] == result.study
    assert tags["overnight.search_run"] == result.run_id
    assert json.loads(tags["overnight.searched"]) == result.parameters


def test_a_training_has_the_teacher_that_the_search_chose_and_says_so(registry: MlflowRegistry, tmp_path: Path) -> None:
    data = write(tmp_path / "data", "binary")
    pq.write_table(pq.read_table(data / "train.parquet").slice(0, 50), data / training.SAMPLE)
    result = SearchResult(
        study="toy_binary-1",
        run_id="f" * 32,
        parameters={"width": 24, "learning_rate": 0.02},
        trial=3,
        value=0.3,
        own_value=0.4,
        complete=5,
        pruned=1,
        failed=0,
        seconds=9.0,
        trials=6,
        minutes=None,
    )
    searched = SET.model_copy(update={"folder": str(data), "searched": result})
    spec = spec_of(student={"epochs": 1, "widths": [8]}, teacher={"k": 1, "width": 8, "depth": 1, "epochs": 1})
    trained = training.train(spec, LocalTrainer(1), registry, PopulationStability(), searched, RUN, tmp_path / "work")
    weights = load_file(Path(trained.folder) / "teacher.safetensors")
    assert {24} <= {size for tensor in weights.values() for size in tensor.shape}
    [run] = registry.trainings()
    assert run.tags["overnight.study"] == "toy_binary-1"
    assert run.tags["overnight.search_run"] == "f" * 32
    assert json.loads(run.tags["overnight.searched"]) == result.parameters
    assert json.loads(run.tags["overnight.parameters"])["teacher"]["width"] == 24
    provenance = json.loads((Path(trained.folder) / "provenance.json").read_text())
    assert provenance["searched"]["parameters"] == result.parameters
    plain = SET.model_copy(update={"folder": str(data)})
    other = training.train(spec, LocalTrainer(1), registry, PopulationStability(), plain, RUN, tmp_path / "work")
    assert other.run_id != trained.run_id, "another teacher is another training"


def test_without_a_search_nothing_changes() -> None:
    spec = spec_of()
    assert chosen(spec, SET) is spec
    assert searched_tags(SET) == {}


def test_a_model_without_a_teacher_has_nothing_to_search_for(
    registry: MlflowRegistry, searcher: OptunaSearcher
) -> None:
    with pytest.raises(SpecError, match="'lightgbm', which has no teacher"):
        search(spec_of(model="lightgbm"), searcher, registry, SET, RUN)
    assert registry.trainings() == []

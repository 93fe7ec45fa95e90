"""The search: torch's workers on real rows where it matters, synthetic ones where there must be many trials."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from pipelines.backends.optuna_search import OptunaSearcher
from pipelines.backends.optuna_study import open_study
from pipelines.errors import TrainingError, UnavailableError
from pipelines.records import SearchResult, Trial
from pipelines.spec import Teacher, UseCase
from pipelines.training.job import Job
from pipelines.training.trial import Trials
from tests.servers.celery_backing import needs_celery_backing, postgres
from tests.unit.backends.synthetic_worker import losses
from tests.unit.training.conftest import make_spec, write

SYNTHETIC = (sys.executable, "-S", str(Path(__file__).with_name("synthetic_worker.py")))
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "width": [16, 32, 64, 128, 256],
    "depth": [1, 2],
}


def spec_of(seed: int = 7, space: dict[str, Any] | None = None, **search: Any) -> UseCase:
    return make_spec("binary", seed=seed, search={"trials": 12, "space": space or SPACE, **search})


@dataclass
class Searched:
    """A finished search, and what was told of it."""

    result: SearchResult
    told: list[Trial] = field(default_factory=list)

    @property
    def ended(self) -> list[Trial]:
        return [trial for trial in self.told if trial.state != "running"]

    @property
    def begun(self) -> list[int]:
        return [trial.index for trial in self.told if trial.state == "running"]


def plain(trial: Trial) -> dict[str, Any]:
    """Without what a clock has a say in."""
    return trial.model_dump(exclude={"seconds"})


def search(root: Path, spec: UseCase, url: str | None = None, data: Path | None = None, **options: Any) -> Searched:
    told: list[Trial] = []
    searcher = OptunaSearcher(
        SecretStr(url or f"sqlite:///{root / 'optuna.db'}"), **{"threads": 2, "program": SYNTHETIC, **options}
    )
    return Searched(searcher.search(spec, data or root, "toy", told.append), told)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("search") / "data", "binary")


REAL: dict[str, Any] = {"learning_rate": {"low": 1e-4, "high": 2e-2, "log": True}, "width": [16, 32]}


@pytest.fixture(scope="module")
def real(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Nine teachers, one after another, in a process of their own."""
    from pipelines.backends.trial_workers import PROGRAM

    spec = spec_of(space=REAL, trials=9)
    return search(tmp_path_factory.mktemp("real"), spec, data=rows, threads=1, program=PROGRAM)


# -- on real rows ---------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_specs_own_and_the_search_ends_no_worse(real: Searched) -> None:
    own = spec_of().training.teacher
    first = real.ended[0]
    assert first.parameters == {"learning_rate": own.learning_rate, "width": own.width}
    assert first.state == "complete"
    assert real.result.own_value == first.value
    assert first.value is not None
    assert real.result.value <= first.value
    assert real.result.value == min(trial.value or 9 for trial in real.ended if trial.state == "complete")


def test_a_trial_that_is_worse_than_most_is_ended_before_its_last_epoch(real: Searched) -> None:
    epochs = spec_of().training.teacher.epochs
    pruned = [trial for trial in real.ended if trial.state == "pruned"]
    assert pruned
    assert real.result.pruned == len(pruned)
    assert all(len(trial.curve) < epochs for trial in pruned)
    assert all(len(trial.curve) >= 2 for trial in real.ended if trial.state == "complete")


def test_a_trial_comes_to_the_same_by_itself_whatever_was_tried_before(real: Searched, rows: Path) -> None:
    spec = spec_of()
    trials = Trials(Job(spec=spec, data=rows, out=rows, threads=1))
    for trial in (real.ended[real.result.trial], real.ended[0]):
        told: list[float] = []
        settings = Teacher.model_validate({**spec.training.teacher.model_dump(), **trial.parameters})
        judged = trials.run(settings, lambda _, value, told=told: not told.append(value))  # type: ignore[misc]
        assert tuple(told) == trial.curve, "bit for bit, in another process"
        assert (judged.value, judged.epoch) == (trial.value, trial.epoch)


def test_two_at_once_run_in_two_processes_and_come_to_what_they_would_alone(rows: Path, tmp_path: Path) -> None:
    from pipelines.backends.trial_workers import PROGRAM

    spec = spec_of(space=REAL, trials=4, parallel=2)
    workers: set[int] = set()

    def looked(trial: Trial) -> None:
        told.append(trial)
        workers.update(
            child.pid for child in psutil.Process().children() if "trial_worker" in " ".join(child.cmdline())
        )

    told: list[Trial] = []
    searcher = OptunaSearcher(SecretStr(f"sqlite:///{tmp_path / 'optuna.db'}"), threads=2, program=PROGRAM)
    result = searcher.search(spec, rows, "toy", looked)
    assert len(workers) == 2
    assert [trial.state for trial in told[:2]] == ["running", "running"]
    assert result.complete + result.pruned == 4
    alone = Trials(Job(spec=spec, data=rows, out=rows, threads=1))
    for trial in told:
        if trial.state == "complete":
            settings = Teacher.model_validate({**spec.training.teacher.model_dump(), **trial.parameters})
            assert alone.run(settings, lambda *_: True).value == trial.value
    assert not [pid for pid in workers if psutil.pid_exists(pid)]


def test_data_that_no_trial_can_learn_from_ends_the_search_at_once(tmp_path: Path) -> None:
    from pipelines.backends.trial_workers import PROGRAM

    data = write(tmp_path / "data", "binary", train=lambda old: old | {"label": [1.0] * len(old["id"])})
    with pytest.raises(TrainingError, match=r"train\.parquet: every label is 1"):
        search(tmp_path, spec_of(), data=data, program=PROGRAM)


# -- seeds ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_search_and_another_seed_another(tmp_path: Path) -> None:
    found = [search(tmp_path / name, spec_of(seed=seed)) for name, seed in (("a", 7), ("b", 7), ("c", 8))]
    first, again, other = ([plain(trial) for trial in entry.ended] for entry in found)
    assert first == again
    assert first[0] == other[0], "the spec's own settings"
    assert all(mine["parameters"] != theirs["parameters"] for mine, theirs in zip(first[1:], other[1:], strict=True))


def test_what_is_proposed_gets_better_than_chance(tmp_path: Path) -> None:
    found = search(tmp_path, spec_of(trials=40)).ended

    def miss(trials: list[Trial]) -> float:
        return sum(losses({**trial.parameters, "epochs": 1})[0] - 1 for trial in trials) / len(trials)

    assert miss(found[25:]) < 0.7 * miss(found[1:10])


# -- going on -------------------------------------------------------------------------------------------------------

_SEARCH = """
import sys
from pathlib import Path
from pydantic import SecretStr
from pipelines.backends.optuna_search import OptunaSearcher
from pipelines.spec import UseCase
url, spec, *program = sys.argv[1:]
OptunaSearcher(SecretStr(url), threads=2, program=program).search(
    UseCase.model_validate_json(spec), Path("."), "toy", lambda trial: print(trial.model_dump_json(), flush=True)
)
"""


def kill_after(events: int, root: Path, spec: UseCase) -> list[Trial]:
    """Kills a search, with SIGKILL, when it has told so much; what it told. Its workers must be gone soon after."""
    arguments = [f"sqlite:///{root / 'optuna.db'}", spec.model_dump_json(), *SYNTHETIC]
    process = subprocess.Popen(
        [sys.executable, "-c", _SEARCH, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SYNTHETIC_SECONDS": "0.02"},
    )
    assert process.stdout is not None
    with process.stdout:
        told = [Trial.model_validate_json(line) for line in itertools.islice(process.stdout, events)]
        time.sleep(0.03)  # between two epochs, or in one
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(told) == events, "it was killed, it did not end"
    assert children
    assert not psutil.wait_procs(children, timeout=10)[1], "no worker outlives its search"
    return told


def test_a_search_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    spec = spec_of()
    whole = search(tmp_path / "whole", spec)
    seen: list[Trial] = []
    for events in (1, 6, 12):
        seen = kill_after(events, tmp_path, spec)
    kept = [trial.index for trial in seen if trial.state != "running"]
    rest = search(tmp_path, spec)
    assert [plain(trial) for trial in rest.ended] == [plain(trial) for trial in whole.ended]
    assert len(rest.ended) == spec.training.search.trials, "the budget is over restarts"
    assert kept
    assert not set(kept) & set(rest.begun), "what had ended is not tried again"
    assert rest.result.parameters == whole.result.parameters


def test_a_repeat_tries_nothing_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    first = search(tmp_path, spec_of(trials=5))
    repeated = search(tmp_path, spec_of(trials=5), program=("/nonexistent",))
    assert repeated.begun == []
    assert repeated.result == first.result
    more = search(tmp_path, spec_of(trials=12))
    assert more.begun == list(range(5, 12))
    assert [plain(trial) for trial in more.ended] == [plain(trial) for trial in search(tmp_path / "b", spec_of()).ended]


def test_two_searches_of_one_study_at_once_lose_and_invent_nothing(tmp_path: Path) -> None:
    """An attempt that was given up for lost, and its retry."""
    results: list[Searched] = []
    threads = [threading.Thread(target=lambda: results.append(search(tmp_path, spec_of(parallel=2)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    with open_study(f"sqlite:///{tmp_path / 'optuna.db'}", "toy", spec_of().training.search, Teacher(), 7) as study:
        stored, _ = study.read()
    assert list(stored) == list(range(12))
    assert results[0].result.value == results[1].result.value


def test_trials_that_share_a_file_with_other_studies_keep_apart(tmp_path: Path) -> None:
    url = SecretStr(f"sqlite:///{tmp_path / 'optuna.db'}")
    counts = [
        OptunaSearcher(url, program=SYNTHETIC).search(spec_of(trials=trials), tmp_path, name, lambda _: None)
        for name, trials in (("one", 2), ("another", 3))
    ]
    assert [found.complete + found.pruned for found in counts] == [2, 3]


# -- budgets --------------------------------------------------------------------------------------------------------


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that moves on each time somebody looks."""
    count = itertools.count()
    return lambda: next(count) * seconds


def test_no_trial_begins_after_the_minutes_are_over_and_restarts_count(tmp_path: Path) -> None:
    spec = spec_of(trials=1000, minutes=1.0)
    first = search(tmp_path, spec, clock=ticking(1.0))
    assert 1 <= len(first.ended) < 30
    assert first.result.seconds >= 60
    again = search(tmp_path, spec, clock=ticking(1.0))
    assert again.begun == []
    assert again.result == first.result
    longer = search(tmp_path, spec_of(trials=1000, minutes=1.5), clock=ticking(1.0))
    assert 1 <= len(longer.begun) < len(first.begun), "only what was added"


def test_minutes_that_are_over_before_anything_was_tried_still_allow_the_specs_own(tmp_path: Path) -> None:
    found = search(tmp_path, spec_of(minutes=0.001), clock=ticking(0.03))
    assert found.begun == [0]
    assert found.result.trial == 0


# -- failures -------------------------------------------------------------------------------------------------------


def test_a_trial_that_cannot_learn_or_dies_is_a_failed_trial_and_the_search_goes_on(tmp_path: Path) -> None:
    found = search(tmp_path, spec_of(space={**SPACE, "depth": [1, 7, 8]}, trials=15))
    errors = {trial.parameters["depth"]: trial.error for trial in found.ended if trial.state == "failed"}
    assert errors[7] == "teacher epoch 1 step 2: the loss is nan."
    assert "ended with code -9" in str(errors[8])
    assert len(found.ended) == 15
    assert all(trial.state == "failed" for trial in found.ended if trial.parameters["depth"] == 7)
    assert not [trial for trial in found.ended if trial.parameters["depth"] == 8 and trial.state == "complete"]
    assert found.result.failed == sum(trial.state == "failed" for trial in found.ended)
    assert found.result.parameters["depth"] == 1


def test_what_failed_is_hardly_tried_again(tmp_path: Path) -> None:
    found = search(tmp_path, spec_of(space={**SPACE, "depth": [1, 7]}, trials=36)).ended
    assert sum(trial.state == "failed" for trial in found[1:11]) >= 2
    # Left to itself, the sampler goes back to them: 15 to 20 of these 20 failed on four seeds.
    assert sum(trial.state == "failed" for trial in found[-20:]) <= 8


def test_when_every_trial_fails_the_search_fails_and_says_why(tmp_path: Path) -> None:
    spec = spec_of(space={**SPACE, "depth": [7]}, trials=3)
    wild = spec.training.teacher.model_copy(update={"depth": 7})
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"teacher": wild})})
    with pytest.raises(TrainingError, match=r"none of 3 trials.*the loss is nan.*Remedy"):
        search(tmp_path, spec)


def test_workers_that_do_not_start_are_worth_a_retry(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"ended with code 1: .*no such thing.*before it had read the data"):
        search(tmp_path, spec_of(), program=(sys.executable, "-c", "import sys; sys.exit('no such thing')"))


def test_a_database_that_does_not_answer_is_worth_a_retry_and_its_password_is_not_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        search(tmp_path, spec_of(), url="postgresql+psycopg2://somebody:canary@127.0.0.1:9/optuna")
    assert "canary" not in str(caught.value)
    assert "somebody:***@127.0.0.1:9" in str(caught.value)


# -- spaces ---------------------------------------------------------------------------------------------------------


def test_the_specs_own_settings_are_tried_though_they_lie_outside_the_space(tmp_path: Path) -> None:
    space = {"learning_rate": {"low": 0.02, "high": 0.05}, "width": [64, 128]}
    found = search(tmp_path, spec_of(space=space, trials=14))
    assert found.ended[0].parameters == {"learning_rate": 0.01, "width": 32}
    assert all(0.02 <= trial.parameters["learning_rate"] <= 0.05 for trial in found.ended[1:])  # type: ignore[operator]


def test_a_range_of_whole_numbers_gives_whole_numbers(tmp_path: Path) -> None:
    space = {"k": {"low": 1, "high": 6}, "width": {"low": 8, "high": 512, "log": True}}
    found = search(tmp_path, spec_of(space=space, trials=6))
    assert all(isinstance(value, int) for trial in found.ended for value in trial.parameters.values())
    assert len({trial.parameters["k"] for trial in found.ended}) > 1


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "name at least one"),
        ({"width": []}, "width: name values"),
        ({"width": [64, 64]}, "width: name values, each once"),
        ({"width": [64, 4]}, "width: 4: .*greater than or equal to 8"),
        ({"k": {"low": 0.5, "high": 4}}, "k: 0.5"),
        ({"learning_rate": {"low": 0.1, "high": 7}}, "learning_rate: 7.0: .*less than 1"),
        ({"embeddings": ["piecewise", "sines"]}, "embeddings: 'sines'"),
        ({"epochs": [3]}, "epochs"),
    ],
)
def test_a_space_that_the_teacher_does_not_allow_is_refused_when_the_spec_is_read(
    space: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make_spec("binary", search={"space": space})


# -- a server -------------------------------------------------------------------------------------------------------


@needs_celery_backing
def test_on_postgresql_it_is_the_same_search(tmp_path: Path) -> None:
    spec = spec_of(trials=8)
    with postgres() as url:
        found = search(tmp_path, spec, url=url)
        assert search(tmp_path, spec, url=url).begun == []
    here = search(tmp_path / "here", spec)
    assert [plain(trial) for trial in found.ended] == [plain(trial) for trial in here.ended]
    assert json.loads(found.result.model_dump_json())["parameters"] == here.result.parameters

"""A command line bound to a case's folders, and a runtime on the same."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from tests.cases import Case, make_flights_case

#: Partitions of the trained case: what its champion learned from, and the nights that follow.
HISTORY = ("2013-01-01", "2013-01-16")
NIGHTS = ("2013-01-17", "2013-01-18", "2013-01-19", "2013-01-20")


def settings_of(case: Case, home: Path) -> Settings:
    """Settings that name a case's folders and a home of the test's own."""
    return Settings(project=case.project, landing=case.landing, home=home, code_version="test")


def runtime_of(case: Case, home: Path, run_id: str = "test") -> Runtime:
    """The chain of a case."""
    run = RunInfo(run_id=run_id, dag_id="test", code_version="test")
    return Runtime.open(case.spec.name, run=run, settings=settings_of(case, home))


def command_line(case: Case, home: Path, *arguments: str) -> Result:
    """Runs `overnight ...` in this process, with the environment that a shell would set."""
    env = {
        "OVERNIGHT_PROJECT": str(case.project),
        "OVERNIGHT_LANDING": str(case.landing),
        "OVERNIGHT_HOME": str(home),
        "OVERNIGHT_CODE_VERSION": "test",
    }
    return CliRunner().invoke(main, list(arguments), env={**os.environ, **env})


def state(home: Path) -> dict[str, str]:
    """Digest of everything that readers may see: the published tables' files and logs."""
    root = home / "snapshots"
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    visible = [path for path in files if not any(part.startswith("_staging") for part in path.parts)]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in visible
        if "_quarantine" not in path.parts
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the test's own run writes."""
    return tmp_path / "var"


def ingest(runtime: Runtime, partitions: list[str]) -> None:
    """Lands, validates and publishes every table."""
    for table in runtime.tables():
        runtime.publish(runtime.validate(runtime.land(table, partitions)))


def score(runtime: Runtime, partitions: list[str], version: int | None = None) -> tuple[str, ...]:
    """Scores, audits and publishes; the state of each partition."""
    done = runtime.publish_scores(runtime.audit_scores(runtime.score(partitions, version)))
    return tuple(entry.state for entry in done)


def train(runtime: Runtime, as_of: str, reason: str = "test") -> int:
    """Trains, gates, registers and promotes; the version."""
    trained = runtime.train(runtime.build_training_set(as_of))
    evaluation = runtime.evaluate(trained)
    report = runtime.gate(trained, evaluation)
    model = runtime.register(trained, evaluation, report)
    return runtime.promote(model, evaluation, report, reason, as_of).version


#: Two weeks train no good model, and the second one may be worse: here the gates are evaluated, not tested. It must
#: only be better than a constant, so it learns a little longer than the other small cases.
TRAINED: dict[str, object] = {
    "gates": {"margin_over_champion": -1.0, "max_slice_loss": 1.0},
    "training": {
        "teacher": {"k": 4, "width": 64, "depth": 2, "epochs": 6, "batch_rows": 256, "learning_rate": 0.003},
        "student": {"widths": [64, 32], "epochs": 10, "batch_rows": 256, "learning_rate": 0.003},
        "calibration_rows": 512,
        "validation": 3,
        "holdout": 3,
    },
}


@pytest.fixture(scope="session")
def trained_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("chain")
    return make_flights_case(root / "project", root / "landing", changes=TRAINED)


@pytest.fixture(scope="session")
def trained_home(trained_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """History, a champion and one scored night: made once, copied by each test."""
    home = tmp_path_factory.mktemp("trained") / "var"
    runtime = runtime_of(trained_case, home)
    ingest(runtime, runtime.span(*HISTORY))
    assert train(runtime, HISTORY[1]) == 1
    ingest(runtime, [NIGHTS[0]])
    assert score(runtime, [NIGHTS[0]]) == ("published",)
    return home


@pytest.fixture
def runtime(trained_case: Case, trained_home: Path, tmp_path: Path) -> Runtime:
    """The chain on a copy of that state, and a landing zone of its own."""
    shutil.copytree(trained_home, tmp_path / "var")
    shutil.copytree(trained_case.landing, tmp_path / "landing")
    mine = Case(
        project=trained_case.project,
        landing=tmp_path / "landing",
        path=trained_case.path,
        spec=trained_case.spec,
        keys=trained_case.keys,
    )
    return runtime_of(mine, tmp_path / "var")

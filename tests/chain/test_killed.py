"""kill -9 in the middle of a night with its training, then the same command again: the state equals a clean run's."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import Runtime
from tests.cases import Case
from tests.chain.conftest import NIGHTS, runtime_of

_NIGHT = NIGHTS[1]


def _overnight(case: Case, home: Path, failpoint: str | None = None) -> int:
    env = {
        **os.environ,
        "OVERNIGHT_PROJECT": str(case.project),
        "OVERNIGHT_LANDING": str(case.landing),
        "OVERNIGHT_HOME": str(home),
        "OVERNIGHT_CODE_VERSION": "test",
    }
    if failpoint:
        env["OVERNIGHT_FAILPOINT"] = failpoint
    command = [sys.executable, "-c", "from pipelines.cli import main; main()"]
    arguments = ["run", case.spec.name, "--partition", _NIGHT, "--train"]
    return subprocess.run([*command, *arguments], env=env, capture_output=True, check=False).returncode


def _outcome(runtime: Runtime) -> dict[str, object]:
    """Everything that a night and its training leave for readers, without what names the run."""
    tables = ("rows", "labels", "weather", "planes")
    return {
        **{
            table: {key: part.digest for key, part in runtime.store.partitions(runtime.store.head(table)).items()}
            for table in tables
        },
        "predictions": runtime.store.scan(runtime.store.head("predictions")).drop("scored_at").collect().rows(),
        "log": [(entry.epoch, entry.version, entry.previous) for entry in runtime.promotions()],
        "versions": [model.version for model in runtime.registry.versions()],
        # Not the artifact's digest: its papers hold timings.
        "served": hashlib.sha256((runtime.registry.fetch(runtime.model()) / "model.onnx").read_bytes()).hexdigest(),
        "aliases": {name: runtime.registry.alias(name) for name in ("champion", "previous", "challenger")},
    }


@pytest.fixture(scope="module")
def clean(trained_case: Case, trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run that nobody disturbed leaves."""
    home = tmp_path_factory.mktemp("clean") / "var"
    shutil.copytree(trained_home, home)
    assert _overnight(trained_case, home) == 0
    return _outcome(runtime_of(trained_case, home))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", ["publish.linked", "train.logged", "promote.appended"])
def test_a_night_killed_in_the_middle_and_run_again_ends_like_a_clean_one(
    point: str, trained_case: Case, trained_home: Path, clean: dict[str, object], tmp_path: Path
) -> None:
    home = tmp_path / "var"
    shutil.copytree(trained_home, home)
    assert _overnight(trained_case, home, point) == -signal.SIGKILL
    assert _overnight(trained_case, home) == 0
    assert _outcome(runtime_of(trained_case, home)) == clean

"""A command line bound to a case's folders, and a runtime on the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from tests.cases import Case

Overnight = Callable[..., Result]


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

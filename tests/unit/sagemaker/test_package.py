"""The code that a job gets: the same bytes every time, all that training needs and nothing else."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

from pipelines.backends import sagemaker_package
from pipelines.backends.sagemaker_package import ARCHIVE, code_files, digest_of, training_modules
from pipelines.training import start


def test_the_same_source_gives_the_same_bytes_wherever_and_whenever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = code_files()
    copy = tmp_path / "pipelines"
    shutil.copytree(sagemaker_package._ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    monkeypatch.setattr(sagemaker_package, "_ROOT", copy)
    monkeypatch.setattr(training_modules, "__defaults__", (copy,))
    assert code_files() == first
    (copy / "training" / "job.py").write_text((copy / "training" / "job.py").read_text() + "\n# changed\n")
    assert digest_of(code_files()) != digest_of(first)


def test_only_what_training_reaches_is_packed() -> None:
    names = zipfile.ZipFile(io.BytesIO(code_files()[ARCHIVE])).namelist()
    assert {"pipelines/__init__.py", "pipelines/spec/use_case.py", "pipelines/training/entry.py"} <= set(names)
    rooms = ("backends", "steps", "cli", "scoring", "features", "policies")
    assert not [name for name in names if name.split("/")[1] in rooms or name.endswith("settings.py")]


def test_the_package_trains_from_the_zip_alone(tmp_path: Path) -> None:
    archive = tmp_path / ARCHIVE
    archive.write_bytes(code_files()[ARCHIVE])
    code = "import pipelines.training.entry, pipelines.training.contract as c; print(c.__file__)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(archive)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(archive))


def test_a_container_installs_only_what_its_image_lacks() -> None:
    packages = {"json": "json==1", "surely_not_there": "surely-not-there==2.0"}
    assert start.missing(packages) == ["surely-not-there==2.0"]
    import json

    assert start.missing(json.loads(code_files()["packages.json"])) == [], "everything is here"

"""The rooms keep to themselves. What imports may be is in pyproject.toml; this is what imports do not show."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys

import pytest

from pipelines.failpoints import NAMES
from pipelines.spec import load_spec
from tests.cases import REPOSITORY

_HEAVY = (
    "torch",
    "mlflow",
    "great_expectations",
    "evidently",
    "onnxruntime",
    "pandas",
    "lightgbm",
    "polars",
    "airflow",
)
#: Columns whose names are plain words that any code may use ...
_PLAIN = {"year", "model", "origin", "engine", "flight", "distance", "temperature"}
#: ... and those of them that mean something else here even between quotes.
_TERMS = {"model", "engine", "temperature"}


def test_nothing_outside_features_knows_a_column_of_flights() -> None:
    spec = load_spec(REPOSITORY / "include" / "use_cases" / "flights.yaml")
    columns = {name for table in spec.tables.values() for name in table.columns} | set(spec.features.columns)
    words = re.compile(rf"\b({'|'.join(sorted(columns - _PLAIN))})\b")
    quoted = re.compile(rf"""["']({"|".join(sorted(_PLAIN - _TERMS))})["']""")
    found = [
        f"{path.relative_to(REPOSITORY)}: {match.group()}"
        for path in (REPOSITORY / "pipelines").rglob("*.py")
        if "features" not in path.parts
        for match in [*words.finditer(path.read_text()), *quoted.finditer(path.read_text())]
    ]
    assert found == []


@pytest.mark.parametrize("module", ["pipelines.spec", "pipelines.records", "pipelines.runtime", "pipelines.cli"])
def test_what_every_process_imports_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(_HEAVY) & set(loaded)


def test_every_failpoint_is_killed_at_in_some_test() -> None:
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*killed.py"))
    assert [name for name in NAMES if name not in tests] == []


@pytest.mark.parametrize("module", ["pipelines.errors", "pipelines.partitions"])
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0

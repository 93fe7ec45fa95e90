"""A search from the command line: the champion has the teacher that was chosen, and its trace is what it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.spec import load_spec
from tests.cases import Case
from tests.chain.conftest import command_line, runtime_of


@pytest.fixture
def searching(third_case: Case, tmp_path: Path) -> Case:
    """The readings with a space and a budget; the spec alone does not ask for a search."""
    project = shutil.copytree(third_case.project, tmp_path / "project")
    path = project / third_case.path.relative_to(third_case.project)
    written = yaml.safe_load(path.read_text())
    written["training"]["search"] = {"trials": 3, "space": {"width": [24, 40]}}
    path.write_text(yaml.safe_dump(written))
    return replace(third_case, project=project, path=path, spec=load_spec(path))


def test_a_chain_that_searches_promotes_what_was_chosen_and_traces_as_before(searching: Case, home: Path) -> None:
    chosen = ("--from", searching.keys[0], "--to", searching.keys[-1])
    done = command_line(searching, home, "run", "readings", *chosen, "--search")
    assert done.exit_code == 0, done.output
    assert "trial 0 complete" in done.output
    assert "search readings-" in done.output
    assert "champion: readings@1" in done.output
    assert (home / "mlflow" / "optuna.db").is_file()
    [training] = runtime_of(searching, home).registry.trainings()
    found = json.loads(training.tags["overnight.searched"])
    assert found["width"] in (16, 24, 40)
    assert json.loads(training.tags["overnight.parameters"])["teacher"]["width"] == found["width"]
    traced = command_line(searching, home, "trace", "readings@1", "--json")
    assert traced.exit_code == 0, traced.output
    kinds: list[tuple[str, str]] = []

    def walk(link: dict[str, Any]) -> None:
        kinds.append((link["kind"], link["id"]))
        for each in link["links"]:
            walk(each)

    walk(json.loads(traced.output)["root"])
    assert {name for kind, name in kinds if kind == "training"} == {training.run_id}, "neither search nor trials"

    as_of = ("--partition", searching.keys[-1])
    built = command_line(searching, home, "step", "build-training-set", "readings", *as_of)
    (home / "set.json").write_text(built.stdout)
    again = command_line(searching, home, "step", "search", "readings", "--in", str(home / "set.json"))
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["searched"]["parameters"] == found
    assert "running" not in again.stderr, "the same training set, spec and code: the search is found again"

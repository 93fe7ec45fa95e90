"""`overnight`: exit codes, help, and errors without tracebacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.cases import REPOSITORY


def overnight(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(arguments))
    return done.exit_code, done.output


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    code, said = overnight(command, "--help")
    assert code == 0
    assert said.startswith("Usage:")


@pytest.mark.parametrize("name", ["flights", "arrival_delay"])
def test_the_shipped_specs_are_good(name: str) -> None:
    code, said = overnight("check", str(REPOSITORY / "include" / "use_cases" / f"{name}.yaml"))
    assert (code, "good" in said) == (0, True)


def test_a_bad_spec_fails_with_one_line_that_names_the_key(tmp_path: Path) -> None:
    good = (REPOSITORY / "include" / "use_cases" / "flights.yaml").read_text()
    bad = tmp_path / "flights.yaml"
    bad.write_text(good.replace("suite: flights_rows", "siute: flights_rows").replace("suite: ", "# "))
    code, said = overnight("check", str(bad))
    assert code == 1
    assert "tables.rows.siute" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "flights"),
        ("run", "flights", "--partition", "2013-9-1"),
        ("run", "flights", "--partition", "../etc"),
        ("run", "flights", "--from", "2013-09-02", "--to", "2013-09-01"),
        ("run", "flights", "--partition", "2013-09-01", "--from", "2013-09-01", "--to", "2013-09-02"),
        ("step", "land", "flights", "--partition", "2013-09-01"),
        ("step", "land", "flights", "--table", "nothing", "--partition", "2013-09-01"),
        ("step", "no-such-step", "flights"),
        ("data", "nothing"),
        ("history", "flights", "nothing"),
        ("history", "flights", "../rows"),
        ("history", "flights", "rows", "--last", "0"),
        ("diff", "flights", "rows", "1"),
        ("revert", "flights", "rows", "--to", "1"),
        ("pin", "flights", "rows", "head", "before-the-move"),
        ("collect", "flights", "--older-than", "soon"),
        ("collect", "flights", "--older-than", "-3d"),
        ("replay", "flights@1"),
        ("replay", "flights/rows/2013-09-03"),
        ("replay", "flights/predictions/2013-09-03#key"),
        ("no-such-command",),
    ],
)
def test_misuse_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    code, said = overnight(*arguments)
    assert code == 2, said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["nothing", "../flights", "a/b"])
def test_an_unknown_use_case_fails_and_says_so(name: str) -> None:
    code, said = overnight("run", name, "--partition", "2013-09-01")
    assert code == 1
    assert "Traceback" not in said

"""`overnight gate`, `promote`, `rollback`, `log` and `aliases`: what they print, their exit codes, and misuse."""

from __future__ import annotations

import getpass
import json
import os

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.cases.champions import DAYS, NAME, Champions


def overnight(champions: Champions, *arguments: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    env = {
        **os.environ,
        "OVERNIGHT_PROJECT": str(champions.project),
        "OVERNIGHT_HOME": str(champions.home),
        "OVERNIGHT_CODE_VERSION": "test",
        "COLUMNS": "100",
    }
    done = CliRunner().invoke(main, list(arguments), env=env)
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_dry_run_explains_every_gate_and_stores_nothing(champions: Champions) -> None:
    champions.promote(1)
    code, said = overnight(champions, "gate", NAME, "--dry-run")
    assert code == 0, said
    lines = said.splitlines()
    assert lines[0].startswith(f"{NAME}@3, against champion {NAME}@1: auc on ")
    assert f"{DAYS[9]} to {DAYS[10]}, known on {DAYS[11]}" in " ".join(lines[:2])
    assert "asks: gates.bound = 0.5" in said
    assert "asks: gates.margin_over_champion = -1.0" in said
    assert lines[-1].endswith("(dry run: nothing was stored)")
    assert max(map(len, lines)) <= 120
    tags = {training.run_id: training.tags for training in champions.runtime().registry.trainings()}
    assert "overnight.gate" not in tags[champions.runtime().candidate(3).run_id]


def test_a_verdict_is_stored_with_the_run_and_a_refusal_is_exit_code_1(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("strict"), gates={"bound": 0.999})
    code, said = overnight(champions, "gate", NAME, "--version", "2")
    assert code == 1
    assert "REFUSED  auc 0." in said
    assert "at least 0.9990 is asked for" in said
    assert "refused: bound" in said
    runtime = champions.runtime()
    tags = {training.run_id: training.tags for training in runtime.registry.trainings()}
    assert tags[runtime.candidate(2).run_id]["overnight.gate"] == "refused"
    code, said = overnight(champions, "gate", NAME, "--version", "2", "--dry-run", "--json")
    found = json.loads(said)
    assert (code, found["passed"], found["version"], found["champion"]) == (1, False, 2, None)
    (bound,) = [gate for gate in found["gates"] if gate["name"] == "bound"]
    assert bound["asks"]["gates.bound"] == 0.999
    code, said = overnight(champions, "promote", NAME, "2", "--reason", "please")
    assert code == 1
    assert "GateRefused: valves@2: promotion: bound: auc 0." in said
    assert champions.runtime().promotions() == []


def test_promote_rollback_and_their_log(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("manual"), promotion="manual")
    code, said = overnight(champions, "promote", NAME, "1", "--reason", "the first one")
    assert code == 0, said
    assert f"champion: {NAME}@1, epoch 1" in said
    code, said = overnight(champions, "promote", NAME, "1", "--reason", "again")
    assert (code, said.strip()) == (0, f"{NAME}@1 is the champion already, since epoch 1: nothing to do")
    reason = "it is\nbetter on \x1b[31mvalves of the north, " + "as everybody could see, " * 4
    assert overnight(champions, "promote", NAME, "2", "--reason", reason)[0] == 0
    code, said = overnight(champions, "rollback", NAME, "--reason", "not so")
    assert (code, said.strip()) == (0, f"champion: {NAME}@1 (was 2), epoch 3")
    code, said = overnight(champions, "rollback", NAME, "--to", "1", "--reason", "not so")
    assert (code, "nothing to do" in said) == (0, True)
    code, said = overnight(champions, "rollback", NAME, "--to", "3", "--reason", "x")
    assert (code, "version 3 was not champion before 1" in said) == (1, True)

    code, said = overnight(champions, "rollback", NAME, "--reason", "further back")
    assert (code, "there is no earlier champion" in said) == (1, True), "two commands are two runs"

    code, said = overnight(champions, "log", NAME)
    lines = said.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 100
    heads = [line for line in lines if line.lstrip()[0].isdigit()]
    assert heads == [
        f"    1  promote   {NAME}@1  the first champion  as of {DAYS[11]}",
        f"    2  promote   {NAME}@2  was {NAME}@1  as of {DAYS[11]}",
        f"    3  rollback  {NAME}@1  was {NAME}@2  as of {DAYS[11]}",
    ]
    assert said.count(f"approved by {getpass.getuser()}") == 3
    assert "\x1b" not in said
    assert "gates       " in said
    assert "comparable: passed" not in said
    assert "comparable: passed" in overnight(champions, "log", NAME, "-v")[1]
    entries = json.loads(overnight(champions, "log", NAME, "--json")[1])
    assert [entry["version"] for entry in entries] == [1, 2, 1]
    assert all(gate["passed"] for gate in entries[1]["gates"])
    assert entries[0]["approval"]["by"] == getpass.getuser()


def test_there_is_no_log_before_the_first_promotion(champions: Champions) -> None:
    assert overnight(champions, "log", NAME) == (0, "nothing was promoted yet\n")


def test_an_alias_moved_by_hand_is_reported_then_restored(champions: Champions) -> None:
    champions.promote(1)
    assert overnight(champions, "aliases", NAME)[0] == 0
    champions.runtime().registry.set_alias("champion", 2)
    code, said = overnight(champions, "aliases", NAME)
    assert code == 1
    assert said.splitlines()[1].split() == ["champion", f"{NAME}@2", f"{NAME}@1", "moved"]
    code, said = overnight(champions, "aliases", NAME, "--json")
    assert (code, json.loads(said)["moved"]) == (1, ["champion"])
    code, said = overnight(champions, "aliases", NAME, "--restore")
    assert code == 0
    assert "restored: champion is at 2, the promotion log says 1" in said
    assert champions.runtime().registry.alias("champion") == 1


def test_an_alias_moved_by_hand_is_adopted_through_the_gates(champions: Champions) -> None:
    champions.promote(1)
    code, said = overnight(champions, "aliases", NAME, "--adopt", "--reason", "nothing moved")
    assert (code, "GateRefused" in said) == (1, True)
    champions.runtime().registry.set_alias("champion", 2)
    code, said = overnight(champions, "aliases", NAME, "--adopt", "--reason", "chosen in the UI")
    assert code == 0, said
    entry = champions.runtime().promotions()[-1]
    assert (entry.version, entry.reason, entry.previous) == (2, "chosen in the UI", 1)
    assert champions.runtime().alias_state().found == {"champion": 2, "previous": 1, "challenger": 3}


def test_what_the_gates_refuse_is_not_adopted(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("strict"), gates={"bound": 0.999})
    champions.promote(1)
    champions.runtime().registry.set_alias("champion", 2)
    code, said = overnight(champions, "aliases", NAME, "--adopt", "--reason", "chosen in the UI")
    assert (code, "GateRefused" in said) == (1, True)
    assert [entry.version for entry in champions.runtime().promotions()] == [1]
    assert champions.runtime().alias_state().moved == ("champion",), "a verdict moves no champion"


def test_where_nothing_waits_there_is_no_challenger(champions: Champions) -> None:
    champions.promote(3)
    code, said = overnight(champions, "gate", NAME, "--challenger")
    assert (code, "there is no challenger" in said) == (1, True)
    code, said = overnight(champions, "promote", NAME, "9", "--reason", "x")
    assert (code, "NotFoundError" in said) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        *(("promote", NAME, version, "--reason", "x") for version in ("two", "../2", "%2e%2e/1", "0", "1" * 300, "٢")),
        ("promote", NAME, "1"),
        ("promote", NAME, "1", "--reason", " "),
        ("promote", NAME, "1", "--reason", "x" * 1001),
        ("promote", NAME, "1", "--reason", "x", "--as-of", "../2013"),
        ("gate", NAME, "--version", "x" * 300),
        ("gate", NAME, "--version", "1", "--challenger"),
        ("gate", NAME, "--as-of", "yesterday"),
        ("rollback", NAME),
        ("rollback", NAME, "--to", "-1", "--reason", "x"),
        ("aliases", NAME, "--adopt"),
        ("aliases", NAME, "--restore", "--adopt", "--reason", "x"),
        ("aliases", NAME, "--reason", "x"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_misuse_is_exit_code_2_and_says_what_is_allowed(arguments: tuple[str, ...], registered: Champions) -> None:
    code, said = overnight(registered, *arguments)
    assert code == 2, said
    assert max(map(len, said.splitlines())) < 160


@pytest.mark.parametrize("name", ["../valves", "a" * 300, "val ves", "%2e%2e"])
@pytest.mark.parametrize("command", ["log", "gate", "aliases"])
def test_a_name_that_is_none_is_one_line(name: str, command: str, registered: Champions) -> None:
    code, said = overnight(registered, command, name)
    assert code == 1
    assert said.startswith("NotFoundError: use case: ")

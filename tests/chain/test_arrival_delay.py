"""The second use case, a regression authored without any Python of its own, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cases import Case, make_flights_case
from tests.chain.conftest import command_line, runtime_of, state


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("arrival_delay")
    # Two weeks cannot train a good model: the bound here only says that the gate is evaluated.
    changes = {"gates": {"bound": 200.0, "max_loss_to_lightgbm": 50.0, "max_loss_to_fp32": 50.0}}
    return make_flights_case(
        root / "project", root / "landing", name="arrival_delay", last="2013-01-14", changes=changes
    )


def test_the_chain_of_a_regression_runs_through_the_command_line(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home") / "var"
    done = command_line(case, home, "run", "arrival_delay", "--from", case.keys[0], "--to", case.keys[-1])
    assert done.exit_code == 0, done.output
    assert "champion: arrival_delay@1" in done.output
    runtime = runtime_of(case, home)
    predictions = runtime.store.scan(runtime.store.head("predictions")).collect()
    rows = runtime.store.scan(runtime.store.head("rows")).collect()
    assert predictions.height == rows.height == predictions.n_unique("flight_id")
    assert predictions.get_column("score").is_finite().all()

    before = state(home)
    again = command_line(case, home, "run", "arrival_delay", "--partition", case.keys[3])
    assert again.exit_code == 0, again.output
    assert "unchanged" in again.output
    assert state(home) == before

    monitored = command_line(case, home, "run", "arrival_delay", "--partition", case.keys[-1], "--monitor")
    assert monitored.exit_code == 0, monitored.output
    assert "retrain:" in monitored.output
    assert case.keys[-1] in command_line(case, home, "decisions", "arrival_delay").output
    assert "arrival_delay@1" in command_line(case, home, "log", "arrival_delay").output


def test_single_steps_hand_their_records_on_as_json(case: Case, home: Path, tmp_path: Path) -> None:
    landed = command_line(case, home, "step", "land", "arrival_delay", "--table", "rows", "--partition", case.keys[0])
    assert landed.exit_code == 0, landed.output
    (tmp_path / "landing.json").write_text(landed.stdout)
    judged = command_line(case, home, "step", "validate", "arrival_delay", "--in", str(tmp_path / "landing.json"))
    assert judged.exit_code == 0, judged.output
    (tmp_path / "validated.json").write_text(judged.stdout)
    done = command_line(case, home, "step", "publish", "arrival_delay", "--in", str(tmp_path / "validated.json"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["published"][0]["partition"] == case.keys[0]
    missing = command_line(case, home, "step", "publish", "arrival_delay")
    assert missing.exit_code == 2
    assert "--in" in missing.output

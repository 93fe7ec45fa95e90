"""`overnight models`: what is registered, signing anew, and sweeping, as a person meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase
from tests.registries import OF_REGISTRATION, OF_TRAINING, sealed


def overnight(home: Path, *words: str) -> Result:
    env = {"OVERNIGHT_HOME": str(home), "OVERNIGHT_CODE_VERSION": "test"}
    return CliRunner().invoke(main, ["models", "flights", *words], env=env)


def test_versions_are_listed_signed_anew_and_swept(flights_spec: UseCase, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert overnight(home).output == "no version yet\n"
    registry = Runtime(flights_spec, Settings(home=home), RunInfo(run_id="test")).registry
    run_id = registry.start_training(flights_spec, OF_TRAINING)
    registry.log_artifact(run_id, sealed(tmp_path), {})
    model = registry.register(flights_spec, run_id, sealed(tmp_path), OF_REGISTRATION)
    registry.set_alias("champion", model.version)

    (line,) = overnight(home).output.splitlines()
    for word in ("flights@1", "champion", model.digest[:12], " signed ", "auc=0.700000", run_id, "auc_at_least"):
        assert word in line, word
    assert overnight(home, "--sweep").output == "nothing to sweep\n"

    refused = overnight(home, "--sign", "1")
    assert refused.exit_code == 2
    assert "--sign needs --reason" in refused.output
    before = registry.registered()[0].tags["overnight.signature"]
    assert overnight(home, "--sign", "1", "--reason", "a new key").output == "flights@1: signed\n"
    assert registry.registered()[0].tags["overnight.signature"] != before
    missing = overnight(home, "--sign", "2", "--reason", "a new key")
    assert missing.exit_code == 1
    assert "NotFoundError" in missing.output


@pytest.mark.parametrize("name", ["../flights", "%2e", "a b", "x" * 300])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["models", name], env={"OVERNIGHT_HOME": str(tmp_path / "home")})
    assert done.exit_code == 1
    assert "Error" in done.output
    assert not (tmp_path / "home").exists()

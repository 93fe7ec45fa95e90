"""The chain with a training on SageMaker: a container trains on what was published, the gates judge what comes back."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import yaml

from pipelines.spec import load_spec
from tests.cases import Case, make_third_case
from tests.chain.conftest import command_line, runtime_of
from tests.servers.container import Container
from tests.servers.sagemaker import BUCKET, KEY, REGION, ROLE, SECRET, Aws, _moto, aws

__all__ = ["_moto", "aws"]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """The third use case, trained elsewhere."""
    made = make_third_case(tmp_path / "project", tmp_path / "landing", hours=24, rows=30)
    raw = yaml.safe_load(made.path.read_text())
    raw["training"] |= {
        "trainer": "sagemaker",
        "processes": 1,
        "validation": 4,
        "holdout": 4,
        "sagemaker": {"instance_type": "ml.m5.large"},
    }
    raw["gates"]["bound"] = 0.3
    raw["gates"]["max_loss_to_lightgbm"] = 0.6
    raw["gates"]["max_calibration_error"] = 0.5  # on a hundred rows even a calibrated model is off by a fifth
    made.path.write_text(yaml.safe_dump(raw))
    return Case(project=made.project, landing=made.landing, path=made.path, spec=load_spec(made.path), keys=made.keys)


@pytest.fixture
def installation(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """As a person sets it up: by the environment."""
    told = {"ROLE": ROLE, "BUCKET": BUCKET, "REGION": REGION, "IMAGE": "overnight:1", "ENDPOINT": aws.endpoint}
    for name, value in (*told.items(), ("POLL", "0.1")):
        monkeypatch.setenv(f"OVERNIGHT_SAGEMAKER_{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    # Where the snapshots' store is: no business of the jobs.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return aws


def play(aws: Aws, root: Path, codes: list[int]) -> None:
    """Waits for a job and is its machine."""
    deadline = time.monotonic() + 120
    while not aws.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    container = Container(aws, aws.requests[0]["TrainingJobName"], root)
    code = container.run()
    codes.append(code)
    container.finish(code)


def test_a_model_that_a_job_trained_is_gated_registered_and_scores(
    case: Case, installation: Aws, home: Path, tmp_path: Path
) -> None:
    codes: list[int] = []
    player = threading.Thread(target=play, args=(installation, tmp_path / "opt-ml", codes), daemon=True)
    player.start()
    done = command_line(case, home, "run", "readings", "--from", case.keys[0], "--to", case.keys[-1])
    player.join(timeout=10)
    assert codes == [0], done.output
    assert done.exit_code == 0, done.output
    assert "champion: readings@1" in done.output
    assert "scored" in done.output
    assert re.search(r"teacher\b.*epoch 1\b|epoch 1\b.*teacher\b", done.output), (
        "the job's progress is shown while it runs"
    )
    runtime = runtime_of(case, home)
    (training,) = runtime.registry.trainings()
    assert training.tags["overnight.job"] == next(iter(installation.jobs))
    assert training.model is not None
    assert (runtime.registry.fetch(training.model) / "reference.json").is_file(), "frozen here, as for any training"
    again = command_line(case, home, "run", "readings", "--from", case.keys[0], "--to", case.keys[-1], "--train")
    assert again.exit_code == 0, again.output
    assert len(installation.requests) == 1, "the same data, spec and code: the same job, already collected"

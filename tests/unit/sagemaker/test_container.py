"""The container's contract for real: what was uploaded is unpacked as /opt/ml, and the job's own entry point is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.backends.local_trainer import LocalTrainer
from pipelines.backends.sagemaker_trainer import SageMakerTrainer
from pipelines.errors import IntegrityError, TrainingError
from pipelines.spec import UseCase
from tests.servers.container import Container
from tests.servers.sagemaker import Aws
from tests.unit.training.conftest import write

from .conftest import KEY, job_spec

#: What a training writes that must not depend on where it ran.
WEIGHTS = ("teacher.safetensors", "student.safetensors", "student_fp32.onnx", "model.onnx")


def local(spec: UseCase, data: Path, out: Path, checkpoints: Path) -> list[dict[str, float]]:
    heard: list[dict[str, float]] = []
    LocalTrainer(threads=1).train(spec, data, out, checkpoints, lambda values: heard.append(dict(values)))
    return heard


def test_the_artifact_of_a_job_is_that_of_this_machine_bit_for_bit(
    aws: Aws, trainer: SageMakerTrainer, data: Path, tmp_path: Path
) -> None:
    spec = job_spec()
    job = trainer.submit(spec, data, KEY)
    assert trainer.tail(job, {}).lines == (), "it has no machine yet"
    container = Container(aws, job.name, tmp_path / "opt-ml", toolkit=True)
    code = container.run()
    assert code == 0, container.output
    container.finish(code)
    trainer.collect(job, tmp_path / "fetched")
    heard = local(spec, data, tmp_path / "here", tmp_path / "checkpoints")
    for name in WEIGHTS:
        assert (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == {
        path.name for path in (tmp_path / "here").iterdir()
    }
    tail = trainer.tail(job, {})
    epochs = [values["epoch"] for line in tail.lines if "epoch" in (values := _figures(line))]
    assert epochs, tail.lines
    assert max(epochs) == max(values["epoch"] for values in heard)
    again = trainer.tail(job, tail.position)
    assert again.lines == (), "each line comes once"
    container._log(["one more"])
    assert trainer.tail(job, again.position).lines == ("one more",)


def _figures(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def test_what_the_training_says_of_its_data_comes_back_as_its_own_error(
    aws: Aws, trainer: SageMakerTrainer, tmp_path: Path
) -> None:
    data = write(tmp_path / "set", "binary", train=lambda old: {**old, "label": [1.0] * len(old["label"])})
    job = trainer.submit(job_spec(), data, KEY)
    container = Container(aws, job.name, tmp_path / "opt-ml")
    code = container.run()
    assert code != 0
    container.finish(code)
    with pytest.raises(TrainingError, match="every label is 1"):
        trainer.collect(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_leads_out_of_its_folder_is_refused(
    aws: Aws, trainer: SageMakerTrainer, data: Path, tmp_path: Path
) -> None:
    import tarfile

    job = trainer.submit(job_spec(), data, KEY)
    container = Container(aws, job.name, tmp_path / "opt-ml")
    container.upload_model(lambda tar: tar.addfile(tarfile.TarInfo("../evil")))
    aws.put(job.name, "Completed", "Completed")
    with pytest.raises(IntegrityError, match="evil"):
        trainer.collect(job, tmp_path / "home" / "out")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_reclaimed_spot_machine_is_told_and_the_next_one_goes_on_to_the_same_weights(
    aws: Aws, trainer: SageMakerTrainer, data: Path, tmp_path: Path
) -> None:
    longer = {"teacher": {"k": 2, "width": 16, "depth": 1, "epochs": 8, "patience": 8, "batch_rows": 16, "bins": 8}}
    spec = job_spec(**longer)
    job = trainer.submit(spec, data, KEY)
    container = Container(aws, job.name, tmp_path / "opt-ml", toolkit=True)
    first = container.run(until=lambda line: '"teacher_validation"' in line)
    assert first == 75, container.output
    assert not list((tmp_path / "opt-ml" / "model").glob("*.onnx"))
    aws.put(job.name, "InProgress", "Restarting")
    assert trainer.submit(spec, data, KEY) == job, "SageMaker itself restarts a spot job"
    before = container.output
    second = container.run()
    assert second == 0, container.output
    container.finish(second)
    trainer.collect(job, tmp_path / "fetched")
    local(spec, data, tmp_path / "here", tmp_path / "checkpoints")
    for name in WEIGHTS:
        assert (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    done = before.count('"teacher_validation"')
    resumed = container.output.removeprefix(before).count('"teacher_validation"')
    assert done >= 1
    assert resumed < 8, "it went on, it did not begin again"

"""What is asked of SageMaker, and what a repeat does."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from pipelines.backends import sagemaker_request, sagemaker_verdicts
from pipelines.backends.sagemaker_request import Uploaded, job_name
from pipelines.backends.sagemaker_trainer import SageMakerTrainer
from pipelines.errors import (
    InterruptedTraining,
    OvernightError,
    ServiceRefused,
    SpecError,
    TerminalError,
    TrainingError,
    TransientError,
    UnavailableError,
)
from pipelines.records import JobStatus
from pipelines.settings import Settings
from tests.servers.sagemaker import BUCKET, SECRET, Aws
from tests.servers.sagemaker import KEY as ACCESS_KEY

from .conftest import KEY, job_settings, job_spec

MODEL = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob")
AT = Uploaded(
    code="s3://b/code/1/",
    config="s3://b/config/1/",
    training="s3://b/data/1/",
    checkpoints="s3://b/checkpoints/1/",
    output="s3://b/jobs",
)
NETWORK = {
    "sagemaker_subnets": ["subnet-0a1b"],
    "sagemaker_security_groups": ["sg-0a1b"],
    "sagemaker_kms": "alias/data",
    "sagemaker_volume_kms": "alias/volumes",
}


def built(settings: Settings, job: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = job_spec(job=job)
    return sagemaker_request.build(spec, settings, name="toy-1", key=KEY, image="image:1", at=AT)


@pytest.mark.parametrize("job", [{}, {"spot": False}, {"instance_count": 4, "tags": {"team": "night"}}])
@pytest.mark.parametrize("more", [{}, NETWORK, {"sagemaker_network_isolation": True}])
def test_every_request_is_valid_by_botocores_own_model(aws: Aws, job: dict[str, Any], more: dict[str, Any]) -> None:
    request = built(job_settings(aws, **more), job)
    report = ParamValidator().validate(request, MODEL.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_the_server_receives_byte_for_byte_what_botocore_makes_of_the_request(
    aws: Aws, trainer: SageMakerTrainer, data: Path
) -> None:
    from botocore.serialize import create_serializer

    spec = job_spec()
    job = trainer.submit(spec, data, KEY)
    (received,) = aws.requests
    uris = {entry["ChannelName"]: entry["DataSource"]["S3DataSource"]["S3Uri"] for entry in received["InputDataConfig"]}
    at = Uploaded(
        **uris, checkpoints=received["CheckpointConfig"]["S3Uri"], output=received["OutputDataConfig"]["S3OutputPath"]
    )
    settings = job_settings(aws)
    request = sagemaker_request.build(
        spec, settings, name=job.name, key=KEY, image=settings.sagemaker_image or "", at=at
    )
    body = create_serializer("json").serialize_to_request(request, MODEL)["body"]
    assert json.dumps(received) == body.decode()


def test_spot_encryption_network_and_tags_are_in_the_request(aws: Aws) -> None:
    request = built(job_settings(aws, **NETWORK), {"tags": {"team": "night", "overnight:use_case": "mine"}})
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 1800, "MaxWaitTimeInSeconds": 3600}
    assert request["CheckpointConfig"] == {"S3Uri": AT.checkpoints, "LocalPath": "/opt/ml/checkpoints"}
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/data"
    assert request["ResourceConfig"]["VolumeKmsKeyId"] == "alias/volumes"
    assert request["VpcConfig"] == {"Subnets": ["subnet-0a1b"], "SecurityGroupIds": ["sg-0a1b"]}
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert tags["team"] == "night"
    assert tags["overnight:use_case"] == "toy_binary", "ours win"
    assert tags["overnight:training_key"] == KEY
    assert "MaxWaitTimeInSeconds" not in built(job_settings(aws), {"spot": False})["StoppingCondition"]
    assert built(job_settings(aws), {"instance_count": 2})["EnableInterContainerTrafficEncryption"] is True


@pytest.mark.parametrize("use_case", ["a", "flights", "a__b", "x" * 48, "trailing_" * 5 + "abc"])
def test_a_jobs_name_is_one_that_aws_takes_and_differs_by_key_and_attempt(use_case: str) -> None:
    import re

    pattern = MODEL.input_shape.members["TrainingJobName"].metadata["pattern"]
    names = {job_name(use_case, key * 16, attempt) for key in ("0a1b", "1a1b") for attempt in (1, 30)}
    assert doctest.testmod(sagemaker_request).failed == 0
    assert len(names) == 4
    assert all(re.fullmatch(pattern, name) and len(name) <= 63 for name in names)


def test_a_repeat_finds_the_job_again_and_uploads_nothing(aws: Aws, trainer: SageMakerTrainer, data: Path) -> None:
    first = trainer.submit(job_spec(), data, KEY)
    held = {
        entry["Key"]: entry["LastModified"] for entry in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    }
    again = SageMakerTrainer(job_settings(aws), aws.session()).submit(job_spec(), data, KEY)
    other = trainer.submit(job_spec(), data, "f" * 64)
    now = {entry["Key"]: entry["LastModified"] for entry in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert again == first
    assert other.name != first.name
    assert len(aws.requests) == 2
    assert now == held, "the second key's data and code are the first one's"
    assert trainer._bucket.put_file("data/again", data / "train.parquet") is True
    assert trainer._bucket.put_file("data/again", data / "train.parquet") is False


def test_of_two_that_start_the_same_attempt_at_once_both_have_the_one_job(
    aws: Aws, trainer: SageMakerTrainer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SageMakerTrainer(job_settings(aws), aws.session())
    create = trainer._create

    def late(name: str, request: dict[str, Any]) -> None:
        other.submit(job_spec(), data, KEY)  # between this one's look and its creation
        create(name, request)

    monkeypatch.setattr(trainer, "_create", late)
    job = trainer.submit(job_spec(), data, KEY)
    assert list(aws.jobs) == [job.name]
    assert len(aws.requests) == 1


CRASH = "AlgorithmError: Crash: exit code 137 (killed by signal 9); last words: epoch 3, exit code: 137"
VERDICTS = [
    (
        "Failed",
        "Failed",
        "AlgorithmError: TrainingError: train.parquet: every label is 1., exit code: 1",
        TrainingError,
    ),
    ("Failed", "Failed", "AlgorithmError: InterruptedTraining: told to stop, exit code: 75", InterruptedTraining),
    ("Failed", "Failed", CRASH, ServiceRefused),
    ("Failed", "Failed", "CapacityError: Unable to provision requested ML compute capacity", UnavailableError),
    ("Failed", "Failed", "InternalServerError: We encountered an internal error. Please try again.", UnavailableError),
    ("Failed", "Failed", "ClientError: Data download failed: access denied", ServiceRefused),
    ("Stopped", "MaxWaitTimeExceeded", "", InterruptedTraining),
    ("Stopped", "Interrupted", "", InterruptedTraining),
    ("Stopped", "MaxRuntimeExceeded", "", ServiceRefused),
    ("Stopped", "Stopped", "", ServiceRefused),
]


@pytest.mark.parametrize(("status", "secondary", "reason", "kind"), VERDICTS)
def test_what_became_of_a_job_says_whether_a_retry_helps_and_what_to_do(
    aws: Aws,
    trainer: SageMakerTrainer,
    data: Path,
    status: str,
    secondary: str,
    reason: str,
    kind: type[OvernightError],
) -> None:
    job = trainer.submit(job_spec(), data, KEY)
    aws.put(job.name, status, secondary, reason)
    with pytest.raises(kind, match=job.name) as caught:
        trainer.check(job, trainer.status(job))
    if kind is not TrainingError:
        assert "Remedy:" in str(caught.value)
    # The training's own verdict on its data stands; after everything else the next submit is the next attempt.
    if kind is TrainingError:
        with pytest.raises(TrainingError, match="every label is 1"):
            trainer.submit(job_spec(), data, KEY)
        assert len(aws.requests) == 1
    else:
        following = trainer.submit(job_spec(), data, KEY)
        assert (following.attempt, following.name) == (2, job.name.removesuffix("1") + "2")
        checkpoints = {sent["CheckpointConfig"]["S3Uri"] for sent in aws.requests}
        assert len(checkpoints) == 1, "the next attempt goes on from the checkpoints of the former"


def test_a_job_that_is_being_stopped_is_waited_for_before_the_next_attempt(
    aws: Aws, trainer: SageMakerTrainer, data: Path
) -> None:
    job = trainer.submit(job_spec(), data, KEY)
    trainer.stop(job)
    assert trainer.status(job).state == "stopping"
    assert trainer.submit(job_spec(), data, KEY) == job
    aws.put(job.name, "Stopped", "Stopped")
    trainer.stop(job)
    assert trainer.status(job).state == "stopped"
    assert trainer.submit(job_spec(), data, KEY).attempt == 2


REFUSALS = [
    ("ThrottlingException", "Rate exceeded", 400, TransientError, "retry"),
    ("InternalFailure", "oops", 500, TransientError, "retry"),
    ("AccessDeniedException", "no sagemaker:CreateTrainingJob", 400, TerminalError, "permission"),
    ("ValidationException", "1 validation error", 400, TerminalError, "correct"),
    ("ResourceLimitExceeded", "The account-level service limit is 0 Instances", 400, TerminalError, "quota"),
]


@pytest.mark.parametrize(("code", "message", "http", "kind", "remedy"), REFUSALS)
def test_a_refused_request_is_an_error_that_names_the_remedy(
    aws: Aws,
    trainer: SageMakerTrainer,
    data: Path,
    code: str,
    message: str,
    http: int,
    kind: type[OvernightError],
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # botocore's own four tries
    aws.refusals += [(code, message, http)] * 4
    with pytest.raises(kind, match=message) as caught:
        trainer.submit(job_spec(), data, KEY)
    assert remedy in str(caught.value)
    assert aws.jobs == {}
    aws.refusals.clear()
    assert trainer.submit(job_spec(), data, KEY).attempt == 1


def test_a_server_that_is_not_there_is_a_transient_error(aws: Aws, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    nowhere = job_settings(aws, sagemaker_endpoint="http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="did not answer"):
        SageMakerTrainer(nowhere, aws.session()).submit(job_spec(), data, KEY)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sagemaker_role": None}, "OVERNIGHT_SAGEMAKER_ROLE"),
        ({"sagemaker_bucket": None}, "OVERNIGHT_SAGEMAKER_BUCKET"),
        ({"sagemaker_subnets": ["subnet-1"]}, "OVERNIGHT_SAGEMAKER_SECURITY_GROUPS"),
        ({"sagemaker_security_groups": ["sg-1"]}, "OVERNIGHT_SAGEMAKER_SUBNETS"),
        ({"sagemaker_network_isolation": True, "sagemaker_image": None}, "OVERNIGHT_SAGEMAKER_IMAGE"),
    ],
)
def test_a_missing_setting_is_named_before_anything_is_uploaded(
    aws: Aws, data: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SpecError, match=named):
        SageMakerTrainer(job_settings(aws, **changes), aws.session()).submit(job_spec(), data, KEY)
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET)


def test_without_an_image_it_is_awss_newest_pytorch_for_the_region_and_the_machine(
    aws: Aws, trainer: SageMakerTrainer, data: Path
) -> None:
    plain = SageMakerTrainer(job_settings(aws, sagemaker_image=None), aws.session())
    plain.submit(job_spec(job={"instance_type": "ml.g5.xlarge"}), data, KEY)
    assert "eu-central-1" in aws.requests[0]["AlgorithmSpecification"]["TrainingImage"]
    assert "pytorch-training" in aws.requests[0]["AlgorithmSpecification"]["TrainingImage"]
    assert "gpu" in aws.requests[0]["AlgorithmSpecification"]["TrainingImage"]


def test_no_credential_is_in_what_is_sent_stored_or_said(
    aws: Aws, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    caplog.set_level("DEBUG", logger="pipelines")
    monkeypatch.setenv("OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY", SECRET)
    said = []
    aws.refusals += [("AccessDeniedException", "no", 400)]
    trainer = SageMakerTrainer(job_settings(aws), aws.session())
    with pytest.raises(ServiceRefused) as caught:
        trainer.submit(job_spec(), data, KEY)
    said.append(str(caught.value))
    trainer.submit(job_spec(), data, KEY)
    said += [json.dumps(aws.requests), caplog.text]
    client = aws.client("s3")
    stored = [
        client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]
    ]
    assert not any(secret in text for text in said for secret in (SECRET, ACCESS_KEY))
    assert not any(SECRET.encode() in content for content in stored)


def test_uploads_are_encrypted_with_the_key_of_the_settings(aws: Aws, data: Path) -> None:
    settings = job_settings(aws, sagemaker_kms="alias/data")
    SageMakerTrainer(settings, aws.session()).submit(job_spec(), data, KEY)
    client = aws.client("s3")
    for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
        head = client.head_object(Bucket=BUCKET, Key=entry["Key"])
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/data"), entry["Key"]


def test_every_state_of_botocores_model_is_known() -> None:
    shape = MODEL.service_model.shape_for("TrainingJobStatus")
    found = {name: sagemaker_verdicts.status_of({"TrainingJobStatus": name}).state for name in shape.enum}
    over = {name for name, state in found.items() if JobStatus(state=state, secondary="").over}
    assert over == {"Completed", "Failed", "Stopped"}

"""The request for a training job, and its name. Pure: the same spec, settings and key give the same request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pipelines.errors import SpecError, explain
from pipelines.settings import Settings
from pipelines.spec import UseCase

#: Where the platform puts a channel's files.
CHANNELS = "/opt/ml/input/data"
CHECKPOINTS = "/opt/ml/checkpoints"
#: A job's name may have 63 characters: 40 of the use case, 16 of the key, the attempt.
_NAME_ROOM = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """S3 addresses of what the job reads and writes; folders, with a slash at the end."""

    code: str
    config: str
    training: str
    checkpoints: str
    output: str


def job_name(use_case: str, key: str, attempt: int) -> str:
    """The name of an attempt: `flights-0123456789abcdef-1`.

    >>> job_name("late_orders", "0123456789abcdef0123", 2)
    'late-orders-0123456789abcdef-2'
    """
    words = re.sub(r"-+", "-", use_case.replace("_", "-"))[:_NAME_ROOM].strip("-")
    return f"{words}-{key[:16]}-{attempt}"


def check_settings(settings: Settings) -> None:
    """Whether the installation is set up for jobs.

    Raises:
        SpecError: a setting is missing or does not fit another one.
    """
    for name, what in (("sagemaker_role", "ARN of the jobs' role"), ("sagemaker_bucket", "name of an S3 bucket")):
        if not getattr(settings, name):
            raise _wrong(name, "is not set", f"set it to the {what}")
    if bool(settings.sagemaker_subnets) != bool(settings.sagemaker_security_groups):
        lacking = "sagemaker_security_groups" if settings.sagemaker_subnets else "sagemaker_subnets"
        raise _wrong(lacking, "is not set", "a VPC needs both subnets and security groups, each as a JSON list")


def check_spec(spec: UseCase, settings: Settings, image: str | None) -> None:
    """Whether the spec's job can run in this installation.

    Raises:
        SpecError: it asks for what the settings rule out.
    """
    if not settings.sagemaker_network_isolation:
        return
    if spec.training.sagemaker.instance_count > 1:
        raise _wrong(
            "sagemaker_network_isolation",
            f"is on, and {spec.name} asks for {spec.training.sagemaker.instance_count} instances, which must talk",
            "use one instance, or turn it off",
        )
    if image is None:
        raise _wrong(
            "sagemaker_image", "is not set, and without a network nothing can be installed", "build one that holds all"
        )


def build(spec: UseCase, settings: Settings, *, name: str, key: str, image: str, at: Uploaded) -> dict[str, Any]:
    """CreateTrainingJob's input.

    Hyperparameters are not used: they are strings of 2,500 characters at most, and shown to whoever may list jobs. The
    spec lies in the channel `config`.
    """
    job = spec.training.sagemaker
    encrypted = {"KmsKeyId": settings.sagemaker_kms} if settings.sagemaker_kms else {}
    volume = {"VolumeKmsKeyId": settings.sagemaker_volume_kms} if settings.sagemaker_volume_kms else {}
    stopping = {"MaxRuntimeInSeconds": job.max_minutes * 60}
    if job.spot:
        stopping["MaxWaitTimeInSeconds"] = job.wait_minutes * 60
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", f"{CHANNELS}/code/start.py"],
        },
        "RoleArn": settings.sagemaker_role,
        "InputDataConfig": [
            _channel("code", at.code),
            _channel("config", at.config),
            _channel("training", at.training),
        ],
        "OutputDataConfig": {"S3OutputPath": at.output, **encrypted},
        "CheckpointConfig": {"S3Uri": at.checkpoints, "LocalPath": CHECKPOINTS},
        "ResourceConfig": {
            "InstanceType": job.instance_type,
            "InstanceCount": job.instance_count,
            "VolumeSizeInGB": job.volume_gib,
            **volume,
        },
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": job.spot,
        "EnableNetworkIsolation": settings.sagemaker_network_isolation,
        "EnableInterContainerTrafficEncryption": job.instance_count > 1,
        "Environment": {"PYTHONUNBUFFERED": "1"},
        "Tags": _tags(spec, key),
    }
    if settings.sagemaker_subnets:
        request["VpcConfig"] = {
            "Subnets": list(settings.sagemaker_subnets),
            "SecurityGroupIds": list(settings.sagemaker_security_groups),
        }
    return request


def _channel(name: str, uri: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        },
        "InputMode": "File",
    }


def _tags(spec: UseCase, key: str) -> list[dict[str, str]]:
    """The spec's tags, and ours, which win."""
    ours = {"overnight:use_case": spec.name, "overnight:training_key": key, "overnight:owner": spec.owner}
    return [{"Key": name, "Value": value} for name, value in sorted({**spec.training.sagemaker.tags, **ours}.items())]


def _wrong(setting: str, what: str, remedy: str) -> SpecError:
    return SpecError(explain(f"trainer: sagemaker: OVERNIGHT_{setting.upper()}", what, remedy=remedy))

"""An installation whose AWS is moto's server, and a training set of the toy case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.backends.sagemaker_trainer import SageMakerTrainer
from pipelines.settings import Settings
from pipelines.spec import UseCase
from tests.servers.sagemaker import BUCKET, REGION, ROLE, Aws, _moto, aws
from tests.unit.training.conftest import make_spec, write

__all__ = ["_moto", "aws"]  # fixtures of the server

KEY = "0123456789abcdef" * 4


def job_spec(task: str = "binary", job: dict[str, Any] | None = None, **training: Any) -> UseCase:
    """The toy case on SageMaker: a few seconds of training on the smallest machine."""
    small: dict[str, Any] = {
        "teacher": {"k": 2, "width": 16, "depth": 1, "epochs": 2, "batch_rows": 128, "bins": 8},
        "student": {"widths": [16], "epochs": 2, "batch_rows": 128},
        "calibration_rows": 128,
        "trainer": "sagemaker",
        "sagemaker": {"instance_type": "ml.m5.large", "max_minutes": 30, **(job or {})},
        "processes": 1,
    }
    return make_spec(task, **{**small, **training})


def job_settings(aws: Aws, **changes: Any) -> Settings:
    """Settings of an installation, none of them from the environment."""
    return Settings.model_validate(
        {
            "sagemaker_role": ROLE,
            "sagemaker_bucket": BUCKET,
            "sagemaker_image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/overnight:1",
            "sagemaker_region": REGION,
            "sagemaker_endpoint": aws.endpoint,
            "sagemaker_poll": 0.01,
            **changes,
        }
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, validation and holdout of the toy case."""
    return write(tmp_path_factory.mktemp("toy") / "set", "binary")


@pytest.fixture
def settings(aws: Aws) -> Settings:
    """The installation's settings."""
    return job_settings(aws)


@pytest.fixture
def trainer(aws: Aws, settings: Settings) -> SageMakerTrainer:
    """The adapter on the server."""
    return SageMakerTrainer(settings, aws.session())

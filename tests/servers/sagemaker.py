"""moto's server as AWS: S3, CloudWatch Logs and SageMaker on loopback, in a thread of the test process.

moto calls every job Completed at once, lets a name be used twice and cannot stop a job. Here a job starts InProgress, a
second one of the same name is refused as AWS does, a job can be stopped, and what happens to it is up to the test (see
tests/servers/container.py). Requests are kept as they came over the wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import pytest

REGION, BUCKET = "eu-central-1", "overnight-jobs"
ROLE = "arn:aws:iam::123456789012:role/overnight-training"
_ACCOUNT = "123456789012"
#: Made up; the server takes any.
KEY, SECRET = "overnight-tests", "only-for-a-test-server-90210417"


@dataclass(kw_only=True)
class Aws:
    """The running server."""

    endpoint: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Every CreateTrainingJob that was taken, as its JSON came."""
    refusals: list[tuple[str, str, int]] = field(default_factory=list)
    """Code, message and HTTP status with which the next creations are refused."""

    def session(self) -> Any:
        """The boto3 session with the made-up credentials: one, because it keeps the service models that it has read."""
        return _session()

    def client(self, service: str) -> Any:
        """A client of one service."""
        return _session().client(service, endpoint_url=self.endpoint)

    @property
    def jobs(self) -> dict[str, Any]:
        """moto's own objects, by name."""
        from moto.sagemaker.models import sagemaker_backends

        found: dict[str, Any] = sagemaker_backends[_ACCOUNT][REGION].training_jobs
        return found

    def put(self, name: str, status: str, secondary: str, reason: str | None = None) -> None:
        """Sets what became of a job."""
        job = self.jobs[name]
        job.training_job_status, job.secondary_status, job.failure_reason = status, secondary, reason


@cache
def _session() -> Any:
    return boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION)


@pytest.fixture(scope="session")
def _moto() -> Iterator[Aws]:
    from moto.core.exceptions import JsonRESTError
    from moto.core.responses import ActionResult
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer
    from moto.sagemaker.models import SageMakerModelBackend
    from moto.sagemaker.responses import SageMakerResponse

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws = Aws(endpoint=f"http://{host}:{port}")
    create, respond = SageMakerModelBackend.create_training_job, SageMakerResponse.create_training_job

    def refuse(code: str, message: str, status: int = 400) -> JsonRESTError:
        error = JsonRESTError(code, message)
        error.code = status
        return error

    def create_once(self: Any, training_job_name: str, **arguments: Any) -> Any:
        if aws.refusals:
            raise refuse(*aws.refusals.pop(0))
        if training_job_name in self.training_jobs:
            raise refuse("ResourceInUse", f"Training job names must be unique: {training_job_name}")
        job = create(self, training_job_name, **arguments)
        job.training_job_status, job.secondary_status, job.failure_reason = "InProgress", "Starting", None
        job.algorithm_specification.pop("MetricDefinitions", None)
        return job

    def keep(self: Any) -> Any:
        answer = respond(self)
        aws.requests.append(json.loads(self.body))
        return answer

    def stop(self: Any) -> Any:
        job = self.sagemaker_backend.training_jobs[self._get_param("TrainingJobName")]
        job.training_job_status = job.secondary_status = "Stopping"
        return ActionResult({})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SageMakerModelBackend, "create_training_job", create_once)
        patch.setattr(SageMakerResponse, "create_training_job", keep)
        patch.setattr(SageMakerResponse, "stop_training_job", stop, raising=False)
        try:
            yield aws
        finally:
            server.stop()


@pytest.fixture
def aws(_moto: Aws) -> Aws:
    """The server with an empty bucket and no job."""
    from moto.logs.models import logs_backends
    from moto.s3.models import s3_backends
    from moto.sagemaker.models import sagemaker_backends

    for backends in (s3_backends, logs_backends, sagemaker_backends):
        backends.reset()
    _moto.requests.clear()
    _moto.refusals.clear()
    _moto.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return _moto

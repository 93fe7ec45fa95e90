"""RemoteTrainer on SageMaker training jobs.

boto3 makes the requests: they are sent as they are written here. `sagemaker` is asked for one thing that it knows and
boto3 does not, the address of AWS's PyTorch image, and imported only then; its ModelTrainer would make job names,
uploads and requests of its own, so that a retry could not find its job again. providers-amazon gives credentials to
Airflow's tasks and triggers (see dags/usecase_dags/remote.py); this module knows no Airflow.

In the bucket, below the prefix:

    code/<digest>/            overnight.zip, start.py, packages.json
    data/<use case>/<digest>/ the training set's files
    config/<digest>/          spec.json
    checkpoints/<key>/        of every attempt at a key
    jobs/<job>/output/        model.tar.gz
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.backends import (
    sagemaker_archive,
    sagemaker_logs,
    sagemaker_package,
    sagemaker_request,
    sagemaker_verdicts,
)
from pipelines.backends.sagemaker_bucket import Bucket
from pipelines.backends.sagemaker_request import Uploaded, job_name
from pipelines.backends.sagemaker_verdicts import aws_calls
from pipelines.errors import ConflictError, NotFoundError, ServiceRefused, SpecError, explain
from pipelines.records import JobRef, JobStatus, LogTail
from pipelines.settings import Settings
from pipelines.spec import UseCase

#: The files of a training set that a job reads.
_DATA = ("train.parquet", "validation.parquet", "holdout.parquet", "unlabelled.parquet")
#: Attempts at one key, all retries and people's wishes together.
_ATTEMPTS = 30
#: Bytes of model.tar.gz.
_MAX_ARCHIVE = 4 * 2**30
_TIMEOUT = 20.0


class SageMakerTrainer:
    """Jobs of one installation. Nothing is contacted before the first call."""

    def __init__(self, settings: Settings, session: Any = None) -> None:
        """Takes the settings; and a boto3 session, when somebody else keeps the credentials."""
        self._settings = settings
        self._given = session

    def submit(self, spec: UseCase, data: Path, key: str) -> JobRef:
        """See `RemoteTrainer.submit`. Everything in S3 is there before the job is asked for.

        Raises:
            SpecError: a setting is missing or does not fit the spec.
            TrainingError: an earlier attempt found that this data cannot give a usable model.
            ConflictError: another submit made the same attempt at this moment; it is found on the next call.
        """
        sagemaker_request.check_settings(self._settings)
        stated = spec.training.sagemaker.image or self._settings.sagemaker_image
        sagemaker_request.check_spec(spec, self._settings, stated)
        attempt = 1
        while (found := self._found(spec, key, attempt)) is not None:
            job, status = found
            if not status.over or status.state == "completed":
                return job
            if sagemaker_verdicts.final(status):
                sagemaker_verdicts.raise_for(job.name, status)
            attempt += 1
            if attempt > _ATTEMPTS:
                raise ServiceRefused(
                    explain(f"training job {job.name}", f"{_ATTEMPTS} attempts failed", remedy="read their logs")
                )
        image = stated or self._default_image(spec)
        at = self._upload(spec, data, key)
        name = job_name(spec.name, key, attempt)
        request = sagemaker_request.build(spec, self._settings, name=name, key=key, image=image, at=at)
        self._create(name, request)
        return self._ref(spec, key, attempt)

    def status(self, job: JobRef) -> JobStatus:
        """See `RemoteTrainer.status`."""
        return sagemaker_verdicts.status_of(self._describe(job.name))

    def check(self, job: JobRef, status: JobStatus) -> None:
        """See `RemoteTrainer.check`."""
        sagemaker_verdicts.raise_for(job.name, status)

    def tail(self, job: JobRef, position: Mapping[str, str]) -> LogTail:
        """See `RemoteTrainer.tail`."""
        with aws_calls(f"log of training job {job.name}"):
            return sagemaker_logs.tail(self._client("logs"), job.name, position)

    def collect(self, job: JobRef, out: Path) -> None:
        """See `RemoteTrainer.collect`."""
        described = self._describe(job.name)
        sagemaker_verdicts.raise_for(job.name, sagemaker_verdicts.status_of(described))
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.fetching-", dir=out.parent) as scratch:
            archive = Path(scratch) / "model.tar.gz"
            self._bucket.fetch(described["ModelArtifacts"]["S3ModelArtifacts"], archive, _MAX_ARCHIVE)
            sagemaker_archive.unpack(archive, out)

    def stop(self, job: JobRef) -> None:
        """See `RemoteTrainer.stop`."""
        if self.status(job).state != "running":
            return
        with aws_calls(f"training job {job.name}: stop"):
            self._client("sagemaker").stop_training_job(TrainingJobName=job.name)

    # -- in here ---------------------------------------------------------------------------------------------------

    def _found(self, spec: UseCase, key: str, attempt: int) -> tuple[JobRef, JobStatus] | None:
        job = self._ref(spec, key, attempt)
        try:
            return job, self.status(job)
        except NotFoundError:
            return None

    def _describe(self, name: str) -> dict[str, Any]:
        with aws_calls(f"training job {name}"):
            found: dict[str, Any] = self._client("sagemaker").describe_training_job(TrainingJobName=name)
            return found

    def _create(self, name: str, request: dict[str, Any]) -> None:
        """Starts the job. Of two that start the same attempt at once the service takes one; both then have it."""
        from botocore.exceptions import ClientError

        with aws_calls(f"training job {name}: create"):
            try:
                self._client("sagemaker").create_training_job(**request)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "ResourceInUse":
                    raise
        try:
            self._describe(name)
        except NotFoundError:
            what = "it was created and cannot be found"
            raise ConflictError(explain(f"training job {name}", what, remedy="a retry looks again")) from None

    def _upload(self, spec: UseCase, data: Path, key: str) -> Uploaded:
        """Puts code, spec and data where they are not there yet."""
        code = sagemaker_package.code_files()
        told = spec.model_dump_json().encode()
        files = [data / name for name in _DATA if (data / name).is_file()]
        folders = {
            "code": f"code/{sagemaker_package.digest_of(code)[:32]}",
            "config": f"config/{hashlib.sha256(told).hexdigest()[:32]}",
            "training": f"data/{spec.name}/{_digest(files)[:32]}",
        }
        for name, content in code.items():
            self._bucket.put(folders["code"], name, content)
        self._bucket.put(folders["config"], "spec.json", told)
        for path in files:
            self._bucket.put_file(folders["training"], path)
        uris = {channel: self._bucket.uri(folder) for channel, folder in folders.items()}
        return Uploaded(
            **uris,
            checkpoints=self._bucket.uri(f"checkpoints/{spec.name}/{key[:32]}"),
            output=self._bucket.uri("jobs").rstrip("/"),
        )

    def _default_image(self, spec: UseCase) -> str:
        """AWS's newest PyTorch training image that the installed `sagemaker` knows, for this region and instance."""
        from sagemaker.core import image_uris

        instance = spec.training.sagemaker.instance_type
        try:
            return str(image_uris.retrieve("pytorch", self._region, image_scope="training", instance_type=instance))
        except ValueError as error:
            remedy = "set OVERNIGHT_SAGEMAKER_IMAGE or sagemaker.image"
            raise SpecError(
                explain(f"{spec.name}: training image", f"AWS has none for {instance}: {error}", remedy=remedy)
            ) from None

    def _ref(self, spec: UseCase, key: str, attempt: int) -> JobRef:
        name = job_name(spec.name, key, attempt)
        console = f"https://{self._region}.console.aws.amazon.com/sagemaker/home?region={self._region}#/jobs/{name}"
        url = None if self._settings.sagemaker_endpoint else console
        return JobRef(name=name, key=key, attempt=attempt, url=url)

    @cached_property
    def _bucket(self) -> Bucket:
        settings = self._settings
        bucket = settings.sagemaker_bucket or ""
        return Bucket(self._client("s3"), bucket, settings.sagemaker_prefix, settings.sagemaker_kms)

    @cached_property
    def _session(self) -> Any:
        if self._given is not None:
            return self._given
        import boto3

        with aws_calls("AWS session"):
            return boto3.Session(
                profile_name=self._settings.sagemaker_profile, region_name=self._settings.sagemaker_region
            )

    @cached_property
    def _region(self) -> str:
        region = self._settings.sagemaker_region or self._session.region_name
        if not region:
            what, remedy = "no AWS region is known", "set OVERNIGHT_SAGEMAKER_REGION"
            raise SpecError(explain("trainer: sagemaker", what, remedy=remedy))
        return str(region)

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from botocore.config import Config

            endpoint = self._settings.sagemaker_endpoint
            config = Config(
                connect_timeout=_TIMEOUT,
                read_timeout=3 * _TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": 4},
                # AWS_ENDPOINT_URL may name the store of the snapshots, which knows no SageMaker.
                ignore_configured_endpoint_urls=endpoint is None,
                s3={"addressing_style": "path"} if endpoint else None,
            )
            with aws_calls(f"AWS {service}"):
                self._clients[service] = self._session.client(
                    service, region_name=self._region, endpoint_url=endpoint, config=config
                )
        return self._clients[service]


def _digest(files: list[Path]) -> str:
    """SHA-256 over the names and digests of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()

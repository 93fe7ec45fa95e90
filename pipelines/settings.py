"""The one reader of the environment. Every variable begins with OVERNIGHT_; an empty one counts as absent."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipelines.errors import SpecError, explain

_CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Where things are on this machine. Nothing here says what a use case is: that is its spec's."""

    model_config = SettingsConfigDict(
        env_prefix="OVERNIGHT_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    project: Path = _CHECKOUT
    """The folder that holds include/."""
    home: Path = _CHECKOUT / "var"
    """Everything that Overnight writes."""
    landing: Path | None = None
    """The landing zone; `<home>/landing` when not given."""
    snapshots_uri: str | None = None
    """Delta Lake tables: a folder, or `s3://bucket/prefix` (credentials and endpoint from the AWS_ variables);
    `<home>/snapshots` when not given."""
    lakefs_endpoint: str | None = None
    """lakeFS server, such as http://127.0.0.1:8000; for specs with `snapshot: lakefs`."""
    lakefs_access_key_id: str | None = None
    lakefs_secret_access_key: SecretStr | None = None
    lakefs_storage: str = "local://overnight"
    """Storage namespace below which a use case's repository is made: `local://name` or `s3://bucket/prefix`."""
    lakefs_prefix: str = ""
    """Of repositories' names, when several installations share a server: `dev-` makes `dev-flights`."""
    lakefs_blockstore: Path | None = None
    """The server's local block folder (LAKEFS_BLOCKSTORE_LOCAL_PATH) as this machine sees it: needed to remove bytes
    for good when `lakefs_storage` is local. On S3 that takes the AWS_ variables."""
    lakefs_timeout: float = 60.0
    """Seconds that lakeFS may take to answer a call."""
    lakefs_deadline: float = 60.0
    """Seconds after which a call that keeps failing is given up; the task's own retry comes later."""
    mlflow_uri: str | None = None
    """MLflow's tracking server; an SQLite file under `home` when not given."""
    sagemaker_role: str | None = None
    """ARN of the role that training jobs take on; for specs with `trainer: sagemaker`, as the rest of sagemaker_."""
    sagemaker_bucket: str | None = None
    """S3 bucket of code, training sets, checkpoints and artifacts of jobs."""
    sagemaker_prefix: str = "overnight"
    """Folder in that bucket."""
    sagemaker_image: str | None = None
    """Training image; absent, the newest PyTorch image of AWS that the package sagemaker knows, into which the job
    installs what is missing."""
    sagemaker_subnets: tuple[str, ...] = ()
    """As JSON: the subnets of the jobs, such as ["subnet-0a1b"]. With them, security groups are needed."""
    sagemaker_security_groups: tuple[str, ...] = ()
    sagemaker_kms: str | None = None
    """Key of everything in S3: uploads, checkpoints and artifacts."""
    sagemaker_volume_kms: str | None = None
    """Key of the instances' volumes (not for instance types with local NVMe, which refuse it)."""
    sagemaker_network_isolation: bool = False
    """Whether the container has no network at all: the image must hold every package, and one instance is used."""
    sagemaker_region: str | None = None
    """Absent, the AWS_ variables' or the profile's."""
    sagemaker_endpoint: str | None = None
    """Another server that speaks SageMaker's, S3's and CloudWatch Logs' APIs. Absent, AWS itself, even where
    AWS_ENDPOINT_URL names the store of the snapshots."""
    sagemaker_profile: str | None = None
    """A profile of the AWS configuration, where the AWS_ variables hold the keys of another store."""
    sagemaker_credentials: str | None = None
    """Id of an Airflow connection (type aws) whose credentials Airflow's tasks and triggers use instead."""
    sagemaker_poll: float = 30.0
    """Seconds between two looks at a job."""
    sagemaker_wake: float = 300.0
    """Seconds after which a waiting task wakes for a moment to pass on the job's log and curves."""
    ray_address: str | None = None
    """host:port of the head of a Ray cluster, for specs with `scoring: {engine: ray}`; absent, Ray starts a cluster of
    this machine for the run."""
    ray_cpus: float = 1.0
    """Processors that a shard is given there; as many threads score it."""
    ray_timeout: float = 60.0
    """Seconds that the cluster may take to answer, and to have processors."""
    optuna_storage: SecretStr | None = None
    """SQLAlchemy URL of the database of hyperparameter searches, such as postgresql+psycopg2://user:word@host/optuna;
    an SQLite file beside MLflow's under `home` when not given."""
    signing_key: Path | None = None
    """Private elliptic-curve key (PEM) that signs models; one under `home` is made at the first signature when not
    given."""
    signing_key_password: SecretStr | None = None
    signing_certificate: Path | None = None
    """Certificate (PEM) of `signing_key`, where models are signed by certificate; its chain may follow in the file."""
    verify_key: Path | None = None
    """Public key (PEM) that models must be signed with; that of `signing_key` when not given."""
    verify_certificates: Path | None = None
    """Root certificates (PEM) that a signer's certificate must lead to, where models are signed by certificate."""
    code_version: str | None = None
    """Stated by images, which have no git folder."""
    targets: Annotated[dict[str, SecretStr], NoDecode] = {}
    """Addresses of deliveries by the name that specs use, as JSON: {"crm": "s3://bucket/prefix"}. A folder's absolute
    path, `s3://bucket/prefix` (credentials and endpoint from the AWS_ variables), `postgresql://user:word@host/name`,
    `https://...`."""
    warm: bool = True
    """Whether schedulers and Celery workers import once what their tasks need (see `pipelines.warm`)."""

    @field_validator("targets", mode="before")
    @classmethod
    def _no_address_in_errors(cls, given: Any) -> Any:
        """Reads JSON. What is wrong with it is told without it: pydantic would quote the addresses."""
        what = 'must be a JSON object of names and addresses, {"crm": "s3://bucket/prefix"}'
        try:
            found = json.loads(given) if isinstance(given, str) else given
        except json.JSONDecodeError:
            raise ValueError(what) from None
        if not isinstance(found, dict) or not all(isinstance(one, str | SecretStr) for one in found.values()):
            raise ValueError(what)
        return found

    def target(self, name: str) -> SecretStr:
        """The address behind a delivery's target.

        Raises:
            SpecError: there is none of this name.
        """
        if name in self.targets:
            return self.targets[name]
        allowed = ", ".join(sorted(self.targets)) or "none is set"
        remedy = "set it in OVERNIGHT_TARGETS, a JSON object of names and addresses"
        raise SpecError(explain("delivery", f"no target {name!r}", allowed=allowed, remedy=remedy))

    @cached_property
    def landing_zone(self) -> Path:
        """Root of the files that source systems drop."""
        return self.landing or self.home / "landing"

    @cached_property
    def snapshots(self) -> str:
        """Root of the Delta Lake tables: a folder, or `s3://bucket/prefix`."""
        return self.snapshots_uri or str(self.home / "snapshots")

    @cached_property
    def travelling(self) -> dict[str, str]:
        """Where the snapshots are, for a process on another machine that makes `Settings` of it.

        Addresses and paths only. What has a word before an @ may be a secret, and stays here like all secrets: that
        process has them in its own environment.
        """
        root = self.snapshots if "://" in self.snapshots else str(Path(self.snapshots).resolve())
        told = {
            "snapshots_uri": root,
            "lakefs_endpoint": self.lakefs_endpoint,
            "lakefs_storage": self.lakefs_storage,
            "lakefs_prefix": self.lakefs_prefix,
            "lakefs_timeout": str(self.lakefs_timeout),
            "lakefs_deadline": str(self.lakefs_deadline),
        }
        return {name: value for name, value in told.items() if value and "@" not in value}

    @cached_property
    def cache(self) -> Path:
        """Local copies of immutable files that lie elsewhere, named by their digests; may be deleted at any time."""
        return self.home / "cache"

    @cached_property
    def lakefs_gate(self) -> Path:
        """The pre-merge action that is installed in lakeFS repositories: the project's, else the one that ships."""
        own = self.project / "include" / "lakefs"
        return own if own.is_dir() else _CHECKOUT / "include" / "lakefs"

    @cached_property
    def reports(self) -> Path:
        """Root of the HTML reports that people read."""
        return self.home / "reports"

    @cached_property
    def alerts(self) -> Path:
        """Root of the books of alerts, one a use case."""
        return self.home / "alerts"

    @cached_property
    def work(self) -> Path:
        """Root of training sets and other files that may be deleted between runs."""
        return self.home / "work"

    @cached_property
    def keys(self) -> Path:
        """Folder of the signing key that is made where none is given."""
        return self.home / "keys"

    @cached_property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.mlflow_uri or f"sqlite:///{(self.home / 'mlflow' / 'mlflow.db').resolve()}"

    @cached_property
    def studies_url(self) -> SecretStr:
        """SQLAlchemy URL of the database of hyperparameter searches."""
        return self.optuna_storage or SecretStr(f"sqlite:///{(self.home / 'mlflow' / 'optuna.db').resolve()}")

    def spec_path(self, use_case: str) -> Path:
        """The YAML file of a use case."""
        return self.project / "include" / "use_cases" / f"{use_case}.yaml"

"""Which adapter is behind which port, for one use case on this machine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.alerts import AlertBook
from pipelines.ports import (
    DataSource,
    DriftDetector,
    DriftReporter,
    FairnessAuditor,
    ModelRegistry,
    ModelReviewer,
    RemoteTrainer,
    Searcher,
    ShardPool,
    Signer,
    Sink,
    SnapshotStore,
    Trainer,
    Validator,
)
from pipelines.records import RunInfo
from pipelines.settings import Settings
from pipelines.spec import Delivery, UseCase


class Adapters:
    """The adapters of a use case, each made when a step first asks for it."""

    def __init__(self, spec: UseCase, settings: Settings, run: RunInfo, aws: Any = None) -> None:
        """Takes what `open` found; tests pass their own.

        Args:
            aws: a boto3 session for training jobs, where somebody else keeps its credentials.
        """
        self._aws = aws
        self.spec = spec
        self.settings = settings
        self.run = run

    @property
    def _scores(self) -> Path:
        """Where pieces of scores are kept until they are published."""
        return self.settings.work / self.spec.name / "scores"

    @cached_property
    def source(self) -> DataSource:
        """The landing zone."""
        from pipelines.backends.files import Files

        return Files(self.settings.landing_zone)

    @cached_property
    def store(self) -> SnapshotStore:
        """The snapshots, where the spec says."""
        if self.spec.snapshot == "lakefs":
            from pipelines.backends.lakefs import open_store

            return open_store(self.spec.name, self.settings)
        from pipelines.backends.delta import DeltaStore

        return DeltaStore(self.settings.snapshots, self.spec.name, self.settings.cache)

    @cached_property
    def validator(self) -> Validator:
        """Great Expectations."""
        from pipelines.backends.gx import GreatExpectations

        return GreatExpectations(self.settings.reports)

    @cached_property
    def registry(self) -> ModelRegistry:
        """MLflow."""
        from pipelines.backends.mlflow_registry import MlflowRegistry

        uri, cache = self.settings.tracking_uri, self.settings.work / "models"
        return MlflowRegistry(self.spec.name, uri, cache, self.signer)

    @cached_property
    def signer(self) -> Signer:
        """OpenSSF model-signing."""
        from pipelines.backends.model_signature import ModelSigning

        return ModelSigning(self.settings)

    @cached_property
    def trainer(self) -> Trainer:
        """Training on this machine."""
        from pipelines.backends.local_trainer import LocalTrainer

        return LocalTrainer()

    @cached_property
    def remote_trainer(self) -> RemoteTrainer:
        """Training jobs on SageMaker."""
        from pipelines.backends.sagemaker_trainer import SageMakerTrainer

        return SageMakerTrainer(self.settings, self._aws)

    @cached_property
    def searcher(self) -> Searcher:
        """Optuna."""
        from pipelines.backends.optuna_search import OptunaSearcher

        return OptunaSearcher(self.settings.studies_url)

    @cached_property
    def auditor(self) -> FairnessAuditor:
        """Fairlearn."""
        from pipelines.backends.fairlearn_audit import Fairlearn

        return Fairlearn()

    @cached_property
    def reviewer(self) -> ModelReviewer:
        """Model cards and comparisons."""
        from pipelines.backends.model_review import Reviews

        return Reviews()

    @cached_property
    def drift(self) -> DriftDetector:
        """Exact population stability index."""
        from pipelines.backends.psi import PopulationStability

        return PopulationStability()

    @cached_property
    def reporter(self) -> DriftReporter:
        """Evidently."""
        from pipelines.backends.evidently_report import Evidently

        return Evidently()

    def sink(self, delivery: Delivery) -> Sink:
        """Where a delivery goes.

        Raises:
            SpecError: the setting OVERNIGHT_TARGETS has no such target, or one of another kind.
        """
        address = self.settings.target(delivery.target)
        if delivery.sink == "postgres":
            from pipelines.backends.sink_postgres import PostgresSink

            return PostgresSink(delivery, address)
        if delivery.sink == "webhook":
            from pipelines.backends.sink_webhook import WebhookSink

            return WebhookSink(delivery, address)
        from pipelines.backends.sink_files import FileSink

        return FileSink(delivery, address, self.spec.name, self.settings.cache)

    @cached_property
    def pool(self) -> ShardPool:
        """Ray."""
        from pipelines.backends.ray_pool import RayPool

        told = self.settings
        return RayPool(told.ray_address, "pipelines.shard_worker:score", cpus=told.ray_cpus, patience=told.ray_timeout)

    @cached_property
    def alerts(self) -> AlertBook:
        """What has been told to people about this use case."""
        return AlertBook(self.settings.alerts / f"{self.spec.name}.jsonl")

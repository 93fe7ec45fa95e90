"""Puts the adapters behind the ports and the steps in one place: what Airflow's tasks and the command line call.

Adapters are imported when a step first needs them, so that a process pays only for what it does.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import partitions as keys
from pipelines.alerts import AlertBook
from pipelines.environment import environment_digest
from pipelines.errors import NotFoundError, explain
from pipelines.ports import (
    DataSource,
    DriftDetector,
    DriftReporter,
    FairnessAuditor,
    ModelRegistry,
    ModelReviewer,
    OnProgress,
    OnTrial,
    RemoteTrainer,
    Searcher,
    ShardJob,
    ShardPool,
    Signer,
    Sink,
    SnapshotStore,
    Trainer,
    Validator,
)
from pipelines.records import (
    Alert,
    AliasState,
    Approval,
    AuditedScores,
    Collection,
    Delivered,
    DeliveryEntry,
    Erasure,
    Evaluation,
    GateReport,
    Landing,
    ModelRef,
    Night,
    Observations,
    Piece,
    Pin,
    Prediction,
    Promotion,
    Publication,
    RemoteTraining,
    Replay,
    RetrainDecision,
    RunInfo,
    Scored,
    ScorePlan,
    Shard,
    SnapshotDiff,
    SnapshotRef,
    Trace,
    TrainedModel,
    TrainingSet,
    Validated,
)
from pipelines.settings import Settings
from pipelines.spec import Delivery, UseCase, load_spec

if TYPE_CHECKING:
    from pipelines.steps.lateness import Missing
    from pipelines.steps.simulation import Simulation

#: Characters of a use case's name, see `spec.base.Name`.
_LONGEST_NAME = 48


def code_version(settings: Settings) -> str:
    """The git commit of the project, `+dirty` when the tree differs from it; "unknown" without git."""
    if settings.code_version:
        return settings.code_version
    git = ["git", "-C", str(settings.project)]
    quiet = {"capture_output": True, "text": True, "timeout": 10}
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, **quiet)  # type: ignore[call-overload]
        dirty = subprocess.run([*git, "status", "--porcelain"], check=True, **quiet)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return str(head.stdout).strip() + ("+dirty" if dirty.stdout.strip() else "")


class Runtime:
    """One use case on this machine. Cheap to make."""

    def __init__(self, spec: UseCase, settings: Settings, run: RunInfo, aws: Any = None) -> None:
        """Takes what `open` found; tests pass their own.

        Args:
            aws: a boto3 session for training jobs, where somebody else keeps its credentials.
        """
        self._aws = aws
        self.spec = spec
        self.settings = settings
        self.run = run

    @classmethod
    def open(cls, use_case: str, run: RunInfo | None = None, settings: Settings | None = None) -> Runtime:
        """Loads a use case by name.

        Raises:
            SpecError: the name or the file is wrong.
        """
        chosen = settings or Settings()
        # The name becomes a path: only what a spec may be called is looked up.
        if not use_case.replace("_", "").isalnum() or len(use_case) > _LONGEST_NAME:
            allowed = f"at most {_LONGEST_NAME} letters, digits and _"
            raise NotFoundError(explain("use case", f"{use_case[:80]!r} is not a name", allowed=allowed))
        spec = load_spec(chosen.spec_path(use_case))
        # In a container every command may have the same process id; a run is one command.
        name = f"cli-{os.getpid()}-{secrets.token_hex(3)}"
        now = datetime.now(UTC).replace(microsecond=0)
        who = run or RunInfo(run_id=name, code_version=code_version(chosen), at=now)
        return cls(spec, chosen, who)

    # -- adapters ------------------------------------------------------------------------------------------------

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

    # -- ingest --------------------------------------------------------------------------------------------------

    def tables(self) -> tuple[str, ...]:
        """The tables of an ingest run, in order."""
        from pipelines.steps import ingest

        return ingest.tables(self.spec)

    def keys(self, table: str, partitions: Sequence[str]) -> list[str]:
        """What an ingest run of these partitions takes of a table."""
        from pipelines.steps import ingest

        return ingest.table_keys(self.spec, table, partitions)

    def span(self, first: str, last: str) -> list[str]:
        """Every partition of a range, both ends included."""
        return keys.span(first, last, self.spec.granularity)

    def land(self, table: str, partitions: Sequence[str]) -> Landing:
        """Reads and stages; see `steps.ingest.land`."""
        from pipelines.steps import ingest

        return ingest.land(self.spec, self.source, self.validator, self.store, table, partitions, self.run)

    def validate(self, landing: Landing) -> Validated:
        """Audits what was staged; see `steps.ingest.validate`."""
        from pipelines.steps import ingest

        return ingest.validate(self.spec, self.source, self.validator, self.store, landing)

    def publish(self, validated: Validated) -> Publication | None:
        """Publishes what passed; see `steps.ingest.publish`."""
        from pipelines.steps import ingest

        return ingest.publish(self.spec, self.validator, self.store, validated, self.run)

    def published(self, partitions: Sequence[str]) -> list[str]:
        """Those of the partitions whose rows are published."""
        head = self.store.head("rows")
        held = self.store.partitions(head) if head is not None else {}
        return [partition for partition in partitions if partition in held]

    # -- score ---------------------------------------------------------------------------------------------------

    def champion(self) -> ModelRef | None:
        """The champion by the promotion log."""
        from pipelines.steps import promotion

        return promotion.champion(self.store, self.registry)

    def model(self, version: int | None = None) -> ModelRef:
        """A version, or the champion.

        Raises:
            NotFoundError: no such version, or no champion yet.
        """
        found = self.registry.get(version) if version is not None else self.champion()
        if found is None:
            raise NotFoundError(explain(self.spec.name, "there is no champion yet", remedy="run the training first"))
        return found

    def candidate(self, version: int) -> ModelRef:
        """A version that may be promoted: with staging, one of `<use case>_staging`.

        Raises:
            NotFoundError: no such version.
        """
        return self.registry.get(version, staged="staging" in self.spec.stages)

    def plan_scores(
        self, partitions: Sequence[str], model: str | int = "champion", *, anew: bool = False
    ) -> tuple[ScorePlan, ...]:
        """Resolves what is to be scored, by which model: a plan a version, in the order of their first partitions.

        Partitions that ran before the first champion are in no plan (`as-of`).

        Args:
            model: `champion`, `as-of` or a version; see `steps.choosing.choose`.
            anew: score again what another model scored; a version that is named by its number does.
        """
        from pipelines.steps import choosing, scoring

        chosen = choosing.choose(self.spec, self.store, self.registry, partitions, model)
        anew = anew or chosen.named
        return tuple(
            scoring.plan(self.spec, self.store, found, mine, self.run, anew=anew) for found, mine in chosen.models
        )

    def score_plan(self, plan: ScorePlan) -> Scored:
        """Scores a plan where the spec says, and stages the scores; see `steps.scoring.score` and `ShardPool.run`."""
        from pipelines.steps import scoring

        if self.spec.scoring.engine == "ray" and plan.due:
            job = ShardJob(spec=self.spec, plan=plan, settings=self.settings.travelling)
            return self.stage_pieces(plan, self.pool.run(job, self.registry.fetch(plan.model), self.pieces(plan)))
        return scoring.score(self.spec, self.store, self.registry, plan, self.run)

    def score_shard(self, plan: ScorePlan, shard: Shard) -> Piece:
        """Scores one shard of a plan; see `steps.scoring.score_shard`."""
        from pipelines.steps import scoring

        artifact = self.registry.fetch(plan.model)
        return scoring.score_shard(self.spec, self.store, artifact, plan, shard, self.pieces(plan))

    def stage_pieces(self, plan: ScorePlan, pieces: Sequence[Piece]) -> Scored:
        """Merges and stages the scores of all shards; see `steps.scoring.stage_pieces`."""
        from pipelines.steps import scoring

        artifact = self.registry.fetch(plan.model)
        return scoring.stage_pieces(self.spec, self.store, artifact, plan, pieces, self.run)

    def pieces(self, plan: ScorePlan) -> Path:
        """The folder of a plan's pieces: the same plan has the same one, and no other has it."""
        return self._scores / plan.key

    @property
    def _scores(self) -> Path:
        return self.settings.work / self.spec.name / "scores"

    def forget_pieces(self, plan: ScorePlan) -> None:
        """Removes the pieces of a plan whose scores are published."""
        from pipelines.steps import pieces

        pieces.drop(self.pieces(plan))

    def score(self, partitions: Sequence[str], version: int | None = None) -> Scored:
        """Plans, scores and stages, with the champion or a named version."""
        (plan,) = self.plan_scores(partitions, "champion" if version is None else version)
        return self.score_plan(plan)

    def audit_scores(self, scored: Scored) -> AuditedScores:
        """Audits staged scores; see `steps.score_audit.audit_scores`."""
        from pipelines.steps import score_audit

        return score_audit.audit_scores(self.spec, self.store, scored)

    def publish_scores(self, audited: AuditedScores) -> tuple[Prediction, ...]:
        """Publishes audited scores; see `steps.predictions.publish_scores`. Pieces of them are needed no longer."""
        from pipelines.steps import pieces, predictions

        done = predictions.publish_scores(self.store, audited, self.run)
        pieces.drop(self.pieces(audited.scored))
        return done

    def nights(self, partitions: Sequence[str] | None = None, now: datetime | None = None) -> tuple[Night, ...]:
        """The state of each night, of all that anything is known of by default; see `steps.nights`."""
        from pipelines.steps import nights

        now = now or datetime.now(UTC)
        wanted = nights.span(self.spec, self.store, self.source, now) if partitions is None else partitions
        return nights.nights(self.spec, self.store, self.source, wanted, now)

    # -- alerts --------------------------------------------------------------------------------------------------

    @cached_property
    def alerts(self) -> AlertBook:
        """What has been told to people about this use case."""
        return AlertBook(self.settings.alerts / f"{self.spec.name}.jsonl")

    def alert(self, observations: Observations, decision: RetrainDecision) -> tuple[Alert, ...]:
        """Opens and ends incidents; see `steps.alerting.alert`."""
        from pipelines.steps import alerting

        return alerting.alert(self.spec, self.store, self.alerts, observations, decision, self.run, datetime.now(UTC))

    def missing(self, partition: str) -> Missing | None:
        """What keeps a night from having its scores; see `steps.lateness.missing`."""
        from pipelines.steps import lateness

        return lateness.missing(self.spec, self.store, partition)

    def end_lateness(self, scores: Sequence[Prediction]) -> tuple[Alert, ...]:
        """Ends the open alerts about nights whose scores are published now."""
        return self.alerts.resolve(
            {part.partition for part in scores},
            at=datetime.now(UTC),
            run=f"{self.run.dag_id}/{self.run.run_id}",
            how="its scores are published",
        )

    def deliver(self, predictions: Sequence[Prediction], only: str | None = None) -> tuple[Delivered, ...]:
        """Hands published predictions over; see `steps.delivery.deliver`.

        Args:
            only: to this delivery alone.

        Raises:
            SpecError: see `sink`; or there is no such delivery.
        """
        from pipelines.steps import delivery

        sinks = {one.name: self.sink(one) for one in delivery.chosen(self.spec, self.run, only)}
        return delivery.deliver(self.spec, self.store, sinks, predictions, self.run)

    def predicted(self, partitions: Sequence[str]) -> tuple[Prediction, ...]:
        """What is published of the predictions of these partitions; see `steps.delivery.published`."""
        from pipelines.steps import delivery

        return delivery.published(self.store, partitions)

    def deliveries(self, delivery: str | None = None, partitions: Sequence[str] | None = None) -> list[DeliveryEntry]:
        """The log of deliveries; see `steps.deliveries.deliveries`."""
        from pipelines.steps import deliveries

        return deliveries.deliveries(self.store, delivery, partitions)

    # -- train ---------------------------------------------------------------------------------------------------

    def build_training_set(self, as_of: str, since: str | None = None) -> TrainingSet:
        """Pins and writes a training set; see `steps.training.build_training_set`."""
        from pipelines.steps import training

        return training.build_training_set(self.spec, self.store, as_of, self.settings.work, since)

    def search(self, training_set: TrainingSet, tell: OnTrial = lambda _: None) -> TrainingSet:
        """Searches for the teacher's settings; see `steps.search.search`."""
        from pipelines.steps import search

        return search.search(self.spec, self.searcher, self.registry, training_set, self.run, tell)

    def train(
        self,
        training_set: TrainingSet,
        tell: OnProgress = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> TrainedModel:
        """Trains where the spec says, and waits for it; see `steps.training.train` and `steps.remote.train`.

        Args:
            tell: called with each epoch's figures.
            say: called with each line of a job's log.
        """
        from pipelines.steps import remote, training

        spec, work = self.spec, self.settings.work
        if spec.training.trainer == "sagemaker":
            poll = self.settings.sagemaker_poll
            opened = training.open_training(spec, self.registry, training_set, self.run, work)
            return remote.train(spec, self.remote_trainer, self.registry, self.drift, opened, poll, tell, say)
        return training.train(spec, self.trainer, self.registry, self.drift, training_set, self.run, work, tell)

    def submit_training(self, training_set: TrainingSet) -> RemoteTraining:
        """Starts a job or finds it again; see `steps.remote.submit`."""
        from pipelines.steps import remote, training

        opened = training.open_training(self.spec, self.registry, training_set, self.run, self.settings.work)
        return remote.submit(self.spec, self.remote_trainer, self.registry, opened)

    def follow_training(
        self,
        remote_training: RemoteTraining,
        tell: OnProgress = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Passes a job's log on; see `steps.remote.follow`."""
        from pipelines.steps import remote

        remote.follow(self.remote_trainer, self.registry, remote_training, tell, say)

    def collect_training(self, remote_training: RemoteTraining, seconds: float) -> TrainedModel:
        """Brings a job's artifact here; see `steps.remote.collect`."""
        from pipelines.steps import remote

        return remote.collect(self.spec, self.remote_trainer, self.registry, self.drift, remote_training, seconds)

    def evaluate(self, trained: TrainedModel) -> Evaluation:
        """Compares with the champion on the training's own holdout; see `steps.evaluation.evaluate`."""
        from pipelines.steps import evaluation, holdouts

        holdout = holdouts.of_training(trained.training_set)
        return evaluation.evaluate(
            self.spec, self.store, self.registry, self.auditor, self.champion(), trained, holdout
        )

    def gate(self, trained: TrainedModel, evaluation: Evaluation) -> GateReport:
        """Evaluates the gates; see `steps.promotion.gate`."""
        from pipelines.steps import promotion

        return promotion.gate(self.spec, self.store, self.registry, trained, evaluation)

    def review(self, trained: TrainedModel, evaluation: Evaluation, report: GateReport) -> Path:
        """Writes and stores what a reviewer reads; see `steps.review.review`."""
        from pipelines.steps import review

        return review.review(
            self.spec, self.registry, self.reviewer, trained, evaluation, report, self.settings.reports
        )

    def card(self, version: int | None = None) -> Path:
        """The card of a version, or of the champion; see `steps.review.find_card`."""
        from pipelines.steps import review

        return review.find_card(self.spec, self.model(version), self.settings.reports)

    def register(self, trained: TrainedModel, evaluation: Evaluation, report: GateReport) -> ModelRef:
        """Registers; see `steps.promotion.register`."""
        from pipelines.steps import promotion, registration

        told = registration.provenance(self.store, trained, environment_digest(self.settings.project))
        return promotion.register(self.spec, self.store, self.registry, trained, evaluation, report, told)

    def promote(
        self,
        model: ModelRef,
        evaluation: Evaluation,
        report: GateReport,
        reason: str,
        as_of: str,
        approval: Approval | None = None,
        *,
        by_hand: bool = False,
    ) -> Promotion:
        """Promotes by compare-and-set; see `steps.promotion.promote`."""
        from pipelines.steps import promotion

        return promotion.promote(
            self.spec,
            self.store,
            self.registry,
            model,
            evaluation,
            report,
            self.run,
            reason=reason,
            as_of=as_of,
            approval=approval,
            by_hand=by_hand,
        )

    def answered(self, run_id: str, approval: Approval, told: str) -> None:
        """Keeps what a person said; see `steps.promotion.answered`."""
        from pipelines.steps import promotion

        promotion.answered(self.spec, self.store, self.registry, run_id, approval, told)

    def rollback(self, to: int | None, reason: str, approval: Approval | None = None) -> Promotion:
        """Rolls back; see `steps.promotion.rollback`."""
        from pipelines.steps import promotion

        return promotion.rollback(
            self.spec, self.store, self.registry, self.run, to=to, reason=reason, approval=approval
        )

    def examine(self, model: ModelRef, as_of: str | None = None) -> tuple[TrainedModel, Evaluation]:
        """Measures a registered version on the newest holdout; see `steps.by_hand.examine`."""
        from pipelines.steps import by_hand

        return by_hand.examine(
            self.spec,
            self.store,
            self.registry,
            self.auditor,
            self.champion(),
            model,
            as_of,
            self.settings.work,
        )

    def promote_by_hand(
        self, model: ModelRef, approval: Approval, reason: str, as_of: str | None = None
    ) -> tuple[Promotion, bool]:
        """Promotes a registered version through the gates; see `steps.by_hand.promote_by_hand`."""
        from pipelines.steps import by_hand

        return by_hand.promote_by_hand(
            self.spec,
            self.store,
            self.registry,
            self.auditor,
            model,
            self.run,
            approval,
            reason=reason,
            as_of=as_of,
            work=self.settings.work,
        )

    def promotions(self) -> list[Promotion]:
        """The promotion log."""
        from pipelines.steps import promotions

        return promotions.promotions(self.store)

    def alias_state(self) -> AliasState:
        """Whether the registry's aliases are where the promotion log says.

        What a promotion that was killed left undone is finished first; what a person moved is reported as it is.
        """
        from pipelines.steps import aliases

        return aliases.settle(self.spec, self.store, self.registry)

    def restore_aliases(self) -> AliasState:
        """Moves every alias to where the promotion log says; see `steps.aliases.follow`."""
        from pipelines.steps import aliases

        return aliases.follow(self.spec, self.store, self.registry)

    # -- monitor -------------------------------------------------------------------------------------------------

    def observe(self, as_of: str, window: int | None = None) -> Observations:
        """Looks back on a window; see `steps.monitoring.observe`."""
        from pipelines.steps import monitoring

        return monitoring.observe(self.spec, self.store, self.registry, self.drift, self.model(), as_of, window)

    def newest_prediction(self) -> str:
        """The newest partition that has scores.

        Raises:
            NotFoundError: nothing is scored yet.
        """
        from pipelines.steps import monitoring

        return monitoring.newest(self.spec, self.store)

    def drift_report(self, observations: Observations) -> Path:
        """Writes the Evidently report, and a run of Evidently's workspace; see `steps.drift_report`."""
        from pipelines.steps import drift_report

        return drift_report.drift_report(
            self.spec, self.store, self.registry, self.reporter, observations, self.settings.reports
        )

    def decide(self, observations: Observations) -> RetrainDecision:
        """Decides and stores; see `steps.decisions.decide`."""
        from pipelines.steps import decisions

        return decisions.decide(self.spec, self.store, self.registry, observations, self.run)

    def decisions(self) -> list[RetrainDecision]:
        """The decision log."""
        from pipelines.steps import decisions

        return decisions.decisions(self.store)

    def simulate(self, policy: Path) -> Simulation:
        """Replays another policy over the decision log; see `steps.simulation.simulate`.

        Raises:
            SpecError: the file is no policy, or of another use case.
        """
        from pipelines.spec.reading import load_policy
        from pipelines.steps import decisions, outcomes, simulation

        log = decisions.entries(self.store)
        newest = max((entry.decision.as_of for entry in log), default="")
        tried = outcomes.outcomes(self.spec, self.store, self.registry, newest) if log else []
        return simulation.simulate(self.spec, load_policy(policy, self.spec), log, tried)

    # -- snapshots -----------------------------------------------------------------------------------------------

    def all_tables(self) -> tuple[str, ...]:
        """Every table of the store: what lands, the predictions, the logs."""
        from pipelines.steps import provenance

        return provenance.all_tables(self.spec)

    def resolve(self, table: str, name: str) -> SnapshotRef:
        """The snapshot that a name stands for; see `steps.snapshots.resolve`."""
        from pipelines.steps import snapshots

        return snapshots.resolve(self.store, table, name)

    def diff(self, table: str, before: str, after: str) -> SnapshotDiff:
        """What changed between two named snapshots."""
        from pipelines.steps import snapshots

        return snapshots.diff(self.store, self.resolve(table, before), self.resolve(table, after))

    def revert(self, table: str, to: str, reason: str) -> Publication:
        """Makes a table hold what it held; see `steps.snapshots.revert`."""
        from pipelines.steps import snapshots

        return snapshots.revert(self.store, self.resolve(table, to), self.run, reason=reason)

    def pin(self, name: str, table: str, snapshot: str, reason: str) -> Pin:
        """Keeps a named snapshot under another name; see `steps.snapshots.pin`."""
        from pipelines.steps import snapshots

        return snapshots.pin(self.store, name, self.resolve(table, snapshot), reason=reason)

    def collect(self, keep_since: datetime, *, dry_run: bool = True) -> Collection:
        """Removes what nobody needs; see `steps.snapshots.collect` and `steps.pieces.sweep`."""
        from pipelines.steps import pieces, snapshots

        now = datetime.now(UTC)
        done = snapshots.collect(
            self.store,
            self.registry,
            self.all_tables(),
            keep_since,
            self.run,
            dry_run=dry_run,
            now=now,
        )
        old = pieces.sweep(self._scores, min(keep_since, now - snapshots.LIVE), dry_run=dry_run)
        return done.model_copy(update={"swept": (*done.swept, *old)})

    # -- provenance ----------------------------------------------------------------------------------------------

    def trace(self, name: str) -> Trace:
        """Where something came from and what became of it; see `steps.tracing.trace`."""
        from pipelines.steps import tracing

        return tracing.trace(self.spec, self.store, self.registry, name)

    def replay(self, partition: str) -> Replay:
        """Scores predictions again from what was recorded; see `steps.replay.replay`."""
        from pipelines.steps import replay

        return replay.replay(self.spec, self.store, self.registry, partition, self.run)

    # -- erase ---------------------------------------------------------------------------------------------------

    def erase(self, key: str, reason: str, *, act: bool) -> Erasure:
        """Removes a subject for good, or only says where it is; see `steps.erasure.erase`.

        Args:
            key: `column=value`.
        """
        from pipelines.steps import erasure

        settings = self.settings
        return erasure.erase(
            self.spec,
            self.store,
            self.source,
            self.registry,
            erasure.parse_subject(self.spec, key),
            erasure.Places(reports=settings.reports, work=settings.work, cache=settings.cache),
            self.run,
            reason=reason,
            act=act,
        )

"""The steps of models: training, gates, registration, promotion, and what people do by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.environment import environment_digest
from pipelines.errors import NotFoundError, explain
from pipelines.ports import OnProgress, OnTrial
from pipelines.records import (
    AliasState,
    Approval,
    Evaluation,
    GateReport,
    ModelRef,
    Promotion,
    RemoteTraining,
    TrainedModel,
    TrainingSet,
)
from pipelines.runtime.adapters import Adapters


class Models(Adapters):
    """Training, and which version is the champion."""

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

    def challenge(self, as_of: str, reason: str, since: str | None = None) -> Promotion | None:
        """Trains, judges, and promotes what passes; None if a gate refused it.

        Raises:
            ConflictError: another promotion came first.
        """
        trained = self.train(self.build_training_set(as_of, since))
        evaluation = self.evaluate(trained)
        report = self.gate(trained, evaluation)
        if not report.passed:
            return None
        return self.promote(self.register(trained, evaluation, report), evaluation, report, reason, as_of)

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

"""The steps of watching: observations, decisions, and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.records import Alert, Observations, Prediction, RetrainDecision
from pipelines.runtime.models import Models

if TYPE_CHECKING:
    from pipelines.steps.lateness import Missing
    from pipelines.steps.simulation import Simulation


class Watching(Models):
    """What is watched, decided and told."""

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

"""The steps of each night: ingest, scores, and their delivery."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines import partitions as keys
from pipelines.ports import ShardJob
from pipelines.records import (
    AuditedScores,
    Delivered,
    DeliveryEntry,
    Landing,
    Night,
    Piece,
    Prediction,
    Publication,
    Scored,
    ScorePlan,
    Shard,
    Validated,
)
from pipelines.runtime.models import Models


class Nightly(Models):
    """What happens to a partition each night."""

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

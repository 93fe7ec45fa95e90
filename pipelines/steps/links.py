"""One thing of a trace with what it was made from: partitions, predictions, trainings, model versions, decisions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pipelines.records import (
    Commit,
    DeliveryEntry,
    Link,
    ModelRef,
    Promotion,
    RetrainDecision,
    RunInfo,
    SnapshotRef,
    TrainingRun,
)
from pipelines.steps.decisions import DECISIONS, decision_key
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import PROMOTIONS, epoch_key
from pipelines.steps.provenance import LOGS, Books, Part, Scoring, snapshots_of

#: Tags of a training that are facts of their own; the others become links.
_FACTS = ("as_of", "training_set", "train", "validation", "holdout", "spec", "seed", "code_version", "erased")
#: How the metrics of what is served begin: a student's, or the trees'.
_SERVED = ("student", "lightgbm_onnx")
ALIASES = ("champion", "previous", "challenger")


def run_link(run: RunInfo, how: str) -> Link:
    """A run, as commits and logs name it."""
    facts: dict[str, Any] = {"code_version": run.code_version}
    if run.backfill:
        facts["backfill"] = True
    return Link(kind="run", id=f"{run.dag_id}/{run.run_id}", how=how, facts=facts)


def commit_link(commit: Commit, how: str, partition: str | None = None) -> Link:
    """A commit with its run; and with the audit and the source files of one of its partitions."""
    facts: dict[str, Any] = {"at": commit.at.isoformat(timespec="seconds"), "kind": commit.kind}
    if "reason" in commit.provenance:
        facts["reason"] = commit.provenance["reason"]
    links = [run_link(commit.run, "made by")]
    audit = commit.audits.get(partition) if partition is not None else None
    if audit is not None:
        checked = {"suite": audit.suite, "suite_digest": audit.suite_digest, "checks": audit.checks, "rows": audit.rows}
        links.append(Link(kind="audit", id=audit.digest, how="let through by", facts=checked))
        links += [
            Link(kind="file", id=file.path, how="landed as", facts={"sha256": file.sha256, "bytes": file.bytes})
            for file in audit.sources
        ]
    return Link(kind="commit", id=commit.snapshot.id, how=how, facts=facts, links=tuple(links))


class Links:
    """Builds links from the books of one use case."""

    def __init__(self, books: Books) -> None:
        """Reads nothing."""
        self._books = books
        self._name = books.spec.name

    # -- partitions ------------------------------------------------------------------------------------------------

    def part(self, part: Part, how: str = "", *, more: Iterable[Link] = ()) -> Link:
        """A partition's bytes: their state, the commit that made them, and why they are gone when they are."""
        commit = self._books.origin(part)
        links = [commit_link(commit, "published as", part.partition)] if commit is not None else []
        facts: dict[str, Any] = {"digest": part.digest, "state": self.state(part)}
        if commit is not None and part.partition in commit.audits:
            facts["rows"] = commit.audits[part.partition].rows
        if (stone := self._books.tombstones.get(part)) is not None:
            told = {"kind": stone.kind, "at": stone.at.isoformat(timespec="seconds"), "reason": stone.reason}
            by = run_link(stone.run, "made by")
            links.append(Link(kind="tombstone", id=stone.id, how="told by", facts=told, links=(by,)))
        if part.table == PREDICTIONS:
            links += map(_delivery_link, self._books.deliveries.get(part, ()))
        name = f"{self._name}/{part.table}/{part.partition}"
        return Link(kind="partition", id=name, how=how, facts=facts, links=(*links, *more))

    def state(self, part: Part) -> str:
        """Whether readers see these bytes now, or what became of them."""
        found = self._books.current(part.table).get(part.partition)
        if found is not None and found.digest == part.digest:
            return "current"
        stone = self._books.tombstones.get(part)
        if stone is not None:
            return stone.kind
        return "removed" if found is None else "superseded"

    def inputs(self, scoring: Scoring) -> list[Link]:
        """What a prediction partition was made from: the snapshots, and the exact partitions of them."""
        read = [self.part(part, "read") for part in scoring.read]
        return [*map(_pinned, scoring.snapshots.values()), *read]

    def scored(self, scoring: Scoring, how: str, *, model: bool) -> Link:
        """A prediction partition in short; with the model that made it when asked."""
        by = [self.model(scoring.version, "scored by")] if model else []
        link = self.part(scoring.part, how, more=by)
        made: dict[str, Any] = {"model": f"{self._name}@{scoring.version}"}
        if scoring.threshold is not None:
            made["threshold"] = scoring.threshold
        return link.model_copy(update={"facts": {**link.facts, **made}})

    # -- models ----------------------------------------------------------------------------------------------------

    def model(self, version: int, how: str = "", *, learned: bool = False, scored: bool = False) -> Link:
        """A model version: its training, its gates, its promotions.

        Args:
            version: of the use case's registered model.
            how: its relation to the thing above it.
            learned: with every partition that its training read.
            scored: with every partition of predictions that it made.
        """
        name = f"{self._name}@{version}"
        training = self._books.training(version)
        if training is None or training.model is None:
            return Link(kind="model", id=name, how=how, facts={"state": "no longer registered"})
        links = [self.training(training, "made by", learned=learned)]
        links += [
            self.promotion(entry, "made champion by") for entry in self._books.promotions if entry.version == version
        ]
        if scored:
            mine = [scoring for scoring in self._books.scorings if scoring.version == version]
            links += [self.scored(scoring, "scored", model=False) for scoring in reversed(mine)]
        return Link(
            kind="model", id=name, how=how, facts=self._model_facts(training.model, training), links=tuple(links)
        )

    def _model_facts(self, model: ModelRef, training: TrainingRun) -> dict[str, Any]:
        facts: dict[str, Any] = {"artifact": model.digest}
        if aliases := [alias for alias in ALIASES if self._books.alias(alias) == model.version]:
            facts["alias"] = ", ".join(aliases)
        if metric := training.model_tags.get("overnight.metric"):
            facts["holdout_metric"] = metric
        return facts

    def training(self, training: TrainingRun, how: str = "", *, learned: bool = False) -> Link:
        """A training: who ran it and why, its parameters, the verdict of the gates, what it learned from."""
        tags = training.tags
        facts: dict[str, Any] = {name: tags[f"overnight.{name}"] for name in _FACTS if f"overnight.{name}" in tags}
        if "overnight.parameters" in tags:
            facts["parameters"] = json.loads(tags["overnight.parameters"])
        facts["metrics"] = {name: value for name, value in training.metrics.items() if name.startswith(_SERVED)}
        links = []
        if dag_run := tags.get("overnight.dag_run"):
            links.append(Link(kind="run", id=dag_run, how="run by"))
            links += [
                self.decision(entry, "asked for by")
                for entry in self._books.decisions
                if entry.id == dag_run.partition("/")[2]
            ]
        if gate := tags.get("overnight.gate"):
            compared = {"champion_compared": tags.get("overnight.champion_compared", "none")}
            verdict = {"verdict": gate, **compared, "reason": tags.get("overnight.gate_reason", "")}
            links.append(Link(kind="gates", id=f"{training.run_id}/gates", how="judged by", facts=verdict))
        links += map(_pinned, snapshots_of(training))
        if learned:
            links += [self.part(part, "learned from") for part in self._books.learned_from(training)]
        return Link(kind="training", id=training.run_id, how=how, facts=facts, links=tuple(links))

    # -- the logs --------------------------------------------------------------------------------------------------

    def promotion(self, entry: Promotion, how: str = "") -> Link:
        """An entry of the promotion log, with the run that made it."""
        facts = entry.model_dump(include={"epoch", "kind", "version", "previous", "reason", "as_of"})
        audit = self._log_audit(PROMOTIONS, epoch_key(entry.epoch))
        links = (run_link(entry.run, "made by"), *audit)
        name = f"{self._name}/{PROMOTIONS}/{epoch_key(entry.epoch)}"
        return Link(kind="promotion", id=name, how=how, facts=facts, links=links)

    def decision(self, entry: RetrainDecision, how: str = "") -> Link:
        """A retraining decision, with the run that made it."""
        facts = entry.model_dump(mode="json", include={"as_of", "retrain", "reasons", "champion"})
        commits = self._books.published(DECISIONS, decision_key(entry.id))
        links = [run_link(commits[0].run, "made by")] if commits else []
        links += self._log_audit(DECISIONS, decision_key(entry.id))
        return Link(kind="decision", id=entry.id, how=how, facts=facts, links=tuple(links))

    def _log_audit(self, table: str, key: str) -> list[Link]:
        """The rules that let an entry into its log."""
        commits = self._books.published(table, key)
        return [link for link in commit_link(commits[0], "", key).links if link.kind == "audit"] if commits else []

    # -- what was made of it ---------------------------------------------------------------------------------------

    def used_by(self, parts: Iterable[Part]) -> list[Link]:
        """The predictions that read any of these partitions, and the trainings that learned from any of them."""
        wanted = set(parts)
        read = [scoring for scoring in self._books.scorings if not wanted.isdisjoint(scoring.read)]
        found = [self.scored(scoring, "read by", model=True) for scoring in reversed(read)]
        for training in self._books.trainings:
            if not wanted.isdisjoint(self._books.learned_from(training)):
                found.append(self.learner(training, "learned by", scored=True))
        return found

    def learner(self, training: TrainingRun, how: str, *, scored: bool = False) -> Link:
        """A training as what became of data: the model version when there is one."""
        if training.model is not None:
            return self.model(training.model.version, how, scored=scored)
        return self.training(training, how)

    def named_by(self, snapshot: SnapshotRef) -> list[Link]:
        """The predictions and trainings whose record names a snapshot, and its pins."""
        same = self._books.same
        named = [
            scoring
            for scoring in self._books.scorings
            if (ref := scoring.snapshots.get(snapshot.table)) is not None and same(ref, snapshot)
        ]
        found = [self.scored(scoring, "read by", model=True) for scoring in reversed(named)]
        for training in self._books.trainings:
            if any(same(ref, snapshot) for ref in snapshots_of(training)):
                found.append(self.learner(training, "learned by", scored=True))
        found += [
            Link(kind="pin", id=pin.name, how="kept by", facts={"reason": pin.reason})
            for pin in self._books.store.pins()
            if same(pin.snapshot, snapshot)
        ]
        return found


def _delivery_link(entry: DeliveryEntry) -> Link:
    done = entry.delivered
    facts = {"to": done.where, "rows": done.rows, "time": entry.number}
    return Link(
        kind="delivery", id=done.key, how=f"handed to {done.delivery}", facts=facts, links=(run_link(entry.run, "by"),)
    )


def _pinned(snapshot: SnapshotRef) -> Link:
    return Link(kind="snapshot", id=snapshot.id, how="read from")


def is_data(table: str) -> bool:
    """Whether a table's partitions are read by scoring and training."""
    return table not in (PREDICTIONS, *LOGS)

"""The predictions table: its columns, what each partition was made of, and how scores get there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.errors import ConflictError
from pipelines.ports import SnapshotStore
from pipelines.records import AuditedScores, Prediction, RunInfo, Scored, ScorePlan
from pipelines.spec import UseCase
from pipelines.steps.reads import prediction_notes

PREDICTIONS = "predictions"
#: What is decided of a row: binary, whether its score reaches the model's threshold; multiclass, the likeliest class.
DECISION = "prediction"
#: When the run was due that scored a row, and the snapshot that brought the row.
SCORED_AT, SNAPSHOT = "scored_at", "snapshot"


def score_columns(spec: UseCase) -> list[str]:
    """The columns of the predictions table that hold scores."""
    if spec.label.task == "multiclass":
        return [f"score_{name}" for name in spec.label.classes]
    return ["score"]


def published_predictions(store: SnapshotStore) -> dict[str, dict[str, Any]]:
    """What each published prediction partition was made of: {partition: {model, inputs, read}}.

    A partition that a revert brought back is what its own publish made it.
    """
    now: dict[str, str | None] = {}
    made: dict[str, dict[str, Any]] = {}
    for commit in store.history(PREDICTIONS):  # newest first: the first word on a partition is the last
        for partition in commit.removed:
            now.setdefault(partition, None)
        told = commit.provenance.get("predictions", {})
        for partition, digest in commit.partitions.items():
            if now.setdefault(partition, digest) == digest and partition in told:
                made.setdefault(partition, told[partition])
    return {partition: made.get(partition, {}) for partition, digest in now.items() if digest is not None}


def publish_scores(store: SnapshotStore, audited: AuditedScores, run: RunInfo) -> tuple[Prediction, ...]:
    """Publishes audited scores in one commit that names the model and the input snapshots.

    What another run published meanwhile from the same inputs stays, as if it had been there before.

    Returns:
        One record a partition, the unchanged ones included.

    Raises:
        ConflictError: another run published a partition from other inputs, or with another model than was named.
        RemovedError: rows that were scored have been erased or collected since; nothing is published of them.
    """
    scored = audited.scored
    refuse_removed(store, scored)
    fresh = _publish(store, audited, run)
    head = store.head(PREDICTIONS)
    if head is None:
        return ()
    held = store.partitions(head)
    made_by = published_predictions(store)
    return tuple(
        Prediction(
            partition=partition,
            # An erasure may have left exactly these bytes, and says nothing of a model.
            model_version=int(made_by[partition].get("model", scored.model.version)),
            inputs=scored.inputs,
            rows_in=rows_in,
            rows_scored=held[partition].rows,
            digest=held[partition].digest,
            state="published" if partition in fresh else "unchanged",
            snapshot=head,
        )
        for partition, rows_in in sorted(scored.rows_in.items())
    )


def refuse_removed(store: SnapshotStore, scored: Scored) -> None:
    """Passes when the rows of staged scores are there to be read: scores of a row that was erased are not published.

    Raises:
        RemovedError: they were erased or collected.
    """
    if scored.staged:
        rows = next(ref for ref in scored.inputs if ref.table == "rows")
        store.scan(rows, [part.partition for part in scored.staged])


def _publish(store: SnapshotStore, audited: AuditedScores, run: RunInfo) -> set[str]:
    """Publishes what no other run has published; gives the partitions that this call published."""
    scored = audited.scored
    reports = {report.partition: report for report in audited.validated.reports}
    staged = list(audited.validated.staged)
    while staged:
        notes = prediction_notes(store, scored, staged)
        chosen = [reports[part.partition] for part in staged]
        try:
            done = store.publish(PREDICTIONS, staged, chosen, run, provenance=notes, wider=True)
        except ConflictError:
            made = published_predictions(store)
            there = [part for part in staged if _is_made(scored, made.get(part.partition, {}), part.partition)]
            if not there:
                raise
            for part in there:
                store.discard(part)
            staged = [part for part in staged if part not in there]
        else:
            return {part.partition for part in done.published}
    return set()


def _is_made(plan: ScorePlan, made: Mapping[str, Any], partition: str) -> bool:
    """Whether what is published is what this plan would publish."""
    if made.get("inputs") != plan.fingerprints[partition]:
        return False
    return not plan.anew or made.get("model") == plan.model.version


def due(plan: ScorePlan, made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Partitions of a plan that have to be scored.

    Args:
        made: as `published_predictions` gives it.
    """
    return [partition for partition in plan.rows_in if not _is_made(plan, made.get(partition, {}), partition)]

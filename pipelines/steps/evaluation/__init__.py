"""Evaluate: challenger and champion on the same holdout, and everything else that a gate judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipelines import artifacts
from pipelines.errors import IntegrityError, TransientError
from pipelines.ports import FairnessAuditor, ModelRegistry, SnapshotStore
from pipelines.records import Evaluation, Holdout, ModelRef, TrainedModel
from pipelines.spec import GREATER_IS_BETTER, UseCase
from pipelines.steps.evaluation import data, fairness, fp32, quality, sanity
from pipelines.steps.evaluation.meeting import Meeting, Part
from pipelines.steps.training import told

#: What is measured beside the scorecards, by name: one that fails is an entry of `errors`, and its gates refuse.
PARTS: dict[str, Part] = {
    "features": quality.single_features,
    "classes": quality.classes,
    "quality": quality.certainty,
    "sanity": sanity.sanity_checks,
    "fp32": fp32.served_against_fp32,
    "data": data.data_audit,
    "fairness": fairness.fairness,
}


def evaluate(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    auditor: FairnessAuditor,
    champion: ModelRef | None,
    trained: TrainedModel,
    holdout: Holdout,
) -> Evaluation:
    """Scores the holdout with the challenger's served graph and the champion's, and measures what the gates judge.

    Raises:
        IntegrityError: an artifact is not what was sealed.
        SchemaMismatch: the champion needs a feature that the holdout does not have.
    """
    artifacts.verify(Path(trained.folder), trained.digest)
    rival = registry.fetch(champion) if champion else None
    frame = pl.read_parquet(holdout.path)
    meeting = Meeting(spec, store, auditor, trained, holdout, frame, rival, champion.digest if champion else None)
    metric = spec.gates.metric
    learned = {"challenger": trained.training_set.learned}
    if champion and rival:
        learned["champion"] = told(rival, champion.digest).learned
    measured: dict[str, Any] = {}
    errors: dict[str, str] = {}
    other = meeting.champion_scores
    challenger = quality.scorecard(meeting, "challenger", meeting.folder, meeting.scores)
    for name, part in PARTS.items():
        try:
            measured.update(part(meeting))
        except (TransientError, IntegrityError):
            raise
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return Evaluation(
        use_case=spec.name,
        metric=metric,
        greater_is_better=GREATER_IS_BETTER[metric],
        holdout=holdout,
        learned=learned,
        challenger=challenger,
        challenger_run=trained.run_id,
        champion=quality.scorecard(meeting, "champion", rival, other) if rival and other is not None else None,
        champion_version=champion.version if champion else None,
        others=trained.scorecards,
        served=meeting.engine.facts["served"],
        errors=errors,
        **measured,
    )

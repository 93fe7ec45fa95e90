"""The decision log: every decision to retrain or not, with its evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl
from pydantic import ValidationError

from pipelines.policies.retraining import decide as decide_retraining
from pipelines.policies.retraining import policy_digest
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import Check, Observations, RetrainDecision, RunInfo
from pipelines.spec import UseCase
from pipelines.steps.logs import append
from pipelines.steps.outcomes import outcomes

DECISIONS = "decisions"


@dataclass(frozen=True, kw_only=True)
class Decided:
    """An entry of the log."""

    decision: RetrainDecision
    evidence: Observations | None
    """What it was decided on; None: an older version of the project observed other things."""


def decision_key(decision: str) -> str:
    """The partition of a decision's entry."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", decision)


def decisions(store: SnapshotStore) -> list[RetrainDecision]:
    """The decision log, in the order of the partitions that were decided on."""
    return [entry.decision for entry in entries(store)]


def entries(store: SnapshotStore) -> list[Decided]:
    """The same with the evidence."""
    head = store.head(DECISIONS)
    if head is None:
        return []
    rows = store.scan(head).select("decision", "evidence").collect()
    log = [
        Decided(decision=RetrainDecision.model_validate_json(decision), evidence=_evidence(evidence))
        for decision, evidence in rows.iter_rows()
    ]
    return sorted(log, key=lambda entry: (entry.decision.as_of, entry.decision.champion, entry.decision.id))


def _evidence(text: str) -> Observations | None:
    try:
        return Observations.model_validate_json(text)
    except ValidationError:
        return None


def decide(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, observations: Observations, run: RunInfo
) -> RetrainDecision:
    """Decides, and appends the decision with its evidence to the log; a repeat appends nothing.

    A backfill is decided too: it never says yes, and its entry is its own.
    """
    past = decisions(store)
    tried = outcomes(spec, store, registry, observations.as_of)
    decision = decide_retraining(observations, spec, past=past, trainings=tried, backfill=run.backfill)
    kept = {entry.id: entry for entry in past}
    if decision.id in kept:
        return kept[decision.id]
    frame = pl.DataFrame(
        {
            "as_of": [decision.as_of],
            "retrain": [decision.retrain],
            "reasons": ["; ".join(decision.reasons)],
            "decision": [decision.model_dump_json()],
            "evidence": [observations.model_dump_json(exclude={"report_html"})],
            "policy": [decision.policy],
        }
    )
    append(
        store,
        spec.name,
        DECISIONS,
        decision_key(decision.id),
        frame,
        [Check(name="decided_by_policy", passed=True, observed="; ".join(decision.reasons))],
        run,
        suite=f"{spec.name}.retraining",
        suite_digest=policy_digest(spec),
    )
    return decision

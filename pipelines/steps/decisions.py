"""The decision log: every decision to retrain or not, with its evidence."""

from __future__ import annotations

import hashlib
import re

import polars as pl

from pipelines.policies.retraining import decide as decide_retraining
from pipelines.ports import SnapshotStore
from pipelines.records import Check, Observations, RetrainDecision, RunInfo
from pipelines.spec import UseCase
from pipelines.steps.logs import append

DECISIONS = "decisions"


def decision_key(decision: str) -> str:
    """The partition of a decision's entry."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", decision)


def decisions(store: SnapshotStore) -> list[RetrainDecision]:
    """The decision log, in the order of the partitions that were decided on."""
    head = store.head(DECISIONS)
    if head is None:
        return []
    entries = store.scan(head).collect().get_column("decision")
    log = [RetrainDecision.model_validate_json(text) for text in entries]
    return sorted(log, key=lambda entry: (entry.as_of, entry.champion, entry.id))


def decide(spec: UseCase, store: SnapshotStore, observations: Observations, run: RunInfo) -> RetrainDecision:
    """Decides, and appends the decision with its evidence to the log; a repeat appends nothing.

    A backfill is decided too (it never says yes) and is not kept apart from a night of the same outcome.
    """
    past = decisions(store)
    decision = decide_retraining(observations, spec, past=past, backfill=run.backfill)
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
            "policy": [hashlib.sha256(spec.retraining.model_dump_json().encode()).hexdigest()],
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
        suite_digest=hashlib.sha256(spec.retraining.model_dump_json().encode()).hexdigest(),
    )
    return decision

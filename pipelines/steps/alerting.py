"""What a monitor run tells people: incidents that it opens, and those that are over."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pipelines.alerts import AlertBook
from pipelines.policies.incidents import KINDS, conditions
from pipelines.ports import SnapshotStore
from pipelines.records import Alert, Observations, RetrainDecision, RunInfo
from pipelines.spec import UseCase
from pipelines.steps.decisions import decisions
from pipelines.steps.drift_report import page


def alert(
    spec: UseCase,
    store: SnapshotStore,
    book: AlertBook,
    observations: Observations,
    decision: RetrainDecision,
    run: RunInfo,
    at: datetime,
) -> tuple[Alert, ...]:
    """Opens and ends incidents in the book; gives what is new in it.

    A backfill tells nothing, and neither does a look at a night that a later one was looked at after: what was wrong
    then is not news, and what is wrong now is not over because it was not wrong then.

    Args:
        at: now (UTC).
    """
    later = any(each.as_of > observations.as_of and not each.backfill for each in decisions(store))
    if run.backfill or decision.backfill or later:
        return ()
    shown = Path(spec.name) / page(observations)
    log = f"`overnight decisions {spec.name} --since {observations.as_of} --reasons`"
    night = f"`overnight watch {spec.name} --as-of {observations.as_of}`"
    evidence = {**dict.fromkeys(KINDS, night), "inputs": str(shown), "scores": str(shown), "decay": log, "person": log}
    return book.update(
        spec.name,
        conditions(observations, decision, spec),
        granularity=spec.granularity,
        at=at,
        run=f"{run.dag_id}/{run.run_id}",
        evidence=evidence,
    )

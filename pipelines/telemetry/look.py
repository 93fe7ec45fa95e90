"""Looks at a use case as it is published now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.records import ModelRef
from pipelines.runtime import Runtime
from pipelines.telemetry.readings import Look

if TYPE_CHECKING:
    from pipelines.ports import SnapshotStore
    from pipelines.steps.decisions import Decided


def look(runtime: Runtime) -> Look:
    """Reads the logs of decisions and of promotions, the nights and the book of alerts.

    Raises:
        OvernightError: the store or the registry does not answer, or holds something that cannot be read.
    """
    from pipelines.steps import decisions

    champion = runtime.champion()
    log = decisions.entries(runtime.store)
    newest = _newest(log, champion, runtime.store) if champion is not None else None
    return Look(
        use_case=runtime.spec.name,
        granularity=runtime.spec.granularity,
        champion=champion,
        decision=newest.decision if newest is not None else None,
        evidence=newest.evidence if newest is not None else None,
        decisions=[entry.decision for entry in log],
        promotions=runtime.promotions(),
        nights=runtime.nights(),
        alerts=runtime.alerts.open(),
    )


def _newest(log: list[Decided], champion: ModelRef, store: SnapshotStore) -> Decided | None:
    """The night's entry about this champion of the newest partition; of several, the one that was appended last."""
    from pipelines.steps.decisions import DECISIONS, decision_key

    mine = [entry for entry in log if entry.decision.champion == champion.version and not entry.decision.backfill]
    as_of = max((entry.decision.as_of for entry in mine), default=None)
    last = {decision_key(entry.decision.id): entry for entry in mine if entry.decision.as_of == as_of}
    if len(last) > 1:
        for commit in store.history(DECISIONS):  # newest first
            for key in commit.partitions:
                if key in last:
                    return last[key]
    return next(iter(last.values()), None)

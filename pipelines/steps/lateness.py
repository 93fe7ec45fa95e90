"""Whether a night's scores are there: what the deadline of a night asks, and what ends its alert."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.ports import SnapshotStore
from pipelines.spec import UseCase
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import PROMOTIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Why a partition has no scores, as far as the published tables tell."""

    what: str
    remedy: str


def missing(spec: UseCase, store: SnapshotStore, partition: str) -> Missing | None:
    """What keeps a partition from having published predictions; None: it has them.

    Raises:
        UnavailableError: the store did not answer.
    """
    if _holds(store, PREDICTIONS, partition):
        return None
    if not _holds(store, "rows", partition):
        return Missing(
            what="its rows are not published",
            remedy=f"see the run of {spec.name}_ingest for {partition}: have its file sent or mended, and run it again",
        )
    if store.head(PROMOTIONS) is None:
        return Missing(what="there is no champion yet", remedy=f"run {spec.name}_train, then {spec.name}_score")
    return Missing(
        what="its rows are published, its scores are not",
        remedy=f"see the runs of {spec.name}_ingest and {spec.name}_score for {partition}; clear what failed or hangs, "
        f"or trigger {spec.name}_score with this partition",
    )


def _holds(store: SnapshotStore, table: str, partition: str) -> bool:
    head = store.head(table)
    return head is not None and partition in store.partitions(head)

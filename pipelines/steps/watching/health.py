"""What the data of a window lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines import partitions as keys
from pipelines.ports import SnapshotStore
from pipelines.records import DataHealth, Observation, Skew
from pipelines.spec import UseCase
from pipelines.steps.nights import publishes
from pipelines.steps.watching.labels import Labelled


def health(
    spec: UseCase,
    store: SnapshotStore,
    window: Sequence[Observation],
    held: Mapping[str, object],
    labels: Labelled,
    late: tuple[str, ...],
    skew: Skew | None,
) -> DataHealth:
    """Everything about the data that is no drift.

    Args:
        window: in order; the last one is what is looked at.
        held: the published partitions of rows.
    """
    wanted = [each.partition for each in window]
    as_of = wanted[-1]
    newest = max((key for key in held if key <= as_of), default=None)

    def those(state: str) -> tuple[str, ...]:
        return tuple(each.partition for each in window if each.state == state)

    times = publishes(store, spec.label.table)[1]
    failed = [
        entry
        for table in dict.fromkeys(("rows", spec.label.table, *spec.context))
        for entry in store.quarantined(table)
        if entry.partition in wanted
    ]
    return DataHealth(
        missing=those("missing"),
        quarantined=those("quarantined"),
        not_scored=those("not_scored"),
        few_rows=those("few_rows"),
        failed=len(failed),
        newest=newest,
        behind=len(keys.span(newest, as_of, spec.granularity)) - 1 if newest else len(wanted),
        late_labels=late,
        unlabelled=sum(labels.unlabelled.values()),
        strange_labels=labels.strange,
        disagreeing_labels=labels.disagreeing,
        # Where rows and labels are one table, what is restated is the rows.
        restated_labels=tuple(key for key in wanted if spec.label.table != "rows" and times[key] > 1),
        skew=skew,
    )

"""What came of trainings: promoted, refused, or neither; as the registry and the promotion log tell it."""

from __future__ import annotations

from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import TrainingOutcome, TrainingRun
from pipelines.spec import UseCase
from pipelines.steps.aliases import is_refused
from pipelines.steps.promotions import promotions
from pipelines.steps.watching.labels import newer_labels

#: Run ids of trainings that a decision asked for begin so.
_DECIDED = "retrain-"


def outcomes(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, as_of: str) -> list[TrainingOutcome]:
    """Every training that says which labels it saw, oldest first.

    Args:
        as_of: the newest partition that is looked at: labels count that have matured by then.
    """
    champions = {entry.version for entry in promotions(store)}
    labels = store.head(spec.label.table)
    counts: dict[str, int] = {}
    found = []
    for training in registry.trainings():
        newest = training.tags.get("overnight.holdout", "").partition("..")[2]
        if not newest or "overnight.as_of" not in training.tags:
            continue
        if labels is not None and newest not in counts:
            counts[newest] = newer_labels(spec, store, labels, newest, as_of)
        found.append(_outcome(training, newest, champions, counts.get(newest, 0)))
    return found


def _outcome(training: TrainingRun, newest: str, champions: set[int], labels: int) -> TrainingOutcome:
    run = training.tags.get("overnight.dag_run", "").partition("/")[2]
    version = training.model.version if training.model is not None else None
    return TrainingOutcome(
        as_of=training.tags["overnight.as_of"],
        newest=newest,
        decision=run if run.startswith(_DECIDED) else None,
        version=version,
        promoted=version in champions,
        refused=is_refused(training.tags),
        new_labels=labels,
        seconds=float(training.tags["overnight.seconds"]) if "overnight.seconds" in training.tags else None,
    )

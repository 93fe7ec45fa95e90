"""What an erasure means for what was made of the rows: models, and predictions that cannot be replayed."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines import partitions as keys
from pipelines.errors import IntegrityError, NotFoundError
from pipelines.ports import STATIC, ModelRegistry, SnapshotStore
from pipelines.records import ErasedModel, SnapshotRef, TrainingSet
from pipelines.spec import UseCase
from pipelines.steps.erasing.files import artifact_holds
from pipelines.steps.erasing.traces import Traces
from pipelines.steps.scoring import PREDICTIONS, REPLACES

#: The files that were erased, by table: partition and digest of each.
Erased = dict[str, set[tuple[str, str]]]

_PARTS = ("train", "validation", "holdout")


def trained_on(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, traces: Traces, erased: Erased
) -> tuple[ErasedModel, ...]:
    """The model versions that learned from, were calibrated on, or were judged on erased files.

    Args:
        erased: what is erased.
    """
    found = []
    for model in registry.versions() if erased else ():
        try:
            folder = registry.fetch(model)
            parts = _parts_reading(spec, store, _training_set(folder), erased)
        except (IntegrityError, NotFoundError):  # better one too many than one too few
            found.append(ErasedModel(model=model, parts=("unknown",), holds_values=True))
            continue
        if parts:
            found.append(ErasedModel(model=model, parts=parts, holds_values=artifact_holds(spec, traces, folder)))
    return tuple(found)


def _training_set(folder: Path) -> TrainingSet:
    told = json.loads((folder / "provenance.json").read_text("utf-8"))
    return TrainingSet.model_validate({"folder": "", **told})


def _parts_reading(spec: UseCase, store: SnapshotStore, seen: TrainingSet, erased: Erased) -> tuple[str, ...]:
    ranges = {"train": seen.train, "validation": seen.validation, "holdout": seen.holdout}
    gone = [
        (ref.table, name)
        for ref in seen.snapshots
        for name, part in store.partitions(ref).items()
        if (name, part.digest) in erased.get(ref.table, ())
    ]
    return tuple(part for part in _PARTS if any(_reads(spec, table, name, *ranges[part]) for table, name in gone))


def _reads(spec: UseCase, table: str, name: str, first: str, last: str) -> bool:
    """Whether the features or labels of a range of partitions read this partition of a table."""
    if name == STATIC:
        return True
    back = spec.features.lookback if table in spec.context else 0
    return keys.shift(first, -back, spec.granularity) <= name <= last


def unreplayable(spec: UseCase, store: SnapshotStore, erased: Erased) -> tuple[str, ...]:
    """The published prediction partitions whose inputs, as they were scored, or whose own bytes are erased."""
    head = store.head(PREDICTIONS)
    if head is None or not erased:
        return ()
    inputs: dict[str, list[str]] = {}
    rewritten: dict[str, bool] = {}
    mine = erased.get(PREDICTIONS, set())
    for commit in store.history(PREDICTIONS):  # newest first
        for name, digest in commit.partitions.items():
            before = commit.provenance.get(REPLACES, {}).get(name)
            rewritten.setdefault(name, (name, digest) in mine or (name, before) in mine)
            if "snapshots" in commit.provenance:  # the commit that scored it: an erasure scores nothing
                inputs.setdefault(name, commit.provenance["snapshots"])
    refs = {ref: SnapshotRef.parse(ref) for each in inputs.values() for ref in each}
    lost = {ref: _lost(store, snapshot, erased) for ref, snapshot in refs.items()}
    return tuple(
        name
        for name in store.partitions(head)
        if rewritten.get(name, False)
        or any(lost[ref] & _read_by(spec, refs[ref].table, name) for ref in inputs.get(name, ()))
    )


def _read_by(spec: UseCase, table: str, name: str) -> set[str]:
    """The partitions of an input table that the features of one partition may read."""
    if table == "rows":
        return {name}
    return {STATIC, *(keys.shift(name, -back, spec.granularity) for back in range(spec.features.lookback + 1))}


def _lost(store: SnapshotStore, ref: SnapshotRef, erased: Erased) -> set[str]:
    """The partitions of a snapshot whose files are erased."""
    gone = erased.get(ref.table)
    if not gone:
        return set()
    return {name for name, part in store.partitions(ref).items() if (name, part.digest) in gone}

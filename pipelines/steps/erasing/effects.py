"""What an erasure means for what was made of the rows: models, and predictions that cannot be replayed."""

from __future__ import annotations

from pipelines import partitions as keys
from pipelines.errors import IntegrityError, NotFoundError
from pipelines.ports import STATIC
from pipelines.records import ErasedModel, TrainingRun
from pipelines.spec import UseCase
from pipelines.steps.erasing.files import artifact_holds
from pipelines.steps.erasing.traces import Traces
from pipelines.steps.inputs import REPLACES
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.provenance import Books, Part, snapshots_of

#: Unlabelled are the partitions newer than the holdout; rows of the train stretch without a label count as train.
_PARTS = ("train", "validation", "holdout", "unlabelled")


def trained_on(books: Books, traces: Traces, erased: set[Part]) -> tuple[ErasedModel, ...]:
    """The trainings that learned from, were calibrated on, or were judged on erased files, oldest first.

    Those that no gate let through count too: their artifacts lie in MLflow.
    """
    found = []
    for training in books.trainings if erased else ():
        parts = _parts_reading(books, training, erased)
        if parts:
            name = training.model.id if training.model else f"training {training.run_id} (not registered)"
            holds = _holds(books, traces, training)
            found.append(ErasedModel(name=name, run_id=training.run_id, parts=parts, holds_values=holds))
    return tuple(found)


def _parts_reading(books: Books, training: TrainingRun, erased: set[Part]) -> tuple[str, ...]:
    gone = [
        part
        for ref in snapshots_of(training)
        for key, held in books.held(ref).items()
        if (part := Part(table=ref.table, partition=key, digest=held.digest)) in erased
    ]
    named = [name for name in _PARTS if name != "unlabelled" or f"overnight.{name}" in training.tags]
    ranges = {name: training.tags.get(f"overnight.{name}", "").split("..") for name in named}
    return tuple(
        name
        for name in named
        if any(
            _reads(books.spec, part, *ranges[name])
            for part in gone
            if name != "unlabelled" or part.table in ("rows", *books.spec.context)
        )
    )


def _reads(spec: UseCase, part: Part, first: str = "", last: str = "") -> bool:
    """Whether the features or labels of a range of partitions read this one; of no range, to be safe, yes."""
    if part.partition == STATIC or not last:
        return True
    back = spec.features.lookback if part.table in spec.context else 0
    return keys.shift(first, -back, spec.granularity) <= part.partition <= last


def _holds(books: Books, traces: Traces, training: TrainingRun) -> bool | None:
    if traces.subject.column in books.spec.features.columns:
        return True
    try:
        return artifact_holds(traces, books.registry.fetch(training.model)) if training.model else None
    except (IntegrityError, NotFoundError):
        return None


def unreplayable(books: Books, erased: set[Part]) -> tuple[str, ...]:
    """The published prediction partitions that have lost rows, or whose recorded inputs are erased."""
    found = []
    for name, held in books.current(PREDICTIONS).items() if erased else ():
        part = Part(table=PREDICTIONS, partition=name, digest=held.digest)
        scoring = books.scoring(part)
        read = {part} if scoring is None else {part, *scoring.read, *_replaced(part, scoring.commit.provenance)}
        if not read.isdisjoint(erased):
            found.append(name)
    return tuple(found)


def _replaced(part: Part, provenance: dict[str, dict[str, str]]) -> list[Part]:
    """What an erase commit put these predictions in the place of."""
    before = provenance.get(REPLACES, {}).get(part.partition)
    return [Part(table=part.table, partition=part.partition, digest=before)] if before else []

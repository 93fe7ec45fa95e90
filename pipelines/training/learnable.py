"""From the files of a training set to what the networks learn from: tables, their preparation, and feeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import TrainingError, explain
from pipelines.spec import UseCase
from pipelines.training import memory, prepare, stream, weights
from pipelines.training.compress import Scale
from pipelines.training.data import Table, read
from pipelines.training.feed import Feed, Resident
from pipelines.training.job import TRAIN, VALIDATION, Job
from pipelines.training.stream import Streamed

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows as they were landed."""

    train: Table
    """All training rows; of a table that is streamed, their labels and weights alone."""
    sample: Table
    """Training rows with their features: all of them, or, of a table that is streamed, many."""
    validation: Table

    @property
    def streamed(self) -> bool:
        """Whether the training rows stay in their file."""
        return self.sample is not self.train


def tables(job: Job, device: torch.device) -> Tables:
    """Reads train.parquet and validation.parquet.

    Raises:
        TrainingError: a file cannot be read as the spec says, there are too few rows, or one class only.
    """
    spec, path = job.spec, job.part(TRAIN)
    streamed = memory.streams(spec, path, job.part(VALIDATION), device)
    train = read(spec, path, features=not streamed)
    _check(spec, train)
    return Tables(
        train=train,
        sample=stream.sample(spec, path) if streamed else train,
        validation=read(spec, job.part(VALIDATION)),
    )


@dataclass(frozen=True, slots=True)
class Learnable:
    """What the networks learn from, and by what it was encoded."""

    preparation: prepare.Preparation
    label: Scale
    by_class: NDArray[np.float64] | None
    """[classes], see `weights.by_class`."""
    sample: prepare.Encoded
    """Encoded training rows, all or many."""
    rows: Feed
    judged: Feed
    """The validation rows."""


def learnable(job: Job, held: Tables, preparation: prepare.Preparation, device: torch.device) -> Learnable:
    """Encodes the rows and puts them where they are fed from.

    Raises:
        TrainingError: the label of a regression does not vary.
    """
    spec, train = job.spec, held.train
    label = _label_scale(spec, train)
    by_class = weights.by_class(spec, train)
    encoded = preparation.encode(held.sample)
    target_, weight = target(spec, train, label), _weight(train, by_class)
    rows: Feed
    if held.streamed:
        rows = Streamed.of(spec, job.part(TRAIN), preparation, target_, weight, device)
    else:
        rows = Resident.of(encoded, target_, weight, device)
    judged = Resident.of(
        preparation.encode(held.validation),
        target(spec, held.validation, label),
        _weight(held.validation, by_class),
        device,
    )
    return Learnable(preparation, label, by_class, encoded, rows, judged)


def prepared(spec: UseCase, held: Tables) -> prepare.Preparation:
    """The preparation that the training rows ask for.

    Raises:
        TrainingError: nothing varies.
    """
    preparation = prepare.fit(held.sample)
    if not (preparation.varying or preparation.flagged or spec.features.categorical):
        raise TrainingError(
            explain("train.parquet", "every feature is constant or null", remedy="name features that vary")
        )
    return preparation


def target(spec: UseCase, table: Table, label: Scale) -> Tensor:
    """What a network is to say: see `feed.Batch.target`."""
    if spec.label.task == "multiclass":
        return torch.eye(len(spec.label.classes))[torch.from_numpy(table.label).long()]
    return torch.from_numpy(((table.label - label.mean) / label.scale).astype(np.float32))


def _weight(table: Table, by_class: NDArray[np.float64] | None) -> Tensor | None:
    weight = weights.of_rows(table, by_class)
    return None if weight is None else torch.from_numpy(weight)


def _check(spec: UseCase, train: Table) -> None:
    if len(train) < spec.training.min_rows:
        raise TrainingError(
            explain(
                "train.parquet",
                f"{len(train)} rows",
                allowed=f"training.min_rows: {spec.training.min_rows} or more",
                remedy="wait for more partitions, or lower it",
            )
        )
    labels = np.unique(train.label if train.weight is None else train.label[train.weight > 0])
    if spec.label.task != "regression" and len(labels) < 2:
        where = "train.parquet" if train.weight is None else "train.parquet, rows that weigh anything"
        raise TrainingError(explain(where, f"every label is {labels[0]:g}", allowed="two classes or more"))


def _label_scale(spec: UseCase, train: Table) -> Scale:
    if spec.label.task != "regression":
        return Scale()
    label = train.label.astype(np.float64)
    if label.min() == label.max():
        raise TrainingError(explain("train.parquet", f"every label is {label[0]:g}", allowed="labels that vary"))
    return Scale(float(label.mean()), float(label.std()))

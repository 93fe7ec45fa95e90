"""An evaluation of an artifact, without a champion, on a real store that published what the training read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipelines import artifacts
from pipelines.backends.delta import DeltaStore
from pipelines.ports import Draft
from pipelines.records import Evaluation, TrainedModel, TrainingSet
from pipelines.spec import UseCase
from pipelines.steps import evaluation, holdouts
from pipelines.steps.training import read_scorecards
from tests.contracts.stores import RUN, audit

DAY = "2024-01-03"
TRAIN, VALIDATION, AS_OF = "2024-01-01", "2024-01-02", "2024-01-05"


def evaluated(spec: UseCase, data: Path, out: Path) -> Evaluation:
    """What the step makes of an artifact, which is sealed for it.

    Args:
        data: the training set. Its holdout is what the store, beside it, has published as the day's rows.
    """
    (out / artifacts.DIGESTS).unlink(missing_ok=True)
    store = DeltaStore(data / "snapshots", spec.name, data / "cache")
    rows = pl.read_parquet(data / "holdout.parquet").select("id", "label")
    staged = store.stage("rows", [Draft(partition=DAY, frame=rows)], RUN)
    snapshot = store.publish("rows", staged, [audit(part) for part in staged], RUN).snapshot
    span = (DAY, DAY)
    made = TrainingSet(
        use_case=spec.name,
        folder=str(data),
        as_of=AS_OF,
        snapshots=(snapshot,),
        train=(TRAIN, TRAIN),
        validation=(VALIDATION, VALIDATION),
        holdout=span,
        reads={"rows": (span,)},
        rows={},
        digest="",
    )
    trained = TrainedModel(
        folder=str(out),
        digest=artifacts.seal(out),
        run_id="run",
        training_set=made,
        scorecards=read_scorecards(out),
        seconds=1.0,
    )
    none: Any = None  # no champion to fetch, no sensitive column to audit
    return evaluation.evaluate(spec, store, none, none, None, trained, holdouts.of_training(made))

"""Reads back what the story left behind: the store, the registry, and what each task returned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from include.demo.airflow_api import Airflow, Run, Task
from include.demo.story import USE_CASE, Played
from pipelines.records import (
    Evaluation,
    GateReport,
    Observations,
    Prediction,
    Promotion,
    Quarantined,
    RetrainDecision,
    TrainedModel,
)
from pipelines.runtime import Runtime


def published(runtime: Runtime) -> dict[str, str]:
    """Digest of every published partition of every table, the champion's log included."""
    found = {}
    for table in (*runtime.spec.tables, "predictions", "promotions", "decisions"):
        head = runtime.store.head(table)
        if head is not None:
            parts = runtime.store.partitions(head)
            found |= {f"{table}/{key}": part.digest for key, part in parts.items()}
    return found


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run of the training DAG."""

    run: Run
    trained: TrainedModel | None
    evaluation: Evaluation | None
    gates: GateReport | None
    promotion: Promotion | None


class Record:
    """Everything that promises and summary are made of; each thing is read once."""

    def __init__(self, runtime: Runtime, airflow: Airflow, played: Played) -> None:
        self.runtime = runtime
        self.airflow = airflow
        self.played = played

    @cached_property
    def runs(self) -> list[Run]:
        """Every DAG run of the story, in the order of their starts."""
        kinds = ("ingest", "score", "monitor", "train", "rollback")
        found = [run for kind in kinds for run in self.airflow.runs(f"{USE_CASE}_{kind}")]
        return sorted(found, key=lambda run: run.queued)

    @cached_property
    def tasks(self) -> list[Task]:
        """Every task of every run."""
        return [task for run in self.runs for task in self.airflow.tasks(run)]

    def _result(self, run: Run, task_id: str) -> Any:
        result = self.airflow.result(run, task_id)
        return result["record"] if result else None

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        """What the scoring runs returned, the latest word on each partition."""
        found: dict[str, Prediction] = {}
        for run in self.runs:
            if run.dag_id == f"{USE_CASE}_score":
                for raw in self._result(run, "predictions.publish") or []:
                    prediction = Prediction.model_validate(raw)
                    found[prediction.partition] = prediction
        return found

    @cached_property
    def rows(self) -> dict[str, int]:
        """Published input rows by partition."""
        return self._held("rows")

    @cached_property
    def scores(self) -> dict[str, int]:
        """Published predictions by partition."""
        return self._held("predictions")

    def _held(self, table: str) -> dict[str, int]:
        head = self.runtime.store.head(table)
        held = self.runtime.store.partitions(head) if head else {}
        return {key: part.rows for key, part in held.items()}

    @cached_property
    def distinct_keys(self) -> int:
        """Distinct keys among all published predictions."""
        import polars as pl

        head = self.runtime.store.head("predictions")
        if head is None:
            return 0
        keys = self.runtime.store.scan(head).select(*self.runtime.spec.rows.key)
        return int(keys.unique().select(pl.len()).collect().item())

    @cached_property
    def quarantined(self) -> list[Quarantined]:
        """Everything that was ever set aside."""
        return [entry for table in self.runtime.spec.tables for entry in self.runtime.store.quarantined(table)]

    @cached_property
    def trainings(self) -> list[Training]:
        """Each run of the training DAG with what it returned."""
        found = []
        for run in (run for run in self.runs if run.dag_id == f"{USE_CASE}_train"):
            parts: list[Any] = []
            for task, record in (
                ("challenger.train", TrainedModel),
                ("challenger.evaluate", Evaluation),
                ("promotion.gate", GateReport),
                ("promotion.promote", Promotion),
            ):
                raw = self._result(run, task)
                parts.append(record.model_validate(raw) if raw else None)
            found.append(Training(run=run, trained=parts[0], evaluation=parts[1], gates=parts[2], promotion=parts[3]))
        return found

    @cached_property
    def promotions(self) -> list[Promotion]:
        """The promotion log."""
        return self.runtime.promotions()

    @cached_property
    def decisions(self) -> list[RetrainDecision]:
        """The decision log."""
        return self.runtime.decisions()

    @cached_property
    def observations(self) -> list[Observations]:
        """What each monitor run saw."""
        found = []
        for _, run in self.played.monitors:
            raw = self._result(run, "drift.observe")
            if raw:
                found.append(Observations.model_validate(raw))
        return found

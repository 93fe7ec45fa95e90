"""UseCase: everything that one YAML file says."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from pipelines import partitions
from pipelines.errors import SpecError
from pipelines.partitions import Granularity
from pipelines.spec.alerts import Channel
from pipelines.spec.base import WORKSPACE, Name, SpecModel
from pipelines.spec.data import Features, Label, Table
from pipelines.spec.delivery import Delivery, shared_place
from pipelines.spec.gates import Gates
from pipelines.spec.scoring import Scoring
from pipelines.spec.training import Training
from pipelines.spec.watching import Drift, Retraining

QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class ModelCard(SpecModel):
    """What a model card says that no data can tell."""

    intended_use: str = ""
    """Which decisions the scores are made for, and which not."""
    limits: tuple[str, ...] = ()
    """What is known to be wrong or untried."""
    data_licence: str = ""


class Queues(SpecModel):
    """Queues of the executor for tasks that need other machines than the rest, such as those with a GPU. None: the
    executor's own; executors without queues do not look.
    """

    score: QueueName | None = None
    """Of the tasks `score` and `shard`."""
    train: QueueName | None = None
    """Of the tasks `search` and `train`."""


class UseCase(SpecModel):
    """One use case: its data, its model and its DAGs."""

    name: Name
    title: str
    description: str
    owner: Annotated[str, StringConstraints(min_length=1)]
    tags: tuple[str, ...] = ()
    granularity: Granularity = "day"
    schedule: str
    """Cron (UTC) of the ingest run that takes the partition which has just ended."""
    monitor_schedule: str
    until: str | None = None
    """The last partition that the source delivers, once it has stopped: no run is scheduled for a later one."""
    tables: dict[Name, Table]
    label: Label
    features: Features
    training: Training = Training()
    gates: Gates
    promotion: Literal["automatic", "manual"] = "automatic"
    """manual: between gates and promotion a person is asked in Airflow."""
    approval_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24.0
    """Hours after which nobody's answer is a no."""
    stages: tuple[Literal["staging", "production"], ...] = ("production",)
    """With staging, a version is registered as `<name>_staging` and copied to `<name>` when it is promoted."""
    card: ModelCard = ModelCard()
    scoring: Scoring = Scoring()
    queues: Queues = Queues()
    delivery: tuple[Delivery, ...] = ()
    """Who gets the predictions once they are published."""
    drift: Drift = Drift()
    retraining: Retraining = Retraining()
    alerts: tuple[Channel, ...] = ()
    """Who is told when something is wrong; the book of alerts is written all the same."""
    snapshot: Literal["delta", "lakefs"] = "delta"
    registry: Literal["mlflow"] = "mlflow"

    @property
    def rows(self) -> Table:
        """The table that is scored."""
        return self.tables["rows"]

    @property
    def context(self) -> tuple[str, ...]:
        """Tables, other than rows, that scoring needs."""
        return self.features.context

    @property
    def watched_metric(self) -> str:
        """The metric whose decay asks for a retraining."""
        return self.retraining.metric or self.gates.metric

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the spec says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_validator(mode="after")
    def _refers(self) -> UseCase:
        if self.until is not None:
            try:
                partitions.start(self.until, self.granularity)
            except SpecError as error:
                raise ValueError(f"until: {error}") from None
        needed = {"tables": ("rows", self.label.table), "features.context": self.features.context}
        for field, names in needed.items():
            for name in names:
                if name not in self.tables:
                    raise ValueError(f"{field}: no table {name!r}; there are: {', '.join(self.tables)}")
        if self.name == WORKSPACE:
            raise ValueError("name: the folder of Evidently's workspace among the reports has it; choose another name")
        if reserved := {"predictions", "quarantine", "promotions", "decisions", "deliveries"} & set(self.tables):
            raise ValueError(f"tables: {', '.join(sorted(reserved))} are Overnight's own; choose another name")
        if self.rows.static or self.tables[self.label.table].static:
            raise ValueError("tables: rows and labels need '{partition}' in their path")
        if self.label.column not in self.tables[self.label.table].columns:
            raise ValueError(f"label.column {self.label.column!r} is not a column of {self.label.table}")
        if stray := set(self.rows.key) - set(self.tables[self.label.table].columns):
            raise ValueError(f"label.table must hold the key of rows; missing: {', '.join(sorted(stray))}")
        if stray := set(self.features.columns) & set(self.rows.key):
            raise ValueError(f"features: a key identifies a row, it is no feature: {', '.join(sorted(stray))}")
        if self.features.function is None:
            if stray := set(self.features.columns) - set(self.rows.columns):
                raise ValueError(f"features: not columns of rows: {', '.join(sorted(stray))}")
            if self.label.table == "rows" and self.label.column in self.features.columns:
                raise ValueError(f"features: {self.label.column!r} is the label")
        allowed = {
            "binary": ("auc", "log_loss"),
            "multiclass": ("accuracy", "log_loss"),
            "regression": ("rmse", "mae"),
        }[self.label.task]
        for field, metric in (("gates.metric", self.gates.metric), ("retraining.metric", self.watched_metric)):
            if metric not in allowed:
                raise ValueError(f"{field} {metric!r} is not for {self.label.task}: {', '.join(allowed)}")
        if self.stages not in (("production",), ("staging", "production")):
            raise ValueError("stages: [production] or [staging, production]")
        self._check_gates()
        if stray := set(self.drift.ignore) - set(self.features.columns):
            raise ValueError(f"drift.ignore: not features: {', '.join(sorted(stray))}")
        self._check_training()
        judged = self.training.validation + self.training.holdout
        if self.retraining.last is not None and self.retraining.last <= judged:
            raise ValueError(
                f"retraining.last {self.retraining.last} is no more than training.validation and holdout, {judged}: "
                f"nothing would be left to train on"
            )
        self._check_scoring()
        return self

    def _check_scoring(self) -> None:
        """What scoring and delivery ask for goes with the label."""
        if self.scoring.interval is not None and self.label.task != "regression":
            raise ValueError(
                f"scoring.interval is for regression, the task is {self.label.task}: its score is a probability itself"
            )
        names = [one.name for one in self.delivery]
        if len(set(names)) < len(names):
            raise ValueError("delivery: a name is given twice")
        told = [one.name for one in self.alerts]
        if len(set(told)) < len(told):
            raise ValueError("alerts: a name is given twice")
        if (place := shared_place(self.delivery)) is not None:
            raise ValueError(f"delivery: two go to one place, {place}: each would take the other's for its own")

    def _check_gates(self) -> None:
        """Golden rows and sensitive columns are there."""
        gates = self.gates
        for row in gates.golden:
            if stray := {*row.given, *row.changed} - set(self.features.columns):
                raise ValueError(f"gates.golden {row.name!r}: not features: {', '.join(sorted(stray))}")
            for name, value in {**row.given, **row.changed}.items():
                if value is not None and isinstance(value, str) != (name in self.features.categorical):
                    kind = "categorical" if name in self.features.categorical else "numeric"
                    raise ValueError(f"gates.golden {row.name!r}: {name} is {kind}, given {value!r}")
            classes = self.label.classes
            if (row.of is None) == bool(classes) or (row.of is not None and row.of not in classes):
                raise ValueError(
                    f"gates.golden {row.name!r}: 'of' names a class: {', '.join(classes) or 'no classes here'}"
                )
        if gates.fairness.columns and self.label.task != "binary":
            raise ValueError(f"gates.fairness is for binary, the task is {self.label.task}")
        if stray := set(gates.fairness.columns) - set(self.rows.columns):
            raise ValueError(f"gates.fairness.columns: not columns of rows: {', '.join(sorted(stray))}")

    @property
    def weight_table(self) -> Name | None:
        """The table that holds `training.sample_weight`: rows where it has such a column, else the label's."""
        column = self.training.sample_weight
        return next((name for name in ("rows", self.label.table) if column in self.tables[name].columns), None)

    def _check_training(self) -> None:
        """What training asks for goes with the label and the tables."""
        training, task, column = self.training, self.label.task, self.training.sample_weight
        if training.class_weight != "none" and (task == "regression" or training.model != "tabm"):
            given = f"the task is {task}, the model {training.model}"
            raise ValueError(f"training.class_weight {training.class_weight!r} needs classes and model tabm; {given}")
        if training.probabilities == "isotonic" and task != "binary":
            raise ValueError(f"training.probabilities 'isotonic' is for binary, the task is {task}: auto, temperature")
        if training.threshold != type(training).model_fields["threshold"].default and task != "binary":
            raise ValueError(
                f"training.threshold {training.threshold!r} is for binary, where a row is decided by one score; the "
                f"task is {task}: leave it out"
            )
        reserved = {"label", *({"weight"} if column else ())}
        if stray := reserved & {*self.features.columns, *self.rows.key, self.rows.event_time}:
            raise ValueError(f"tables: {', '.join(sorted(stray))} is a training set's own column; choose another name")
        if column is None:
            return
        if self.weight_table is None:
            raise ValueError(f"training.sample_weight {column!r} is a column of neither rows nor {self.label.table}")
        if (kind := self.tables[self.weight_table].columns[column].type) not in ("int", "float"):
            raise ValueError(f"training.sample_weight {column!r} is {kind}; allowed: int, float")

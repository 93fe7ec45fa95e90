"""UseCase: what one YAML file may say. Frozen, no unknown keys, safe to parse, cheap to import."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pipelines import partitions
from pipelines.errors import SpecError, explain
from pipelines.partitions import Granularity

#: Names become folders, DAG ids and registered models: no separators, no dots, no surprises.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
#: A relative path inside the landing zone; `{partition}` is replaced by the key.
LandingPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9_={}-][A-Za-z0-9_={}.-]*(/[A-Za-z0-9_={}-][A-Za-z0-9_={}.-]*)*$", max_length=200
    ),
]
Task = Literal["binary", "multiclass", "regression"]
ColumnType = Literal["string", "int", "float", "bool", "timestamp", "date"]

#: Metrics by name, and which way is better.
GREATER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "accuracy": True,
    "log_loss": False,
    "brier": False,
    "rmse": False,
    "mae": False,
}

#: Classes of a label. Each is an output of the model and a number in every score.
MAX_CLASSES = 1000

_MAX_SPEC_BYTES = 256 * 1024
_DEFAULT_SUITES = "../expectations"


class SpecModel(BaseModel):
    """The base of everything in a spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Column(SpecModel):
    """One column of a landed file."""

    type: ColumnType
    nullable: bool = True


class Expectation(SpecModel):
    """One Great Expectations expectation, by its snake-case name, with its arguments.

    `mostly` and the other arguments are passed on as they stand.
    """

    expect: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]+$")]
    kwargs: dict[str, Any] = {}


class Table(SpecModel):
    """A table that is ingested: where its files lie, what they hold, and what must be true of them."""

    path: LandingPath
    """Landing-zone path of a partition's file, with `{partition}` in it; without it the table is static."""
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    """A path that ends in .gz is decompressed (csv and jsonl)."""
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    null_values: tuple[str, ...] = ("",)
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    """The columns that identify a row: never null, never twice in a partition."""
    event_time: str | None = None
    """A timestamp column that must lie inside the partition (UTC)."""
    lag: Annotated[int, Field(ge=0, le=400)] = 0
    """How many partitions later than its own key the file arrives: the ingest run of K takes key K - lag."""
    min_rows: Annotated[int, Field(ge=0)] = 1
    max_rows: Annotated[int, Field(ge=1)] = 10_000_000
    max_bytes: Annotated[int, Field(ge=1)] = 4 * 2**30
    """Decompressed bytes past which a file is refused (a compression bomb)."""
    suite: Name | None = None
    """A file of expectations in include/expectations/, shared between use cases."""
    expectations: tuple[Expectation, ...] = ()

    @property
    def static(self) -> bool:
        """Whether the table has one file, not one a partition."""
        return "{partition}" not in self.path

    @model_validator(mode="after")
    def _columns_exist(self) -> Table:
        named = {"key": self.key, "event_time": (self.event_time,) if self.event_time else ()}
        for field, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"{field} names {name!r}, which is not in columns: {', '.join(self.columns)}")
        if self.event_time and self.columns[self.event_time].type != "timestamp":
            raise ValueError(f"event_time {self.event_time!r} must have type timestamp")
        if self.min_rows > self.max_rows:
            raise ValueError(f"min_rows {self.min_rows} is above max_rows {self.max_rows}")
        return self


class Positive(SpecModel):
    """Which label values count as positive; give exactly one."""

    above: float | None = None
    equals: str | int | bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Positive:
        if (self.above is None) == (self.equals is None):
            raise ValueError("give exactly one of 'above' and 'equals'")
        return self


class Label(SpecModel):
    """What is predicted, and from when its outcome may be used."""

    table: Name = "labels"
    column: str
    task: Task
    positive: Positive | None = None
    """Binary only."""
    classes: tuple[str, ...] = ()
    """Multiclass only: every class, in the order of the output columns."""
    maturity: Annotated[int, Field(ge=0, le=400)] = 1
    """Partitions after its own that must have passed before a label is used."""

    @model_validator(mode="after")
    def _fits_task(self) -> Label:
        if (self.task == "binary") != (self.positive is not None):
            raise ValueError("'positive' belongs to task binary, and binary needs it")
        if (self.task == "multiclass") != (len(self.classes) >= 2):
            raise ValueError("'classes' (two or more) belongs to task multiclass, and multiclass needs it")
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(
                f"'classes' are {len(self.classes)}, at most {MAX_CLASSES} are allowed: join the rare ones in one "
                "class, or predict a number instead (task regression)"
            )
        if twice := [name for name, times in Counter(self.classes).items() if times > 1]:
            raise ValueError(f"'classes' must be distinct; given twice: {', '.join(twice)}")
        return self


class Features(SpecModel):
    """What the model sees. Without a function, these columns of `rows` are the features as they stand."""

    function: Name | None = None
    """A module in pipelines/features with a function `build`."""
    context: tuple[Name, ...] = ()
    """Other tables that the function reads."""
    lookback: Annotated[int, Field(ge=0, le=60)] = 0
    """How many earlier partitions of the context tables the function may need."""
    lead_minutes: Annotated[int, Field(ge=0)] = 0
    """A prediction is made this long before the event time; nothing newer may enter a feature."""
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    """Categorical features by which metrics are also reported."""

    @property
    def lead(self) -> timedelta:
        """How long before the event time a prediction is made."""
        return timedelta(minutes=self.lead_minutes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every feature, numeric first: the order of the model's inputs."""
        return self.numeric + self.categorical

    @model_validator(mode="after")
    def _distinct(self) -> Features:
        if not self.columns:
            raise ValueError("name at least one numeric or categorical feature")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a feature is named twice")
        if stray := set(self.slices) - set(self.categorical):
            raise ValueError(f"slices must be categorical features; not so: {', '.join(sorted(stray))}")
        return self


class Teacher(SpecModel):
    """TabM: an ensemble of k MLPs that share most of their weights."""

    k: Annotated[int, Field(ge=1, le=64)] = 8
    width: Annotated[int, Field(ge=8, le=2048)] = 128
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embeddings: Literal["piecewise", "periodic", "none"] = "piecewise"
    """How a numeric value enters: piecewise-linear on quantile bins, learned sines and cosines, or as it stands."""
    bins: Annotated[int, Field(ge=2, le=128)] = 16
    """Bins of the piecewise-linear embeddings."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without a better validation loss before training stops."""
    batch_rows: Annotated[int, Field(ge=8)] | Literal["auto"] = 2048
    """Rows of a mini-batch over all processes; auto on a GPU: the largest power of two that its memory holds."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4


class Student(SpecModel):
    """The small MLP that is served: it learns the teacher's soft output mixed with the labels."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=6)] = (128, 64)
    epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    batch_rows: Annotated[int, Field(ge=8)] = 2048
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    soft_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of the teacher's output in the loss; the rest is the label's."""
    temperature: Annotated[float, Field(ge=1, le=20)] = 1.0
    """The teacher's logits are divided by it before they are taught (Hinton et al., arXiv 1503.02531)."""
    unlabelled: bool = True
    """Whether rows without a label are learned from as well, by the teacher's output alone."""
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each hidden layer's units that is removed after training."""
    prune_epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Epochs of fine-tuning after pruning."""


class FloatRange(SpecModel):
    """A range of a searched number, both ends included."""

    low: float
    high: float
    log: bool = False
    """Whether it is searched by its logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} must not be above high {self.high}, and above 0 where log is true")
        return self


class Search(SpecModel):
    """A search for the teacher's hyperparameters, judged by the validation loss, within a budget."""

    enabled: bool = False
    """Whether every training searches first; the training DAG's form can ask for one search."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Trials in all, over restarts as well."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock minutes after which no further trial is begun."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials at once, each in a process of its own, with its share of the processor threads."""
    space: dict[
        Literal["k", "width", "depth", "dropout", "bins", "embeddings", "learning_rate", "weight_decay"],
        FloatRange | tuple[int | float | str, ...],
    ] = {
        "learning_rate": FloatRange(low=5e-4, high=1e-2, log=True),
        "weight_decay": FloatRange(low=1e-5, high=1e-1, log=True),
        "dropout": FloatRange(low=0.0, high=0.3),
        "width": (64, 128, 256),
        "depth": (1, 2, 3),
    }
    """By field of `teacher`: a range, or the values to choose from."""

    @model_validator(mode="after")
    def _settable(self) -> Search:
        if not self.space:
            raise ValueError("space: name at least one field of teacher")
        for name, values in self.space.items():
            ends = (values.low, values.high) if isinstance(values, FloatRange) else values
            if not ends or (not isinstance(values, FloatRange) and len(set(values)) < len(values)):
                raise ValueError(f"space.{name}: name values, each once")
            for value in ends:
                try:
                    Teacher.model_validate({name: value})
                except ValidationError as error:
                    raise ValueError(f"space.{name}: {value!r}: {error.errors()[0]['msg']}") from None
        return self


class SageMakerJob(SpecModel):
    """What a training job on SageMaker runs on. Roles, buckets, networks and keys are the installation's: settings."""

    instance_type: Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")] = "ml.g5.xlarge"
    instance_count: Annotated[int, Field(ge=1, le=64)] = 1
    image: str | None = None
    """URI of the training image; the setting `sagemaker_image` when absent."""
    volume_gib: Annotated[int, Field(ge=1, le=16_384)] = 50
    max_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)] = 120
    """Minutes of training after which SageMaker stops the job."""
    spot: bool = True
    """Whether interruptible capacity is used; a reclaimed job goes on from its last checkpoint."""
    max_wait_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)] | None = None
    """Spot only: minutes for waiting and training together; twice `max_minutes` when absent."""
    tags: dict[str, str] = {}

    @property
    def wait_minutes(self) -> int:
        """Minutes after which the job is over, whatever happened."""
        return (self.max_wait_minutes or 2 * self.max_minutes) if self.spot else self.max_minutes

    @model_validator(mode="after")
    def _waits(self) -> SageMakerJob:
        if self.max_wait_minutes is not None and self.max_wait_minutes < self.max_minutes:
            raise ValueError(f"max_wait_minutes {self.max_wait_minutes} is below max_minutes {self.max_minutes}")
        return self


class Training(SpecModel):
    """How a model is trained. Partitions are split by time: train, then validation, then holdout."""

    trainer: Literal["local", "sagemaker"] = "local"
    sagemaker: SageMakerJob = SageMakerJob()
    model: Literal["tabm", "lightgbm"] = "tabm"
    """What is served: the student of a TabM teacher, or LightGBM's trees as ONNX."""
    teacher: Teacher = Teacher()
    student: Student = Student()
    compression: Literal["int8", "fp16", "none"] = "int8"
    """Of the student. Trees are served as they are."""
    sensitive_layers: Literal["auto", "int8", "fp32"] = "auto"
    """The student's first and last layer: int8 as the others, fp32, or int8 unless that loses more than
    `gates.max_loss_to_fp32` on the validation rows."""
    calibration_rows: Annotated[int, Field(ge=64)] = 4096
    """Rows on which the int8 ranges are calibrated."""
    probabilities: Literal["auto", "temperature", "isotonic", "none"] = "auto"
    """How scores are made probabilities on the validation rows; auto: whichever is better there."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs the same in the loss; probabilities are calibrated to the real shares afterwards."""
    sample_weight: str | None = None
    """A column of `rows` or of the label's table, not negative, by which a row weighs in the loss."""
    validation: Annotated[int, Field(ge=1)] = 14
    """Partitions for early stopping and probability calibration."""
    holdout: Annotated[int, Field(ge=1)] = 14
    """The newest partitions, never trained on, on which champion and challenger meet."""
    history: Annotated[int, Field(ge=2)] | None = None
    """Train on the newest so many partitions only; all of them when absent."""
    min_rows: Annotated[int, Field(ge=2)] = 100
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Training processes on a machine (DistributedDataParallel); auto: one a GPU, one without a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the forward and backward pass; auto: bf16 on a GPU that has it, else fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""
    memory: Literal["auto", "resident", "stream"] = "auto"
    """Where the training rows lie: on the device, or in files, streamed; auto: on the device when they fit."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes between checkpoints; one is also written when the training is told to stop."""
    search: Search = Search()


class Gates(SpecModel):
    """What a challenger must show on the holdout. Metrics are by task: binary auc, log_loss; multiclass
    accuracy, log_loss; regression rmse, mae."""

    metric: Literal["auc", "log_loss", "accuracy", "rmse", "mae"]
    bound: float
    """At least this (at most, where less is better)."""
    margin_over_champion: float = 0.0
    """How much better than the champion on the same holdout."""
    max_loss_to_lightgbm: Annotated[float, Field(ge=0)] = 0.01
    """How much worse than LightGBM on the same split is still accepted."""
    max_loss_to_fp32: Annotated[float, Field(ge=0)] = 0.005
    """How much the compressed student may lose against its own fp32."""
    max_single_feature: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Strongest association of one feature with the label that is believed (binary: its AUC alone; multiclass: its
    accuracy alone, as a share of what a constant leaves to gain; regression: its R2 alone, of the label's ranks); past
    it the feature leaks."""


class Scoring(SpecModel):
    """How the champion scores, and what its scores must look like before anybody sees them."""

    tile_rows: Annotated[int, Field(ge=64, le=2**20)] = 8192
    max_unseen_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Highest share of unseen values in any categorical feature."""
    min_distinct: Annotated[int, Field(ge=1)] = 2
    """Fewest distinct scores (a constant output is a broken model), for partitions of 100 rows or more."""


class Drift(SpecModel):
    """What is watched. PSI: population stability index against the champion's frozen reference."""

    window: Annotated[int, Field(ge=1, le=400)] = 7
    """Partitions that one monitor run looks back on."""
    bins: Annotated[int, Field(ge=2, le=100)] = 10
    warn: Annotated[float, Field(gt=0)] = 0.1
    alarm: Annotated[float, Field(gt=0)] = 0.25
    ignore: tuple[str, ...] = ()
    """Features whose drift is no news (a calendar's, say)."""
    min_rows: Annotated[int, Field(ge=1)] = 200
    report_rows: Annotated[int, Field(ge=10, le=50_000)] = 5000
    """Rows a side in the Evidently report, chosen by a hash of the key."""


class Retraining(SpecModel):
    """When a monitor run asks for a new model. A refusal is recorded as well."""

    signals: Annotated[tuple[Literal["inputs", "scores", "decay"], ...], Field(min_length=1)] = (
        "inputs",
        "scores",
        "decay",
    )
    """What may ask for a model. The others are observed and shown all the same."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the window's judged partitions that must be in alarm (inputs and scores)."""
    metric: Literal["auc", "log_loss", "accuracy", "rmse", "mae"] | None = None
    """The metric whose decay is watched; the gates' own when not given."""
    decay: Annotated[float, Field(gt=0)] = 0.02
    """Loss of that metric on matured labels, against the champion's holdout, that is an alarm."""
    cooldown: Annotated[int, Field(ge=0)] = 14
    """Partitions after a retraining decision before the next one may be a yes."""
    min_labels: Annotated[int, Field(ge=1)] = 1000
    """Matured labels newer than the champion's training data that a retraining needs."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Highest share of the window's partitions in quarantine or missing; past it the data is not healthy."""


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
    scoring: Scoring = Scoring()
    drift: Drift = Drift()
    retraining: Retraining = Retraining()
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
        if reserved := {"predictions", "quarantine", "promotions", "decisions"} & set(self.tables):
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
        if stray := set(self.drift.ignore) - set(self.features.columns):
            raise ValueError(f"drift.ignore: not features: {', '.join(sorted(stray))}")
        self._check_training()
        return self

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
        reserved = {"label", *({"weight"} if column else ())}
        if stray := reserved & {*self.features.columns, *self.rows.key, self.rows.event_time}:
            raise ValueError(f"tables: {', '.join(sorted(stray))} is a training set's own column; choose another name")
        if column is None:
            return
        if self.weight_table is None:
            raise ValueError(f"training.sample_weight {column!r} is a column of neither rows nor {self.label.table}")
        if (kind := self.tables[self.weight_table].columns[column].type) not in ("int", "float"):
            raise ValueError(f"training.sample_weight {column!r} is {kind}; allowed: int, float")


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses what YAML allows and a spec never needs: aliases (they multiply) and repeated keys.

    On libyaml where PyYAML was built with it: every task reads its spec when it starts, and this is ten times quicker.
    """

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node in self.constructed_objects or node in self.recursive_objects:  # an alias is its anchor's node again
            raise yaml.YAMLError("aliases are not allowed")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        times = Counter(str(key.value) for key, _ in node.value)
        if twice := sorted(key for key, count in times.items() if count > 1):
            raise yaml.YAMLError(f"key given twice: {', '.join(twice)}")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise SpecError(explain(str(path), "the file is too large", allowed=f"{_MAX_SPEC_BYTES} bytes"))
        return yaml.load(path.read_text("utf-8"), Loader=_SafeLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise SpecError(explain(str(path), "there is no such file", remedy="check the use case's name")) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: bad UTF-8, a date that does not exist
        raise SpecError(explain(str(path), f"not a YAML file that a spec may be: {error}")) from None


def _with_suites(raw: Any, folder: Path) -> Any:
    """Puts the expectations of the suites that tables name in front of their own."""
    if not isinstance(raw, dict) or not isinstance(raw.get("tables"), dict):
        return raw
    tables: dict[Any, Any] = {}
    for name, table in raw["tables"].items():
        tables[name] = table
        suite = table.get("suite") if isinstance(table, dict) else None
        if isinstance(suite, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,47}", suite):
            shared = _read_yaml(folder / f"{suite}.yaml")
            tables[name] = {**table, "expectations": [*(shared or []), *(table.get("expectations") or [])]}
    return {**raw, "tables": tables}


def load_spec(path: Path) -> UseCase:
    """Reads and checks one use case.

    Args:
        path: a YAML file; suites are looked up in `../expectations` beside its folder.

    Raises:
        SpecError: with one line for each thing that is wrong, naming the key, the value and what is allowed.
    """
    raw = _with_suites(_read_yaml(path), path.parent / _DEFAULT_SUITES)
    if not isinstance(raw, dict):
        raise SpecError(explain(str(path), "a spec is a mapping of keys", remedy="start from include/use_cases"))
    try:
        spec = UseCase.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            where = ".".join(str(part) for part in problem["loc"]) or "spec"
            given = problem.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            lines.append(f"{where}: {problem['msg']}{shown}")
        raise SpecError(explain(str(path), "; ".join(lines), remedy="`overnight check` reads it again")) from None
    if spec.name != path.stem:
        raise SpecError(explain(str(path), f"name is {spec.name!r}", allowed=f"the file's own: {path.stem!r}"))
    return spec

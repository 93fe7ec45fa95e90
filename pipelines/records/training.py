"""Training sets, searches, jobs and what came of them."""

from __future__ import annotations

from typing import Literal

from pipelines.records.base import Record
from pipelines.records.snapshots import SnapshotRef


class ModelRef(Record):
    """One registered model version."""

    name: str
    version: int
    run_id: str
    """The MLflow run that made it."""
    digest: str
    """SHA-256 over the digests of every artifact file."""

    @property
    def id(self) -> str:
        """Such as `flights@3`."""
        return f"{self.name}@{self.version}"


#: Values of searched settings, by field of `Teacher`.
Parameters = dict[str, int | float | str]


class Trial(Record):
    """One try of a search: a teacher trained with these settings, judged on the validation rows."""

    index: int
    """From 0, which is the spec's own settings."""
    state: Literal["running", "complete", "pruned", "failed"]
    """Pruned: it was ended because it was worse than most others at the same epoch."""
    parameters: Parameters
    curve: tuple[float, ...] = ()
    """What early stopping watches, after each epoch; less is better."""
    value: float | None = None
    """The best of the curve."""
    epoch: int | None = None
    """The epoch of the best, from 1."""
    error: str | None = None
    """Why it failed."""
    seconds: float = 0.0


class SearchResult(Record):
    """What a search chose, and what it took."""

    study: str
    """Name of the Optuna study; the same training set, space, seed, settings and code give the same name."""
    run_id: str | None = None
    """The MLflow run below which the trials are."""
    parameters: Parameters
    """The best trial's."""
    trial: int
    """The best trial."""
    value: float
    """Its validation loss."""
    own_value: float | None
    """The validation loss of the spec's own settings; None where that trial failed."""
    complete: int
    pruned: int
    failed: int
    """Trials by how they ended, those of earlier calls included."""
    seconds: float
    """Wall-clock seconds of searching, over restarts."""
    trials: int
    """The budget in trials."""
    minutes: float | None
    """The budget in minutes."""


class TrainingSet(Record):
    """A training set on disk, pinned to snapshots."""

    use_case: str
    folder: str
    as_of: str
    """The newest partition that was known."""
    snapshots: tuple[SnapshotRef, ...]
    train: tuple[str, str]
    """First and last partition, both included."""
    validation: tuple[str, str]
    holdout: tuple[str, str]
    reads: dict[str, tuple[tuple[str, str], ...]] = {}
    """What was read of each table: stretches of its snapshot's partitions, first and last, both included."""
    unlabelled: tuple[str, str] | None = None
    """First and last partition newer than the holdout whose features are read without a label. Rows of the train
    stretch that have no label are read as well."""
    rows: dict[str, int]
    """Rows of train, validation, holdout and unlabelled."""
    digest: str
    """SHA-256 over the Parquet files."""
    searched: SearchResult | None = None
    """What a search on this training set chose for the teacher; None: the spec's own settings."""

    @property
    def learned(self) -> str:
        """The newest partition whose labels a training uses: those of validation stop it and calibrate it."""
        return max(self.train[1], self.validation[1])


class Latency(Record):
    """How long a batch takes, from raw columns in memory to scores."""

    rows: int
    """Of a batch."""
    p50_ms: float
    p99_ms: float
    repeats: int
    """Batches that were timed. Of fewer than a hundred, p99 is the slowest."""


class Slice(Record):
    """The gate's metric on the rows of one value of a feature."""

    feature: str
    value: str | None
    """Cut off where it is long; None where it is null."""
    rows: int
    metric: float | None
    """None where there are too few rows to tell, or the metric is not defined on them (one class)."""


class Coverage(Record):
    """What became of one level of a regression's intervals on rows that they were not fitted on."""

    level: float
    """The probability that was asked for."""
    rows: int
    coverage: float
    """Share of rows whose label is within their interval."""
    mean_width: float
    """In the label's unit."""


class Scorecard(Record):
    """One model on one set of rows."""

    model: str
    rows: int
    metrics: dict[str, float]
    rows_per_second: float | None = None
    bytes: int | None = None
    calibration_error: float | None = None
    """Expected calibration error of 15 bins of equal rows (binary; multiclass: of the class it chose)."""
    slices: tuple[Slice, ...] = ()
    latencies: tuple[Latency, ...] = ()
    intervals: tuple[Coverage, ...] = ()
    """Of the served model of a regression, by level."""

    @property
    def flat(self) -> dict[str, float]:
        """The figures of all rows by name, for a metric store."""
        found = {**self.metrics, "calibration_error": self.calibration_error, "rows_per_second": self.rows_per_second}
        for latency in self.latencies:
            found[f"p50_ms_batch_{latency.rows}"] = latency.p50_ms
            found[f"p99_ms_batch_{latency.rows}"] = latency.p99_ms
        for one in self.intervals:
            found[f"interval_{one.level * 100:.0f}_coverage"] = one.coverage
            found[f"interval_{one.level * 100:.0f}_mean_width"] = one.mean_width
        return {f"{self.model}_{name}": value for name, value in found.items() if value is not None}


class TrainedModel(Record):
    """The artifact folder of one training, with its scorecards on the holdout."""

    folder: str
    digest: str
    run_id: str
    """The MLflow run that holds the curves and the artifacts."""
    training_set: TrainingSet
    scorecards: tuple[Scorecard, ...]
    seconds: float


class JobRef(Record):
    """One attempt at training on somebody else's machines."""

    name: str
    """The service's name of it, derived from the training key and the attempt."""
    key: str
    """The training key: the same data, spec and code give the same one."""
    attempt: int
    """1, 2, 3, ...: a new one only after the former is known to be over."""
    url: str | None = None
    """Where a person sees the job."""


class JobStatus(Record):
    """How a job is doing."""

    state: Literal["running", "stopping", "completed", "failed", "stopped"]
    secondary: str
    """The service's own word, such as Downloading, Training, Interrupted or MaxWaitTimeExceeded."""
    reason: str = ""
    """Why it failed, in the service's words."""

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("completed", "failed", "stopped")


class LogTail(Record):
    """Lines of a job's log that were not read before."""

    lines: tuple[str, ...] = ()
    position: dict[str, str] = {}
    """Where to go on, by stream: give it back for the next lines."""


class OpenTraining(Record):
    """A training whose MLflow run is open."""

    training_set: TrainingSet
    key: str
    """SHA-256 over training set, spec and code."""
    run_id: str
    """The MLflow run."""
    folder: str
    """Where the artifact belongs on this machine."""


class RemoteTraining(Record):
    """An open training and the job that does it."""

    opened: OpenTraining
    job: JobRef | None
    """None when the sealed artifact is here already."""
    ending: bool = False
    """The job is being stopped: when it is over, submit again, which makes the next attempt."""


class Registered(Record):
    """A model version as the registry lists it."""

    model: ModelRef
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    """What registration wrote on it."""


class TrainingRun(Record):
    """A training as the registry keeps it, registered or refused."""

    run_id: str
    """The MLflow run."""
    tags: dict[str, str]
    metrics: dict[str, float]
    model: ModelRef | None
    """The version that was made of it."""
    model_tags: dict[str, str] = {}
    """What registration wrote on that version."""

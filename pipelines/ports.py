"""The ports: what steps ask of the outside world. Each has its adapters in `pipelines/backends`, one a file.

Steps see these Protocols and nothing else; `pipelines/runtime.py` puts the adapters in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.records import (
    Check,
    ColumnDrift,
    Commit,
    ModelRef,
    Publication,
    PublishedPartition,
    Quarantined,
    Reference,
    RunInfo,
    SnapshotRef,
    SourceFile,
    StagedPartition,
    ValidationReport,
)
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import polars as pl

#: The partition key of a table that has one file, not one a partition.
STATIC = "static"

#: Called with the name of a curve's step and its values, such as {"epoch": 1, "loss": 0.4}.
OnProgress = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class LandedFrame:
    """A landed partition, read: columns, types and order are the spec's."""

    frame: pl.DataFrame
    sources: tuple[SourceFile, ...]
    problems: tuple[Check, ...]
    """Values that could not be read as the spec's type (null in `frame`), one check a column."""


class DataSource(Protocol):
    """Where source systems drop a use case's files."""

    def partitions(self, spec: UseCase, table: str) -> list[str]:
        """The keys whose files are there, sorted; `[STATIC]` for a static table."""
        ...

    def files(self, spec: UseCase, table: str, partition: str) -> tuple[SourceFile, ...]:
        """The partition's files with their digests, unread; empty when there are none."""
        ...

    def local_path(self, file: SourceFile) -> Path:
        """Where a file that `files` or `read` named lies on this machine."""
        ...

    def read(self, spec: UseCase, table: str, partition: str) -> LandedFrame:
        """Reads one partition, strictly.

        Raises:
            MissingInput: there is no file.
            InputError: the file as a whole cannot be read as the spec says: truncated, another encoding, columns
                missing or extra, over the byte or row cap.
        """
        ...


class SnapshotStore(Protocol):
    """Versioned tables of one use case. A partition becomes visible only by `publish`.

    A process may die at any point of any call: readers then see the state before the call or after it, never
    between, and the same call again ends in the state after it.
    """

    def stage(
        self,
        table: str,
        partition: str,
        frame: pl.DataFrame,
        *,
        sources: Sequence[SourceFile] = (),
        problems: Sequence[Check] = (),
    ) -> StagedPartition:
        """Writes a partition where no reader looks. The same frame gives the same digest."""
        ...

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:
        """The rows of a staged partition, for its audit."""
        ...

    def discard(self, staged: StagedPartition) -> None:
        """Deletes a staged partition; nothing happens when it is gone already."""
        ...

    def publish(
        self,
        table: str,
        staged: Sequence[StagedPartition],
        reports: Sequence[ValidationReport],
        run: RunInfo,
        *,
        provenance: Mapping[str, object] | None = None,
        absent: bool = False,
    ) -> Publication:
        """Makes the staged partitions visible in one atomic commit; replaces partitions of the same key.

        Partitions whose published digest is the staged one already are left alone (`unchanged`); when that is all
        of them there is no commit.

        Args:
            reports: the passing audit of each staged partition, in the same order.
            provenance: kept in the commit (JSON values).
            absent: fail with ConflictError when any of the partitions is published already (compare-and-set).

        Raises:
            AuditError: a report is missing, failed, or is not of exactly these bytes.
            IntegrityError: a staged file is not what was staged.
            ConflictError: another writer published one of these partitions first.
        """
        ...

    def quarantine(
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        """Sets a bad partition aside with its report and its original files; never readable as data."""
        ...

    def quarantined(self, table: str) -> list[Quarantined]:
        """Everything in quarantine, oldest partition first; a partition may have been healed since."""
        ...

    def head(self, table: str) -> SnapshotRef | None:
        """The newest snapshot, or None when nothing was ever published."""
        ...

    def partitions(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:
        """What the snapshot holds, in key order.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        ...

    def scan(
        self, snapshot: SnapshotRef, partitions: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """The rows of a snapshot, in key order and then as staged, with a `partition` column in front.

        Raises:
            NotFoundError: no such snapshot, or one of the partitions is not in it.
        """
        ...

    def history(self, table: str) -> list[Commit]:
        """Every commit, newest first."""
        ...


class Validator(Protocol):
    """Judges staged partitions by their table's expectations."""

    def validate(self, spec: UseCase, staged: Sequence[StagedPartition]) -> list[ValidationReport]:
        """One report a partition, in the same order, of exactly the staged bytes.

        Bad data gives a report with `passed=False`, never an exception; an expectation that errs is a failed check.

        Raises:
            SpecError: an expectation does not exist or its arguments do not fit.
            IntegrityError: a staged file is gone, or is not what was staged.
        """
        ...

    def report_unreadable(
        self, spec: UseCase, table: str, partition: str, sources: Sequence[SourceFile], check: Check
    ) -> ValidationReport:
        """The failed report of files that could not be read at all, so that no expectation could be tried.

        Its digest is the SHA-256 over the sources' digests, since there are no staged bytes.
        """
        ...


class Trainer(Protocol):
    """Turns a training set into an artifact folder."""

    def train(self, spec: UseCase, data: Path, out: Path, on_progress: OnProgress) -> None:
        """Trains, distils, compresses, and measures on the holdout. `out` then holds the artifact.

        Args:
            data: a folder with train.parquet, validation.parquet and holdout.parquet: the features, `label`,
                `partition` and the key columns.

        Raises:
            TrainingError: this data cannot give a usable model.
        """
        ...


class ModelRegistry(Protocol):
    """Model versions of one use case, and the MLflow runs that made them."""

    def start_training(self, spec: UseCase, tags: Mapping[str, str]) -> str:
        """Opens a run and returns its id. The same tag `overnight.training_key` gives the same run."""
        ...

    def log_progress(self, run_id: str, values: Mapping[str, float]) -> None:
        """Appends to the run's curves; `epoch` among the values is the x axis when present."""
        ...

    def log_artifact(self, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """Stores a sealed artifact folder, and final metrics, in the run."""
        ...

    def annotate(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Writes tags on a run: a gate's verdict, say."""
        ...

    def register(self, spec: UseCase, run_id: str, folder: Path, tags: Mapping[str, str]) -> ModelRef:
        """Makes a model version of the run's artifact; the same run gives the same version."""
        ...

    def get(self, version: int) -> ModelRef:
        """One version.

        Raises:
            NotFoundError: there is no such version.
        """
        ...

    def versions(self) -> list[ModelRef]:
        """All versions, oldest first."""
        ...

    def fetch(self, model: ModelRef) -> Path:
        """A local copy of the artifact folder, verified against every digest before anything is parsed.

        Raises:
            IntegrityError: a file was changed, added, removed or is a link.
        """
        ...

    def alias(self, name: str) -> int | None:
        """The version behind an alias, or None."""
        ...

    def set_alias(self, name: str, version: int | None) -> None:
        """Moves an alias, or removes it."""
        ...

    def url(self, run_id: str) -> str | None:
        """Where a person sees the run, when there is a server."""
        ...


class DriftDetector(Protocol):
    """Compares rows with what the champion saw."""

    def reference(self, spec: UseCase, features: pl.DataFrame, scores: pl.Series) -> Reference:
        """Freezes edges and counts of the training features and of the scores on rows it was not trained on."""
        ...

    def measure(
        self, spec: UseCase, reference: Reference, features: pl.LazyFrame
    ) -> dict[str, tuple[ColumnDrift, ...]]:
        """Drift of every feature, exact over every row, by `partition`.

        Args:
            features: `partition` and the features.
        """
        ...

    def measure_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, float]:
        """PSI of the scores by partition.

        Args:
            scores: `partition` and `score`.
        """
        ...


class DriftReporter(Protocol):
    """Writes the drift report that people read."""

    def write(self, spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame, html: Path) -> None:
        """Compares two samples of the same feature columns and writes one HTML file."""
        ...

"""The ports: what steps ask of the outside world. Each has its adapters in `pipelines/backends`, one a file.

Steps see these Protocols and nothing else; `pipelines/runtime.py` puts the adapters in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.records import (
    Check,
    ColumnCounts,
    ColumnDrift,
    Commit,
    Counts,
    Delivered,
    Evaluation,
    Fairness,
    Finding,
    GateReport,
    JobRef,
    JobStatus,
    LogTail,
    ModelRef,
    Piece,
    Pin,
    Prediction,
    Publication,
    PublishedPartition,
    Quarantined,
    Reference,
    Registered,
    RunInfo,
    ScorePlan,
    SearchResult,
    SnapshotRef,
    SourceFile,
    StagedPartition,
    Tombstone,
    TrainedModel,
    TrainingRun,
    Trial,
    ValidationReport,
)
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: The partition key of a table that has one file, not one a partition.
STATIC = "static"

#: Called with the name of a curve's step and its values, such as {"epoch": 1, "loss": 0.4}.
OnProgress = Callable[[Mapping[str, float]], None]

#: Called with a trial when it begins and when it has ended.
OnTrial = Callable[[Trial], None]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A partition that is to be staged: a frame, or what writes a file without ever having all rows in memory."""

    partition: str
    frame: pl.DataFrame | None = None
    write: Callable[[Path], int] | None = None
    """In the place of `frame`: writes the partition's Parquet file, and gives its rows. A store calls it once, before
    it asks for the next draft."""
    sources: tuple[SourceFile, ...] = ()
    problems: tuple[Check, ...] = ()


class SnapshotStore(Protocol):
    """Versioned tables of one use case. A partition becomes visible only by `publish`.

    A process may die at any point of any call: readers then see the state before the call or after it, never
    between, and the same call again ends in the state after it. A server that does not answer, or answers with an
    error after it did the work, is such a point too: what happened is looked up before anything is tried again.
    """

    # -- writing: stage, audit, publish ------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:
        """Writes partitions where no reader looks, one at a time. The same frame gives the same digest.

        What one call stages is published together or in parts, but not together with another call's. Each call starts
        from the present main, so a run that lost a race is helped by staging again.

        Raises:
            NotFoundError: a table's or a partition's name is not a name.
        """
        ...

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:
        """The rows of a staged partition, for its audit.

        Raises:
            NotFoundError: it was discarded or swept.
            IntegrityError: the staged bytes are not what was staged.
        """
        ...

    def local(self, staged: StagedPartition) -> Path:
        """The staged Parquet file on this machine, for a validator that reads files. Not to be written to.

        Raises:
            NotFoundError: it was discarded or swept.
            IntegrityError: the staged bytes are not what was staged.
        """
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
        kind: Literal["publish", "erase"] = "publish",
        suite: str | None = None,
        wider: bool = False,
    ) -> Publication:
        """Makes the staged partitions visible in one atomic commit; replaces partitions of the same key.

        Partitions whose published digest is the staged one already are left alone (`unchanged`); when that is all
        of them there is no commit. This is a compare-and-set: a partition that is no longer what it was when it was
        staged is not replaced.

        Args:
            reports: the passing audit of each staged partition, in the same order.
            provenance: kept in the commit (JSON values).
            absent: fail when any of the partitions is published already, whenever that was.
            suite: digest of the suite that must have judged, where that can be said beforehand.
            wider: whether the partitions may have columns that the table has not. It has them from this commit on, and
                they are null in its other partitions; a snapshot from before has the columns that it had.

        Raises:
            AuditError: a report is missing, failed, or is not of exactly these bytes and this suite.
            IntegrityError: staged bytes are not what was staged.
            NotFoundError: a staged partition was discarded or swept.
            SchemaMismatch: the columns are not the published table's.
            ConflictError: another run published one of these partitions since it was staged.
            StrayWriteError: somebody wrote to main without a publish (lakeFS).
            UnavailableError: the server did not answer; the same call again finds out what happened.
        """
        ...

    def revert(self, to: SnapshotRef, run: RunInfo, *, reason: str) -> Publication:
        """Makes the table hold what `to` held, in one new commit; history stays. A repeat makes no commit.

        Raises:
            NotFoundError: there is no such snapshot. RemovedError: bytes that it needs were erased or collected.
            ConflictError: another run published at the same time.
        """
        ...

    # -- reading -----------------------------------------------------------------------------------------------------

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

        Lazy: columns and predicates reach the files, and only the named partitions' files are opened.

        Raises:
            NotFoundError: no such snapshot, or one of the partitions is not in it.
            RemovedError: bytes that it needs were erased or collected.
        """
        ...

    def history(self, table: str) -> list[Commit]:
        """Every commit, newest first."""
        ...

    def notes(self, snapshot: SnapshotRef, partitions: Sequence[str], name: str) -> dict[str, str]:
        """What the writers of partition files noted in them under a name; no entry where nothing was noted.

        Raises:
            NotFoundError: no such snapshot, or one of the partitions is not in it.
            RemovedError: bytes that it needs were erased or collected.
        """
        ...

    # -- keeping and removing ----------------------------------------------------------------------------------------

    def pin(self, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:
        """Keeps a snapshot from being collected. The same pin again is no error.

        Raises:
            ConflictError: the name pins another snapshot.
            NotFoundError: there is no such snapshot, or the name is not a name.
        """
        ...

    def unpin(self, name: str) -> None:
        """Removes a pin; nothing happens when there is none."""
        ...

    def pins(self) -> list[Pin]:
        """Every pin of the use case, by name."""
        ...

    def held(self, table: str) -> list[PublishedPartition]:
        """Every distinct partition file that any snapshot of the table names and that is still stored."""
        ...

    def read_held(self, table: str, part: PublishedPartition) -> pl.LazyFrame:
        """The rows of one of `held`, without a `partition` column.

        Raises:
            NotFoundError: the table's history names no such bytes. RemovedError: they were removed.
        """
        ...

    def purge(self, tombstone: Tombstone) -> None:
        """Removes the tombstone's parts from the disk or the object store, whichever snapshots name them.

        The tombstone is stored first: after a crash, readers are told, and the same call again removes the rest.
        """
        ...

    def tombstones(self) -> list[Tombstone]:
        """Every tombstone of the use case, oldest first."""
        ...

    def sweep(self, before: datetime, *, dry_run: bool = True) -> list[str]:
        """Removes what dead runs left: staged partitions, branches and unnamed files older than `before`.

        Returns:
            What was removed, or would be.
        """
        ...

    # -- quarantine --------------------------------------------------------------------------------------------------

    def quarantine(
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        """Sets a bad partition aside with its report and its original files; never readable as data."""
        ...

    def quarantined(self, table: str) -> list[Quarantined]:
        """Everything in quarantine, oldest partition first; a partition may have been healed since."""
        ...

    def originals(self, entry: Quarantined) -> dict[str, bytes]:
        """The original files of a quarantined partition, by name."""
        ...

    def expunge(self, entry: Quarantined, report: ValidationReport) -> None:
        """Removes a quarantined partition's original files for good, and puts `report` in the place of its report."""
        ...

    # -- health ------------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        """What is wrong with the store, nothing when all is well."""
        ...

    def repair(self, finding: Finding) -> None:
        """Mends a repairable finding.

        Raises:
            NotFoundError: the finding is of another kind, or is no longer true.
        """
        ...


class Validator(Protocol):
    """Judges staged partitions by their table's expectations."""

    def validate(
        self, spec: UseCase, staged: Sequence[StagedPartition], files: Sequence[Path]
    ) -> list[ValidationReport]:
        """One report a partition, in the same order, of exactly the staged bytes.

        Args:
            files: the staged file of each partition on this machine, as `SnapshotStore.local` gave it.

        Bad data gives a report with `passed=False`, never an exception; an expectation that errs is a failed check.

        Raises:
            SpecError: an expectation does not exist or its arguments do not fit.
            IntegrityError: a staged file is gone, or is not what was staged.
        """
        ...

    def suite(self, spec: UseCase, table: str, partition: str) -> str:
        """Digest of the suite that judges a partition now; every report carries that of the one that judged it."""
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

    def train(self, spec: UseCase, data: Path, out: Path, checkpoints: Path, on_progress: OnProgress) -> None:
        """Trains, distils, compresses, and measures on the holdout. `out` then holds the artifact.

        A call that was interrupted goes on where it was when it is repeated with the same arguments.

        Args:
            data: a folder with train.parquet, validation.parquet and holdout.parquet: the features, `label`,
                `partition` and the key columns; and, perhaps, unlabelled.parquet: the same without `label`.
            checkpoints: a folder of this training alone, made when absent, that outlives an interruption.

        Raises:
            TrainingError: this data cannot give a usable model.
            InterruptedTraining: it was told to stop, and has written a checkpoint.
        """
        ...


class RemoteTrainer(Protocol):
    """Trains on machines that are rented for it. Every call can be repeated.

    Every method raises UnavailableError when the service does not answer as it should, and ServiceRefused when it says
    no for good.
    """

    def submit(self, spec: UseCase, data: Path, key: str) -> JobRef:
        """Brings code and data there and starts a job, or finds the one that this key has already.

        A job that runs or has completed is found again. After one that failed or was stopped the next attempt is
        made, which goes on from the checkpoints of the former.

        Args:
            data: as for `Trainer.train`.
            key: what decides the outcome: the same key never has two jobs at once.

        Raises:
            SpecError: a setting that this needs is missing.
            TrainingError: a former attempt found that this data cannot give a usable model.
        """
        ...

    def status(self, job: JobRef) -> JobStatus:
        """How the job is doing.

        Raises:
            NotFoundError: there is no such job.
        """
        ...

    def check(self, job: JobRef, status: JobStatus) -> None:
        """Does nothing for a job that completed.

        Raises:
            TrainingError: its data cannot give a usable model, or its code failed.
            ServiceRefused: a person must change something, or stopped it.
            UnavailableError: it may succeed when it is submitted again.
            InterruptedTraining: its machines were taken away for too long; submitted again it goes on.
        """
        ...

    def tail(self, job: JobRef, position: Mapping[str, str]) -> LogTail:
        """The lines that the job wrote after `position` (empty: from the beginning), in order within a stream."""
        ...

    def collect(self, job: JobRef, out: Path) -> None:
        """Brings the artifact of a completed job. `out` appears complete or not at all.

        Raises:
            IntegrityError: the archive holds links, paths that lead out of it, or more than an artifact may.
        """
        ...

    def stop(self, job: JobRef) -> None:
        """Asks the job to stop; it may write a checkpoint first. A job that is over stays as it is."""
        ...


class Searcher(Protocol):
    """Looks for better settings of the teacher."""

    def search(self, spec: UseCase, data: Path, study: str, on_trial: OnTrial) -> SearchResult:
        """Tries settings from `training.search.space` until its budget is spent; the first trial is the spec's own.

        A call that was interrupted, by SIGKILL even, goes on when it is repeated: trials that ended are kept and count,
        what was running is tried again. With one trial at a time the same arguments give the same result, interrupted
        or not.

        Args:
            data: the folder of a training set, as for `Trainer.train`.
            study: names what is searched; everything that a trial's outcome depends on must be in the name.
            on_trial: called when a trial begins and when it has ended; first of all for every trial that had ended
                before this call.

        Raises:
            TrainingError: no trial could be completed, or this data cannot give a usable model.
            UnavailableError: the study's database did not answer, or no trial could be begun.
        """
        ...


class ModelRegistry(Protocol):
    """Model versions of one use case, and the MLflow runs that made them."""

    def start_training(self, spec: UseCase, tags: Mapping[str, str]) -> str:
        """Opens a run and returns its id. The same tag `overnight.training_key` gives the same run."""
        ...

    def log_progress(self, run_id: str, values: Mapping[str, float]) -> None:
        """Appends to the run's curves; the x axis is `step` among the values, or `epoch` where there is none."""
        ...

    def log_artifact(self, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """Stores a sealed artifact folder, and final metrics, in the run."""
        ...

    def annotate(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Writes tags on a run: a gate's verdict, say."""
        ...

    def start_search(self, spec: UseCase, study: str, tags: Mapping[str, str]) -> str:
        """Opens the run of a search and returns its id. The same study gives the same run. It is no training."""
        ...

    def log_trial(self, run_id: str, trial: Trial) -> None:
        """Keeps a trial as a run nested in its search's. The same trial again is the same run; once ended, it stays."""
        ...

    def end_search(self, run_id: str, result: SearchResult | None) -> None:
        """Ends the run of a search; without a result it failed."""
        ...

    def register(self, spec: UseCase, run_id: str, folder: Path, tags: Mapping[str, str]) -> ModelRef:
        """Makes a signed model version of the run's artifact; the same run gives the same version.

        With `stages: [staging, production]` it is a version of `<use case>_staging`.

        Args:
            tags: with what the run says itself, everything that a version must have.

        Raises:
            IntegrityError: the folder is not what the run holds, or something that a version must have is missing.
            ServiceRefused: it cannot be signed.
        """
        ...

    def release(self, model: ModelRef) -> ModelRef:
        """Copies a staged version to production, whole and verified; a repeat gives the same production version.

        A version of production is given back as it is.

        Raises:
            IntegrityError: the staged bytes or the copy's tags are not what was registered.
        """
        ...

    def vouch(self, model: ModelRef, reason: str) -> None:
        """Signs a version anew, as its person asks: one of before models were signed, or after a change of keys.

        Raises:
            IntegrityError: its bytes are not what was registered.
        """
        ...

    def sweep(self, *, dry_run: bool) -> tuple[str, ...]:
        """Removes what registrations that died left; what somebody may still be writing stays.

        Returns:
            What was removed, or would be.
        """
        ...

    def log_review(self, run_id: str, folder: Path) -> None:
        """Stores what a reviewer reads in the run, under `review/`; a repeat replaces it."""
        ...

    def describe(self, model: ModelRef, markdown: str) -> None:
        """Sets the description of a version."""
        ...

    def get(self, version: int, *, staged: bool = False) -> ModelRef:
        """One version.

        Args:
            staged: of `<use case>_staging`; here and below.

        Raises:
            NotFoundError: there is no such version, or Overnight did not make it.
        """
        ...

    def resolve(self, version: int, run_id: str) -> ModelRef:
        """`get` for a version that this run is known to have made: a local copy answers while the registry is away.

        Args:
            run_id: empty where it is not known.

        Raises:
            NotFoundError: see `get`.
            IntegrityError: another run made the version.
        """
        ...

    def versions(self, *, staged: bool = False) -> list[ModelRef]:
        """All versions, oldest first."""
        ...

    def registered(self, *, staged: bool = False) -> list[Registered]:
        """All versions with their aliases and tags, oldest first."""
        ...

    def trainings(self) -> list[TrainingRun]:
        """Every training of the use case with what was written on it, oldest first; refused ones too."""
        ...

    def fetch(self, model: ModelRef) -> Path:
        """A local copy of the artifact folder: signature and every digest verified before anything is parsed.

        Whoever parses a file reads it with `artifacts.read`, which compares it once more.

        Raises:
            IntegrityError: a file was changed, added, removed or is a link, or no trusted key signed it.
        """
        ...

    def alias(self, name: str, *, staged: bool = False) -> int | None:
        """The version behind an alias, or None."""
        ...

    def set_alias(self, name: str, version: int | None, *, staged: bool = False) -> None:
        """Moves an alias, or removes it."""
        ...

    def epoch(self) -> int:
        """The newest epoch of the promotion log that the aliases have followed; 0 before the first."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Notes, on the registered model, the epoch that the aliases have followed."""
        ...

    def url(self, run_id: str) -> str | None:
        """Where a person sees the run, when there is a server."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """What a valid signature says."""

    name: str
    """Of the folder when it was signed: which model it is."""
    files: Mapping[str, str]
    """SHA-256 (hex) by path in the folder."""


class Signer(Protocol):
    """Signs artifact folders, so that a reader knows who made them, not only that they are whole."""

    def sign(self, folder: Path, signature: Path) -> None:
        """Writes a detached signature over every file of a folder and over the folder's name.

        Raises:
            ServiceRefused: the key is not there or cannot be used.
        """
        ...

    def verify(self, folder: Path, signature: Path) -> Signed:
        """Checks that a trusted key signed exactly this folder. Nothing in it is parsed.

        Raises:
            IntegrityError: a file differs, is missing or was added, or no trusted key made the signature.
            ServiceRefused: there is no key here to verify with.
        """
        ...


class FairnessAuditor(Protocol):
    """Compares what is decided between the groups of a sensitive column."""

    def audit(
        self,
        column: str,
        values: Sequence[str | None],
        codes: NDArray[np.integer],
        labels: NDArray[np.bool_],
        decisions: NDArray[np.bool_],
        min_rows: int,
    ) -> Fairness:
        """Selection rates and odds by group, sorted by value, null last.

        Args:
            values: each group's value of the column; null is a group of its own.
            codes: [n], each row's group, as its place in `values`.
            labels: [n], each row's outcome.
            decisions: [n], each row's decision.
            min_rows: rows of a group below which it is listed, not judged.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderReview:
    """A challenger, what was measured of it, and what it met."""

    trained: TrainedModel
    """Its artifact has been verified."""
    evaluation: Evaluation
    report: GateReport
    champion: Path | None
    """The verified artifact of the champion that the evaluation is against."""
    tags: Mapping[str, str]
    """What the training wrote on its run: code version, DAG run and so on."""
    url: str | None
    """Where a person sees the run."""


class ModelReviewer(Protocol):
    """Writes what a reviewer reads about a model."""

    def write(self, spec: UseCase, case: UnderReview, out: Path) -> None:
        """Writes `model_card.md`, `model_card.html`, `comparison.html` and `plots/` into a folder, made when absent.

        Raises:
            IntegrityError: the holdout is not the one that was measured, or an artifact is no model.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """What the shards of a plan have in common, wherever they are scored."""

    spec: UseCase
    plan: ScorePlan
    settings: Mapping[str, str]
    """Where the snapshots are, for processes elsewhere; no secrets, which they have in their own environment."""


class ShardPool(Protocol):
    """Scores the shards of a plan in other processes, on other machines."""

    def run(self, job: ShardJob, artifact: Path, out: Path) -> list[Piece]:
        """The pieces of all shards, in order; whatever happened to workers and machines, they are those of one machine.

        A call that was interrupted scores what is missing when it is repeated with the same arguments.

        Args:
            artifact: the verified folder of the plan's model; it is brought to each machine once.
            out: the plan's own folder for the pieces' files, made when absent.

        Raises:
            OvernightError: what scoring a shard raised, as it was raised there.
            UnavailableError: the cluster does not answer, or a shard was lost too often.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Consignment:
    """One partition of published predictions on its way to whoever uses them."""

    use_case: str
    delivery: str
    prediction: Prediction
    """Its snapshot is the first that held these bytes: the same key always says the same."""
    key: str
    """Idempotency key: the same key is the same rows."""
    rows: Callable[[], Iterator[pl.DataFrame]]
    """The rows in order, without a `partition` column, a bounded frame at a time; may be called again."""
    schema: pl.Schema
    run: RunInfo
    before: str | None = None
    """Key of what our own log says was handed over last of this partition; a sink that cannot ask relies on it."""


class Sink(Protocol):
    """Somebody who gets published predictions."""

    def deliver(self, consignment: Consignment) -> Delivered:
        """Hands a partition over, once: the same key again changes nothing and says so.

        A process may die at any point: whoever reads there sees the former rows of the partition or all of these. Two
        processes may deliver one partition at once: the rows of one of them are there in the end, whole.

        Raises:
            UnavailableError: the other side does not answer as it should; the same call again finds out what happened.
            ServiceRefused: a person must change something there.
            SchemaMismatch: the rows do not go into what is there.
        """
        ...


class DriftDetector(Protocol):
    """Compares rows, or what was counted of them, with what the champion saw."""

    def reference(self, spec: UseCase, features: pl.DataFrame, scores: pl.DataFrame) -> Reference:
        """Freezes edges and counts, and how much single partitions differ by themselves.

        Args:
            features: `partition` and the features of the training rows.
            scores: `partition` and `score` of rows that the model was not trained on.
        """
        ...

    def count(self, spec: UseCase, reference: bytes, features: pl.LazyFrame) -> dict[str, Counts]:
        """Counts of every feature by `partition`: equal to those that scoring made of the same rows. No scores.

        Args:
            reference: the champion's reference.json.
            features: `partition` and the features.

        Raises:
            SchemaMismatch: a feature is missing, in the rows or in the reference.
        """
        ...

    def count_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, ColumnCounts]:
        """Counts of the scores by `partition`.

        Args:
            scores: `partition` and `score`.
        """
        ...

    def drift_of(
        self, spec: UseCase, reference: Reference, counts: Counts, partition: str | None
    ) -> tuple[ColumnDrift, ...]:
        """Drift of every feature, exact over every row that was counted.

        Args:
            partition: what was counted, for the season of it; None: several partitions taken together.

        Raises:
            SchemaMismatch: a feature is missing, in the counts or in the reference.
        """
        ...

    def drift_of_scores(self, spec: UseCase, reference: Reference, counts: ColumnCounts) -> ColumnDrift:
        """Drift of the scores."""
        ...


#: Folder below the root of the reports that a reporter's own UI opens, for all use cases together.
WORKSPACE = "evidently"


class DriftReporter(Protocol):
    """Writes the drift report that people read."""

    def write(
        self,
        spec: UseCase,
        reference: pl.DataFrame,
        current: pl.DataFrame,
        html: Path,
        *,
        workspace: Path,
        as_of: str,
        champion: int,
    ) -> None:
        """Compares two samples of the same feature columns. A repeat replaces what it wrote.

        Args:
            html: the page; its figures are beside it, as .json.
            workspace: gets one run a use case, partition and champion. What is wrong with it does not fail the page.
            as_of: the newest partition of the window that the sample is of.
            champion: the version whose reference it is.
        """
        ...

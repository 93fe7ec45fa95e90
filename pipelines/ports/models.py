"""The ports of models: where they are registered, who signs them, audits them and writes about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.records import (
    Evaluation,
    Fairness,
    GateReport,
    ModelRef,
    Registered,
    SearchResult,
    TrainedModel,
    TrainingRun,
    Trial,
)
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

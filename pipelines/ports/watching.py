"""The ports of watching: what drifted, and the page that people read about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.records import ColumnCounts, ColumnDrift, Counts, Reference
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import polars as pl


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

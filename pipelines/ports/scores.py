"""The ports of scores: who else scores, and who gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.records import Delivered, Piece, Prediction, RunInfo, ScorePlan
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import polars as pl


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

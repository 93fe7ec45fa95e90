"""A champion, small nights and one of a million rows, and everything that scoring a night leaves behind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.parquet import digest
from pipelines.ports import Draft, SnapshotStore
from pipelines.steps import pieces
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import DAYS, NAME, Champions, write_project
from tests.contracts.stores import RUN, audit
from tests.faults.scorers import Night

#: Nights that are not scored yet: of 150 rows each, and one of a million.
SMALL, LARGE = DAYS[8:11], "2024-06-01"
LARGE_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Nights:
    """A use case that scores: version 1 is the champion, 2 and 3 are registered."""

    champions: Champions

    @property
    def home(self) -> Path:
        return self.champions.home

    @property
    def store(self) -> SnapshotStore:
        return self.champions.runtime().store

    def copy(self, folder: Path, **changes: Any) -> Nights:
        """The same in a folder of the test's own. The table's files are shared: nobody changes a published file."""
        kept = shutil.ignore_patterns("artifacts", "checkpoints", "scores")
        shutil.copytree(self.home, folder / "var", ignore=kept, copy_function=_copied)
        project = write_project(folder / "project", **changes)
        old = self.champions
        return Nights(
            champions=Champions(project=project, home=folder / "var", evaluation=old.evaluation, report=old.report)
        )

    def night(self, *partitions: str, **told: Any) -> Night:
        """A run that scores partitions; SMALL when none are named."""
        return Night(project=self.champions.project, home=self.home, partitions=list(partitions or SMALL), **told)


def _copied(source: str, target: str) -> str:
    if f"/snapshots/{NAME}/rows/" in source and source.endswith(".parquet"):
        Path(target).hardlink_to(source)
        return target
    return str(shutil.copyfile(source, target))


def rows(count: int, seed: int = 1) -> pl.DataFrame:
    """Rows as the champion knows them."""
    dice = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": pl.int_range(count, eager=True).cast(pl.String),
            "pressure": dice.normal(size=count),
            "wear": dice.random(count),
            "site": pl.Series(["north", "south"]).gather(dice.integers(0, 2, count)),
        }
    )


def put(store: SnapshotStore, partition: str, frame: pl.DataFrame, table: str = "rows") -> None:
    """Publishes rows, whatever anybody would say of them."""
    staged = store.stage(table, [Draft(partition=partition, frame=frame)], RUN)
    store.publish(table, staged, [audit(part) for part in staged], RUN)


def outcome(nights: Nights) -> dict[str, Any]:
    """Everything that readers of the predictions may see, but for the clock of commits.

    The bytes of each published file are read, not believed.
    """
    store = nights.store
    head = store.head(PREDICTIONS)
    folder = nights.home / "snapshots" / NAME / PREDICTIONS
    held = {} if head is None else store.partitions(head)
    return {
        "partitions": held,
        "bytes": {key: digest(folder / f"partition={key}" / f"{part.digest}.parquet") for key, part in held.items()},
        "history": [commit.model_dump(exclude={"snapshot", "at"}) for commit in store.history(PREDICTIONS)],
    }


def swept(nights: Nights) -> set[str]:
    """Sweeps what dead runs left, as if a day had passed; every file that is there then."""
    runtime = nights.champions.runtime()
    later = datetime.now(UTC) + timedelta(days=2)
    runtime.store.sweep(later, dry_run=False)
    scores = nights.home / "work" / NAME / "scores"
    pieces.sweep(scores, later, dry_run=False)
    roots = (nights.home / "snapshots", scores)
    return {str(path.relative_to(nights.home)) for root in roots for path in root.rglob("*") if path.is_file()}

"""A small model over published rows, for what cutting a plan into shards must not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines import artifacts
from pipelines.backends.delta import DeltaStore
from pipelines.backends.psi import PopulationStability
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import ModelRef, ScorePlan, StagedPartition
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase
from pipelines.steps.scoring import plan, score, score_shard, stage_pieces
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.contracts.stores import RUN, audit


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """A use case with published rows and a sealed model; it is itself where the model is fetched from."""

    spec: UseCase
    store: SnapshotStore
    artifact: Path
    model: ModelRef

    def fetch(self, model: ModelRef) -> Path:
        """The verified folder."""
        artifacts.verify(self.artifact, model.digest)
        return self.artifact

    def plan(self, partitions: Sequence[str], **scoring: Any) -> tuple[UseCase, ScorePlan]:
        """The spec with other settings of its scoring, and a plan of these partitions."""
        spec = self.spec.model_copy(update={"scoring": self.spec.scoring.model_copy(update=scoring)})
        return spec, plan(spec, self.store, self.model, partitions, RUN)

    def whole(self, partitions: Sequence[str], **scoring: Any) -> dict[str, StagedPartition]:
        """What one process stages."""
        spec, resolved = self.plan(partitions, **scoring)
        return _by_key(score(spec, self.store, self, resolved, RUN).staged)  # type: ignore[arg-type]

    def cut(self, partitions: Sequence[str], out: Path, *, backwards: bool = False, **scoring: Any) -> Any:
        """What is staged of shards that were scored one by one."""
        spec, resolved = self.plan(partitions, **scoring)
        order = resolved.shards[::-1] if backwards else resolved.shards
        pieces = [score_shard(spec, self.store, self.artifact, resolved, shard, out) for shard in order]
        return stage_pieces(spec, self.store, self.artifact, resolved, pieces, RUN)

    def shards(self, partitions: Sequence[str], out: Path, **options: Any) -> dict[str, StagedPartition]:
        """The same by partition."""
        return _by_key(self.cut(partitions, out, **options).staged)


def _by_key(staged: Sequence[StagedPartition]) -> dict[str, StagedPartition]:
    return {part.partition: part for part in staged}


def digests(staged: Mapping[str, StagedPartition]) -> dict[str, tuple[str, int]]:
    """Digest and rows by partition: equal ones, equal bytes."""
    return {key: (part.digest, part.rows) for key, part in staged.items()}


def publish(store: SnapshotStore, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
    """Publishes partitions of a table."""
    staged = store.stage(table, [Draft(partition=key, frame=frame) for key, frame in frames.items()], RUN)
    store.publish(table, staged, [audit(part) for part in staged], RUN)


def open_store(spec: UseCase, root: Path) -> DeltaStore:
    """The use case's store in a folder."""
    return DeltaStore(root / "snapshots", spec.name, root / "cache")


def seal(spec: UseCase, data: Path, out: Path) -> ModelRef:
    """Trains trees on data/*.parquet, and seals them with the reference that counts are made by."""
    run(Job(spec=spec, data=data, out=out, threads=1), lambda _: None)
    features = pl.read_parquet(data / "holdout.parquet", columns=["partition", *spec.features.columns])
    scores = Engine(out, threads=1).score(features)
    highest = pl.Series("score", scores if scores.ndim == 1 else scores.max(axis=1))
    reference = PopulationStability().reference(spec, features, features.select("partition", highest))
    (out / "reference.json").write_text(reference.model_dump_json(), "utf-8")
    return ModelRef(name=spec.name, version=3, run_id="r", digest=artifacts.seal(out))


def made_up(rows: int, seed: int) -> pl.DataFrame:
    """Rows of the toy use case with nulls, infinities, rare and unheard-of words."""
    rng = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue", "unheard of", "ß"], dtype=object)
    return pl.DataFrame(
        {
            "id": [f"{seed}-{place}" for place in range(rows)],
            "wide": rng.lognormal(3, 2, rows),
            "narrow": np.where(rng.random(rows) < 0.05, np.inf, rng.normal(0, 0.01, rows)),
            "gaps": [None if place % 5 == 0 else float(value) for place, value in enumerate(rng.normal(5, 1, rows))],
            "colour": list(words[rng.integers(0, 5, rows)]),
            "shape": [None if place % 11 == 0 else ("round", "square")[place % 2] for place in range(rows)],
            "outcome": rng.normal(0, 1, rows),
        },
        schema_overrides={"gaps": pl.Float64, "id": pl.String, "colour": pl.String, "shape": pl.String},
    )

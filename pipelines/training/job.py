"""What a training is given, wherever it runs: the spec, and folders for data, artifact and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.spec import UseCase

#: The files of a training set. Rows of `unlabelled.parquet`, when there is one, have no label.
TRAIN, VALIDATION, HOLDOUT, UNLABELLED = "train", "validation", "holdout", "unlabelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training. The same job gives the same artifact on this machine and in a container."""

    spec: UseCase
    data: Path
    """Folder of train.parquet, validation.parquet and holdout.parquet: the features, `label` (0 or 1, a class index, or
    a value), and `weight` where rows weigh differently; unlabelled.parquet, when present, has the features alone."""
    out: Path
    """Folder of the artifact; made when absent."""
    checkpoints: Path | None = None
    """Folder that outlives an interruption; without it an interrupted training begins again."""
    threads: int | None = None
    """Processor threads; what torch finds when absent. The same number gives the same weights."""

    def part(self, name: str) -> Path:
        """The Parquet file of a part."""
        return self.data / f"{name}.parquet"

"""What every part of an evaluation looks at: two models that have scored the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.ports import FairnessAuditor, SnapshotStore
from pipelines.records import Holdout, TrainedModel
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Meeting:
    """Challenger and champion on one holdout. Both artifacts are verified before this is made."""

    spec: UseCase
    store: SnapshotStore
    auditor: FairnessAuditor
    trained: TrainedModel
    """The challenger."""
    holdout: Holdout
    frame: pl.DataFrame
    """The holdout's rows: `partition`, key, features, `label`."""
    champion: Path | None
    """The champion's artifact folder."""
    champion_digest: str | None = None
    """What that folder was sealed as, by the registry."""

    @cached_property
    def folder(self) -> Path:
        """The challenger's artifact folder."""
        return Path(self.trained.folder)

    @cached_property
    def labels(self) -> NDArray[np.floating]:
        """[n], classes by index."""
        labels: NDArray[np.floating] = self.frame.get_column("label").to_numpy()
        return labels

    @cached_property
    def engine(self) -> Engine:
        """Scores as the challenger."""
        return Engine(self.folder, digest=self.trained.digest, tile_rows=self.spec.scoring.tile_rows)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The challenger's: [n], or [n, classes]."""
        return self.engine.score(self.frame)

    @cached_property
    def champion_scores(self) -> NDArray[np.float32] | None:
        """The champion's, on the same rows in the same order."""
        if self.champion is None:
            return None
        engine = Engine(self.champion, digest=self.champion_digest, tile_rows=self.spec.scoring.tile_rows)
        return engine.score(self.frame)


#: Measures some fields of an `Evaluation`.
Part = Callable[[Meeting], Mapping[str, Any]]

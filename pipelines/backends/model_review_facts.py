"""What a review looks at: two models, their scores of the same rows, and what is known of how they came about.

Shapes: n holdout rows, c classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines import partitions
from pipelines.errors import IntegrityError, explain
from pipelines.parquet import sha256
from pipelines.records import Comparison, Scorecard, TrainingSet
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.ports import UnderReview


class Side:
    """One of the two models. Its folder has been verified."""

    def __init__(self, name: str, folder: Path, spec: UseCase) -> None:
        self.name, self.folder = name, folder
        self.engine = Engine(folder, tile_rows=spec.scoring.tile_rows)

    @property
    def about(self) -> dict[str, Any]:
        """model.json."""
        return self.engine.facts

    @cached_property
    def training_set(self) -> TrainingSet | None:
        """What it learned from; None where its artifact does not tell."""
        path = self.folder / "provenance.json"
        if not path.is_file():
            return None
        return TrainingSet.model_validate({**json.loads(path.read_text("utf-8")), "folder": ""})

    @cached_property
    def cards(self) -> tuple[Scorecard, ...]:
        """Its own training's scorecards."""
        path = self.folder / "scorecards.json"
        raw = json.loads(path.read_text("utf-8")) if path.is_file() else []
        return tuple(Scorecard.model_validate(card) for card in raw)

    @property
    def served(self) -> Scorecard | None:
        """The scorecard of what it serves."""
        return next((card for card in self.cards if card.model == self.about.get("served")), None)

    @cached_property
    def epochs(self) -> dict[str, int]:
        """Epochs that were run, by network."""
        path = self.folder / "curves.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        found: dict[str, int] = {}
        for line in lines:
            told = json.loads(line)
            for name in ("teacher", "student"):
                if f"{name}_loss" in told and "epoch" in told:
                    found[name] = max(found.get(name, 0), int(told["epoch"]))
        return found


@dataclass(frozen=True)
class Facts:
    """Everything that the pages are made of."""

    spec: UseCase
    case: UnderReview
    frame: pl.DataFrame
    """The holdout's rows: features and `label`, and nothing that names anybody."""
    challenger: Side
    champion: Side | None

    @cached_property
    def labels(self) -> NDArray[np.floating]:
        """[n]; classes by index."""
        labels: NDArray[np.floating] = self.frame.get_column("label").to_numpy()
        return labels

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The challenger's, [n] or [n, c]."""
        return self.challenger.engine.score(self.frame)

    @cached_property
    def other_scores(self) -> NDArray[np.float32] | None:
        """The champion's."""
        return self.champion.engine.score(self.frame) if self.champion else None

    @property
    def against_champion(self) -> Comparison | None:
        """Row by row with the champion, where somebody measured it."""
        return next((one for one in self.case.evaluation.comparisons if one.against == "champion"), None)

    @property
    def rival(self) -> str:
        """The champion's name."""
        return f"champion {self.case.evaluation.champion_version}"

    @cached_property
    def gaps(self) -> dict[str, int]:
        """Partitions between the ends of each part of the training set of which it has no row."""
        folder, found = Path(self.case.trained.training_set.folder), {}
        for part in ("train", "validation", "holdout"):
            path = folder / f"{part}.parquet"
            if not path.is_file():
                continue
            first, last = getattr(self.case.trained.training_set, part)
            held = pl.scan_parquet(path).select(pl.col("partition").n_unique()).collect().item()
            found[part] = len(partitions.span(first, last, self.spec.granularity)) - int(held)
        return found


def gather(spec: UseCase, case: UnderReview) -> Facts:
    """Reads the holdout and loads both models.

    Raises:
        IntegrityError: the holdout is not what was measured, or a folder holds no model.
    """
    holdout = case.evaluation.holdout
    path = Path(holdout.path)
    if not path.is_file() or sha256(path) != holdout.digest:
        raise IntegrityError(
            explain(str(path), "it is not the holdout that was measured", remedy="run the evaluate step again")
        )
    frame = pl.read_parquet(path, columns=[*spec.features.columns, "label"])
    return Facts(
        spec=spec,
        case=case,
        frame=frame,
        challenger=Side("challenger", Path(case.trained.folder), spec),
        champion=Side("champion", case.champion, spec) if case.champion else None,
    )

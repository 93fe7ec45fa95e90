"""How good a model is on rows that it was trained on: sealed with it, since the rows may be gone when it is asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipelines import artifacts
from pipelines.metrics import metrics
from pipelines.records import Seen
from pipelines.scoring.engine import Engine
from pipelines.spec import GREATER_IS_BETTER, UseCase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.floating]

#: Training rows that are asked again, and the seed that draws them.
SEEN_ROWS = 20_000
_SEED = 20131019
_FILE = "seen.json"


def on_seen(spec: UseCase, engine: Engine, train: Path) -> Seen:
    """Scores a seeded sample of the training rows."""
    import numpy as np

    rows = pl.scan_parquet(train)
    chosen = np.random.default_rng(_SEED).permutation(rows.select(pl.len()).collect().item())[:SEEN_ROWS]
    wanted = rows.select(*spec.features.columns, "label").with_row_index("__row")
    seen = wanted.filter(pl.col("__row").is_in(np.sort(chosen))).collect(engine="streaming")
    labels, scores = seen.get_column("label").to_numpy(), engine.score(seen)
    value = metrics(spec.label.task, labels, scores, len(spec.label.classes) or None)[spec.gates.metric]
    return Seen(metric=spec.gates.metric, value=value, skill=skill(spec, labels, scores), rows=seen.height)


def write_seen(spec: UseCase, engine: Engine, train: Path, folder: Path) -> None:
    """Adds the figure to an artifact that is about to be sealed."""
    (folder / _FILE).write_text(on_seen(spec, engine, train).model_dump_json(indent=1) + "\n", "utf-8")


def read_seen(folder: Path, digest: str) -> Seen | None:
    """The figure that was sealed with an artifact; None in those of an older version.

    Raises:
        IntegrityError: the file is not the one that was sealed.
    """
    if not (folder / _FILE).is_file():
        return None
    (content,) = artifacts.read(folder, digest, _FILE)
    return Seen.model_validate_json(content)


def skill(spec: UseCase, labels: Scores, scores: Scores) -> float | None:
    """AUC and accuracy as they are; of the others the share of a constant's loss on the same rows that is not lost.

    Returns:
        None where it is not defined: one class, or one value.
    """
    import numpy as np

    metric = spec.gates.metric
    value = metrics(spec.label.task, labels, scores, len(spec.label.classes) or None)[metric]
    if GREATER_IS_BETTER[metric]:
        return value if math.isfinite(value) else None
    if metric == "log_loss":
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        constant = float(-(shares * np.log(shares)).sum())
    elif metric == "rmse":
        constant = float(labels.astype(np.float64).std())
    else:
        constant = float(np.abs(labels - np.median(labels)).mean())
    return 1 - value / constant if constant > 0 and math.isfinite(value) else None

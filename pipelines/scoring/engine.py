"""The scoring engine: an artifact's ONNX graph on ONNX Runtime, in tiles, with the machine's own threads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.errors import IntegrityError, SchemaMismatch, explain

if TYPE_CHECKING:
    import numpy as np


def usable_cores() -> int:
    """Cores that this process may use (its affinity, as containers and cgroups set it)."""
    return len(os.sched_getaffinity(0))


class Engine:
    """One loaded model. Load once, score many partitions.

    Scores do not depend on the tile size: every row is computed by itself.
    """

    def __init__(self, folder: Path, *, tile_rows: int = 8192, threads: int | None = None) -> None:
        """Loads `model.onnx` of a verified artifact folder.

        Raises:
            IntegrityError: the folder holds no such artifact.
        """
        import onnxruntime

        try:
            self.facts: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or usable_cores()
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except (OSError, ValueError) as error:
            raise IntegrityError(explain(str(folder), f"not a model artifact: {error}")) from None
        self._tile = tile_rows
        self.numeric: list[str] = list(self.facts["numeric"])
        self.categorical: list[str] = list(self.facts["categorical"])

    def score(self, features: pl.DataFrame) -> np.ndarray:
        """Scores of each row.

        Args:
            features: at least the model's features; numeric null and NaN are "missing", a null string is too.

        Returns:
            float32, shape [n] (binary: probability; regression: the label's unit) or [n, classes].

        Raises:
            SchemaMismatch: a feature is not there, or is text where a number belongs, or the other way round.
        """
        import numpy as np

        inputs = self._inputs(features)
        if features.height == 0:
            classes = len(self.facts.get("classes") or ())
            return np.empty((0, classes) if classes else (0,), dtype=np.float32)
        tiles = []
        for start in range(0, features.height, self._tile):
            feed = {name: column[start : start + self._tile] for name, column in inputs.items()}
            tiles.append(self._session.run(["score"], feed)[0])
        return np.concatenate(tiles)

    def unseen(self, features: pl.DataFrame) -> dict[str, float]:
        """Share of non-null values outside the model's vocabulary, by categorical feature."""
        shares = {}
        for name in self.categorical:
            known = pl.Series(self.facts["vocabularies"][name], dtype=pl.String)
            column = features.get_column(name)
            strange = (column.is_not_null() & ~column.is_in(known.implode())).mean()
            shares[name] = float(strange or 0.0)  # type: ignore[arg-type]
        return shares

    def _inputs(self, features: pl.DataFrame) -> dict[str, np.ndarray]:

        held = features.schema
        for name in [*self.numeric, *self.categorical]:
            text = held.get(name) == pl.String
            if name not in held or text != (name in self.categorical):
                found = f"{name!r} is {held[name]}" if name in held else f"there is no {name!r}"
                raise SchemaMismatch(
                    explain(
                        "scoring",
                        f"the model and the snapshot disagree: {found}",
                        allowed=f"numbers: {', '.join(self.numeric)}; text: {', '.join(self.categorical)}",
                        remedy="retrain on this schema, or restore the column",
                    )
                )
        inputs: dict[str, np.ndarray] = {}
        for name in self.numeric:
            inputs[name] = features.get_column(name).cast(pl.Float32).fill_null(float("nan")).to_numpy()
        for name in self.categorical:
            inputs[name] = features.get_column(name).fill_null("").to_numpy().astype(object)
        return inputs

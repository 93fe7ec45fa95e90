"""One trained artifact a task, with vocabularies that a careless encoder would get wrong, and rows to score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest

from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.unit.training.conftest import Columns, make_spec, write

#: What two encoders may disagree about: composed and decomposed letters, case, blanks, look-alikes of null, planes
#: past 16 bits, quotes, and words that begin as others do.
WORDS = (
    "red", "Red", " red", "red ", "redder", "Grün", "Gru\u0308n", "日本", "🛫", "🛬", "a\tb", "a\nb", "'q'", '"q"',
    "NaN", "none", "null", "NULL", "<na>", "NA", "0", "0.0", "-", "\u200b", "\ufeffred", "ß", "SS", "x" * 3000,
)  # fmt: skip
#: Never in a vocabulary, and every way to say that there is no value.
STRANGE: tuple[str | None, ...] = (
    None, "", "None", "nan", "<NA>", "rare", "red\0", "\0red", "\0", "nan\0", "red\0der",
    "unheard of", "RED", "GRÜN", "日", "x" * 2999, "x" * 1_000_000,
    "Nan", "none ", "\u00a0", "🛫🛫", "\udbff\udfff".encode("utf-16", "surrogatepass").decode("utf-16"),
)  # fmt: skip
NUMBERS: tuple[float | None, ...] = (None, float("nan"), float("inf"), float("-inf"), 1e300, -1e30, 0.0, -0.0, 20.0)
NUMERIC, TEXT = ("wide", "narrow", "gaps"), ("colour", "shape")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A trained folder."""

    task: str
    folder: Path
    data: Path

    @property
    def rows(self) -> pl.DataFrame:
        """The holdout's features, 400 rows."""
        return pl.read_parquet(self.data / "holdout.parquet", columns=[*NUMERIC, *TEXT])


def worded(columns: Columns) -> Columns:
    """Every word of WORDS often enough for the vocabulary."""
    return {**columns, "colour": [WORDS[i % len(WORDS)] for i in range(len(columns["colour"]))]}


@pytest.fixture(scope="package")
def make_artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """The artifact of a task, trained when it is first asked for."""

    @cache
    def of(task: str) -> Artifact:
        root = tmp_path_factory.mktemp(task)
        data = write(root / "data", task, train=worded, holdout=worded)
        spec = make_spec(task)
        quick = {"teacher": spec.training.teacher.model_copy(update={"epochs": 1})}
        spec = spec.model_copy(update={"training": spec.training.model_copy(update=quick)})
        run(Job(spec=spec, data=data, out=root / "out", threads=1), lambda _: None)
        return Artifact(task, root / "out", data)

    return of


@pytest.fixture(params=["binary", "multiclass", "regression"])
def artifact(request: pytest.FixtureRequest, make_artifact: Callable[[str], Artifact]) -> Artifact:
    """An artifact of each task."""
    return make_artifact(request.param)


@pytest.fixture
def binary(make_artifact: Callable[[str], Artifact]) -> Artifact:
    """The binary artifact, for what does not depend on the task."""
    return make_artifact("binary")


def every_value(words: Sequence[str]) -> pl.DataFrame:
    """A row for each word of a vocabulary and each strange one, in either column, beside every strange number."""
    text = [*words, *STRANGE]
    rows: list[dict[str, Any]] = []
    for i, word in enumerate(text):
        numbers = {name: NUMBERS[(i + j) % len(NUMBERS)] for j, name in enumerate(NUMERIC)}
        plain = dict.fromkeys(NUMERIC, 1.0)
        rows += [
            {**numbers, "colour": word, "shape": text[-1 - i]},
            {**numbers, "colour": text[-1 - i], "shape": word},
            {**plain, "colour": word, "shape": "round"},
            {**plain, "colour": "red", "shape": word},
        ]
    schema = dict.fromkeys(NUMERIC, pl.Float64) | dict.fromkeys(TEXT, pl.String)
    return pl.DataFrame(rows, schema=schema)


def whole_graph(folder: Path, rows: pl.DataFrame) -> np.ndarray:
    """What any ONNX client gets from the registered file, text in, all rows in one call."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    fed: dict[str, Any] = {name: rows[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in NUMERIC}
    fed |= {name: np.array(rows[name].to_list(), dtype=object) for name in TEXT}
    return np.asarray(session.run(["score"], fed)[0])

"""Reasons: they sum to the score, are Shapley's values, and hang on nothing but the row and the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.errors import SchemaMismatch
from pipelines.scoring.engine import Engine
from pipelines.scoring.reasons import Reasons, names

from .conftest import NUMERIC, TEXT, Artifact, every_value

DIGEST = "5e" * 32
FEATURES = [*NUMERIC, *TEXT]


@cache
def engine_of(folder: Path, tile_rows: int = 8192, threads: int = 1) -> Engine:
    return Engine(folder, tile_rows=tile_rows, threads=threads)


def hostile(artifact: Artifact) -> pl.DataFrame:
    """Every kind of word and number, a row of nulls, and plain rows."""
    rows = every_value(engine_of(artifact.folder).facts["vocabularies"]["colour"])
    nulls = pl.DataFrame([dict.fromkeys(FEATURES)], schema=rows.schema)
    return pl.concat([nulls, rows, artifact.rows.head(100).cast(dict(rows.schema))])


def typical(engine: Engine) -> pl.DataFrame:
    schema = dict.fromkeys(NUMERIC, pl.Float32) | dict.fromkeys(TEXT, pl.String)
    return pl.DataFrame([engine.facts["example"]], schema=schema)


def told(engine: Engine, rows: pl.DataFrame, count: int = 3) -> pl.DataFrame:
    return pl.DataFrame(Reasons(engine, DIGEST, count).of(rows, engine.score(rows)))


def test_the_effects_of_all_features_sum_to_what_the_score_is_more_than_the_typical_one(artifact: Artifact) -> None:
    engine, rows = engine_of(artifact.folder), hostile(artifact)
    scores, base = engine.score(rows), engine.score(typical(engine)).astype(float)
    effects = Reasons(engine, DIGEST, 1).effects(rows, scores)
    if artifact.task == "multiclass":
        best = scores.argmax(axis=1)
        assert len(set(best.tolist())) > 1, "rows of several classes"
        wanted = scores[np.arange(len(rows)), best].astype(float) - base[0, best]
    else:
        wanted = scores.astype(float) - base
    np.testing.assert_allclose(effects.sum(axis=1), wanted, atol=1e-12 * (1 + np.abs(wanted).max()))
    assert np.abs(wanted).max() > 0.1


def test_the_effects_are_those_of_the_package_shap(artifact: Artifact) -> None:
    import shap

    engine, rows = engine_of(artifact.folder), artifact.rows.head(8)
    scores = engine.score(rows)
    words = [None, *sorted({word for name in TEXT for word in [*rows[name], *typical(engine)[name]] if word})]

    def matrix(frame: pl.DataFrame) -> np.ndarray[Any, Any]:
        numbers = [frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in NUMERIC]
        return np.column_stack([*numbers, *([words.index(word) for word in frame[name]] for name in TEXT)])

    def score(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        columns: dict[str, Any] = {name: matrix[:, place] for place, name in enumerate(NUMERIC)}
        for place, name in enumerate(TEXT, len(NUMERIC)):
            columns[name] = pl.Series([words[int(code)] for code in matrix[:, place]], dtype=pl.String)
        return np.asarray(engine.score(pl.DataFrame(columns)), float)

    masker = shap.maskers.Independent(matrix(typical(engine)), max_samples=1)
    exact = shap.explainers.Exact(score, masker)(matrix(rows)).values
    if artifact.task == "multiclass":
        exact = np.stack([exact[row, :, best] for row, best in enumerate(scores.argmax(axis=1))])
    spread = np.abs(exact).max()
    few = Reasons(engine, DIGEST, 1).effects(rows, scores)
    many = Reasons(engine, DIGEST, 1, pairs=300).effects(rows, scores)
    assert np.abs(many - exact).max() < 0.02 * spread
    assert np.abs(few - exact).max() < 0.1 * spread
    assert (np.abs(few).argmax(axis=1) == np.abs(exact).argmax(axis=1)).mean() >= 0.75


@pytest.mark.parametrize(("tile_rows", "threads", "batch"), [(1, 1, 50), (33, 3, 70), (64, 2, 1000), (5000, 2, 7)])
def test_reasons_are_the_same_bytes_for_any_tile_thread_count_and_batch(
    artifact: Artifact, tile_rows: int, threads: int, batch: int
) -> None:
    rows = hostile(artifact).tail(90)
    expected = told(engine_of(artifact.folder), rows)
    other = engine_of(artifact.folder, tile_rows, threads)
    cut = pl.concat([told(other, part) for part in rows.iter_slices(batch)])
    assert cut.equals(expected)
    for column in expected.get_columns():
        if column.dtype == pl.Float32:
            same = [each.get_column(column.name).fill_null(0).to_numpy().tobytes() for each in (cut, expected)]
            assert same[0] == same[1]


def test_other_artifacts_have_other_walks(make_artifact: Callable[[str], Artifact]) -> None:
    artifact = make_artifact("regression")
    engine, rows = engine_of(artifact.folder), artifact.rows.head(50)
    one, again, other = (
        Reasons(engine, digest, 1, pairs=1).effects(rows, engine.score(rows)) for digest in (DIGEST, DIGEST, "a0" * 32)
    )
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_feature_with_its_typical_value_is_never_named(artifact: Artifact) -> None:
    engine = engine_of(artifact.folder)
    rows = artifact.rows.head(60).with_columns(pl.lit(typical(engine).item(0, "wide")).alias("wide"))
    found = told(engine, pl.concat([rows, typical(engine).cast(dict(rows.schema))]), count=len(FEATURES))
    assert not any("wide" in found[name].to_list() for name, _ in names(len(FEATURES)))
    assert found.row(-1) == (None,) * len(found.columns), "the typical row has no reasons"
    assert found["reason_1"].drop_nulls().n_unique() > 1


def test_reasons_are_named_from_the_greatest_effect_down_and_there_are_no_more_than_features(
    binary: Artifact,
) -> None:
    engine, rows = engine_of(binary.folder), hostile(binary)
    found = told(engine, rows, count=7)
    assert found.columns == [name for pair in names(7) for name in pair]
    assert found["reason_6"].dtype == pl.String
    assert found["reason_6"].null_count() == found["reason_7_effect"].null_count() == rows.height
    sizes = found.select(effect for _, effect in names(7)).fill_null(0).to_numpy()
    assert (np.diff(np.abs(sizes), axis=1) <= 0).all()
    named = found.select(name for name, _ in names(7)).rows()
    assert all(len(set(row) - {None}) == len([word for word in row if word]) for row in named)
    assert {word for row in named for word in row if word} == set(FEATURES)


def test_of_equal_effects_the_first_feature_is_named_first(binary: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons, rows = Reasons(engine_of(binary.folder), DIGEST, 4), binary.rows.head(2)
    effects = np.array([[0.25, -0.5, 0.5, 0.0, -0.25], [0.0, 0.0, 1e-60, 0.0, 0.125]])
    monkeypatch.setattr(reasons, "effects", lambda *_: effects)
    found = pl.DataFrame(reasons.of(rows, np.zeros(2, np.float32)))
    assert found.select(name for name, _ in names(4)).rows() == [
        ("narrow", "gaps", "wide", "shape"),
        ("shape", None, None, None),
    ]
    assert found.row(0, named=True)["reason_1_effect"] == -0.5


def test_no_rows_have_no_reasons_in_the_same_columns(binary: Artifact) -> None:
    engine = engine_of(binary.folder)
    none = told(engine, binary.rows.clear())
    assert none.height == 0
    assert none.schema == told(engine, binary.rows.head(3)).schema


def test_an_artifact_without_a_typical_row_is_refused_with_what_helps(binary: Artifact, tmp_path: Path) -> None:
    shutil.copytree(binary.folder, tmp_path / "old")
    card = json.loads((tmp_path / "old" / "model.json").read_text("utf-8"))
    del card["example"]
    (tmp_path / "old" / "model.json").write_text(json.dumps(card), "utf-8")
    with pytest.raises(SchemaMismatch, match=r"scoring\.reasons: .*no typical row.*Remedy: retrain"):
        Reasons(Engine(tmp_path / "old"), DIGEST, 3)

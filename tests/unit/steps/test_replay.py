"""What a replay says of predictions that are not the published ones."""

from __future__ import annotations

import polars as pl
import pytest

from pipelines.spec import UseCase
from pipelines.steps.replay import compare


def predictions(spec: UseCase, scores: dict[str, float | None]) -> pl.DataFrame:
    (key,) = spec.rows.key
    return pl.DataFrame({key: list(scores), "score": list(scores.values())}).with_columns(model_version=pl.lit(1))


def test_scores_that_moved_are_counted_and_the_largest_move_is_told(flights_spec: UseCase) -> None:
    published = predictions(flights_spec, {"a": 0.5, "b": 0.25, "c": 0.125})
    worst, told = compare(flights_spec, published, predictions(flights_spec, {"a": 0.5, "b": 0.75, "c": 0.0}))
    assert worst == 0.5
    assert told == ["scores: 2 of 3 differ, by at most 0.5"]


def test_rows_on_one_side_only_are_named_by_key(flights_spec: UseCase) -> None:
    published = predictions(flights_spec, {f"k{number}": 0.5 for number in range(8)})
    worst, told = compare(flights_spec, published, predictions(flights_spec, {"k0": 0.5, "new": 0.5}))
    assert worst == 0.0
    assert told == [
        "rows: published 8, replayed 2",
        "keys only published: 7 (k1, k2, k3, k4, k5, ...)",
        "keys only replayed: 1 (new)",
    ]


def test_other_columns_are_named_and_no_score_is_compared_without_one(flights_spec: UseCase) -> None:
    published = predictions(flights_spec, {"a": 0.5})
    worst, told = compare(flights_spec, published, published.drop("score"))
    assert worst is None
    (columns,) = told
    assert columns.startswith("columns: published ")
    assert "score Float64" in columns.partition(";")[0]
    assert "score" not in columns.partition(";")[2]


def test_decisions_that_turned_are_counted_apart_from_the_scores(flights_spec: UseCase) -> None:
    published = predictions(flights_spec, {"a": 0.5, "b": 0.25}).with_columns(prediction=pl.Series([True, False]))
    replayed = published.with_columns(prediction=pl.Series([False, False]))
    worst, told = compare(flights_spec, published, replayed)
    assert worst == 0.0
    assert told == ["decisions: 1 of 2 differ"]


def test_equal_rows_in_another_order_are_not_called_identical(flights_spec: UseCase) -> None:
    published = predictions(flights_spec, {"a": 0.5, "b": 0.25})
    worst, told = compare(flights_spec, published, published.reverse())
    assert worst == 0.0
    assert told == ["the rows are equal; their order or the file's encoding differs"]


@pytest.mark.parametrize("broken", [float("nan"), None])
def test_scores_of_which_one_is_no_number_differ(flights_spec: UseCase, broken: float | None) -> None:
    published = predictions(flights_spec, {"a": 0.5, "b": 0.25})
    _, told = compare(flights_spec, published, predictions(flights_spec, {"a": broken, "b": 0.25}))
    assert told[0].startswith("scores: 1 of 2 differ")

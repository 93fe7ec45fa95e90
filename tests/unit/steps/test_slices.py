"""Where a challenger is worse: the slices that the spec names, and the worst one, found and measured apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.metrics import metrics
from pipelines.spec import UseCase
from pipelines.steps.evaluation import slices
from pipelines.steps.evaluation.slices import Rivals
from tests.unit.training.conftest import make_spec

ROWS = 6000


def spec_of(task: str = "binary", metric: str | None = None, **gates: Any) -> UseCase:
    told = make_spec(task, metric).model_dump()
    told["features"]["slices"] = ("colour", "shape")
    told["gates"] |= gates
    return UseCase.model_validate(told)


def rows(seed: int, count: int = ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "partition": "2024-01-01",
            "id": [str(i) for i in range(count)],
            "wide": rng.lognormal(3, 1.5, count),
            "narrow": rng.normal(0, 0.01, count),
            "gaps": [None if i % 7 == 0 else value for i, value in enumerate(rng.normal(5, 1, count))],
            "colour": rng.choice(["red", "green", "blue"], count),
            "shape": [None if i % 5 == 0 else "round" if i % 2 else "square" for i in range(count)],
        }
    )


def equals(seed: int, count: int = ROWS, **gates: Any) -> Rivals:
    """Two binary models that are equally good everywhere."""
    rng = np.random.default_rng([seed, 1])
    label = (rng.random(count) < 0.3).astype(float)
    shared = label + rng.normal(0, 0.8, count)
    mine, other = (shared + rng.normal(0, 0.4, count) for _ in range(2))
    return Rivals(spec_of(**gates), label, mine, other)


def broken(rivals: Rivals, where: np.ndarray[Any, Any]) -> Rivals:
    """The challenger knows nothing on these rows."""
    noise = np.random.default_rng(5).permutation(rivals.mine)
    return Rivals(rivals.spec, rivals.label, np.where(where, noise, rivals.mine), rivals.other)


def test_declared_slices_are_every_value_with_enough_rows_and_their_own_metric() -> None:
    frame, rivals = rows(0), equals(0, slice_rows=1300)
    found = {each.slice: each for each in slices.declared(rivals, frame)}
    assert set(found) == {"colour = red", "colour = green", "colour = blue", "shape = round", "shape = square"}
    red = (frame.get_column("colour") == "red").to_numpy()
    assert found["colour = red"].rows == red.sum()
    mine, other = (metrics("binary", rivals.label[red], score[red])["auc"] for score in (rivals.mine, rivals.other))
    assert (found["colour = red"].mine, found["colour = red"].other) == (mine, other)
    assert found["colour = red"].gain == mine - other
    missing = {each.slice for each in slices.declared(equals(0, slice_rows=1200), frame)}
    assert missing - set(found) == {"shape is missing"}


def test_an_auc_of_a_few_positives_is_not_told() -> None:
    frame, rivals = rows(0), equals(0)
    red = (frame.get_column("colour") == "red").to_numpy()
    for positives, told in ((9, False), (10, True)):
        label = np.where(red, 0.0, rivals.label)
        label[np.flatnonzero(red)[:positives]] = 1
        found = slices.declared(Rivals(rivals.spec, label, rivals.mine, rivals.other), frame)
        assert ("colour = red" in {each.slice for each in found}) == told


def test_of_very_many_slices_those_that_fell_most_are_kept() -> None:
    frame = rows(0).with_columns(pl.Series("colour", [f"c{i % 300:03}" for i in range(ROWS)]))
    whole = equals(0, metric="log_loss", slice_rows=20)
    rivals = Rivals(whole.spec, whole.label, *(1 / (1 + np.exp(-each)) for each in (whole.mine, whole.other)))
    found = slices.declared(rivals, frame)
    assert len(found) == 100
    bad = (frame.get_column("colour") == "c123").to_numpy()
    hurt = Rivals(rivals.spec, rivals.label, np.where(bad, 1e-9, rivals.mine), rivals.other)
    assert min(slices.declared(hurt, frame), key=lambda each: each.gain).slice == "colour = c123"


def test_a_corner_that_nobody_named_is_found_and_measured_on_rows_that_did_not_find_it() -> None:
    frame = rows(1)
    where = ((frame.get_column("colour") == "red") & (frame.get_column("wide") > 30)).to_numpy()
    found = slices.worst(broken(equals(1), where), frame, 7)
    assert found is not None
    assert "colour = red" in found.slice
    assert "wide" in found.slice
    assert found.gain < -0.2
    # About half of the rows of such a slice: the half that measures.
    assert 100 < found.rows < 0.65 * where.sum()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (pl.col("gaps").is_null(), "gaps is missing"),
        (pl.col("shape").is_null(), "shape is missing"),
        (pl.col("colour") == "blue", "colour = blue"),
    ],
)
def test_missing_values_and_single_values_are_slices_too(where: pl.Expr, name: str) -> None:
    frame = rows(2)
    found = slices.worst(broken(equals(2), frame.select(where).to_series().to_numpy()), frame, 7)
    assert found is not None
    assert name in found.slice


def test_the_name_of_a_bin_says_which_rows_it_holds() -> None:
    column = rows(3).get_column("gaps")
    cut = slices.by_bin(column, np.arange(ROWS))
    values = column.to_numpy()
    for code, name in enumerate(cut.names):
        assert name is not None
        held = values[cut.codes == code]
        if name == "gaps is missing":
            assert np.isnan(held).all()
            continue
        low, high = -math.inf, math.inf
        if "[" in name:
            low, high = map(float, name.split("[")[1].rstrip(")").split(", "))
        elif "<" in name:
            high = float(name.split("< ")[1])
        else:
            low = float(name.split(">= ")[1])
        assert ((held >= low) & (held < high)).all()
        assert len(held) == int(((values >= low) & (values < high)).sum()) > 900


def test_a_number_without_values_and_one_with_a_single_value_do_not_stop_the_search() -> None:
    frame = rows(4).with_columns(
        pl.lit(None, pl.Float64).alias("wide"), pl.lit(3.0).alias("narrow"), (pl.col("id") == "7").alias("gaps")
    )
    assert slices.worst(equals(4), frame, 7) is not None


def test_nothing_is_found_where_no_slice_has_enough_rows() -> None:
    frame, rivals = rows(5), equals(5, slice_rows=ROWS + 1)
    assert slices.worst(rivals, frame, 7) is None
    assert slices.declared(rivals, frame) == ()


def test_the_order_of_the_rows_does_not_matter() -> None:
    frame, rivals = rows(6), equals(6)
    order = np.random.default_rng(0).permutation(ROWS)
    found, again = slices.worst(rivals, frame, 7), slices.worst(rivals.of(order), frame[order], 7)
    assert found is not None
    assert again is not None
    assert (again.slice, again.rows, again.gain) == (found.slice, found.rows, pytest.approx(found.gain))


def test_searching_does_not_make_equal_models_look_worse() -> None:
    gains, naive = [], []
    for seed in range(12):
        frame, rivals = rows(seed, 3000), equals(seed, 3000)
        found = slices.worst(rivals, frame, seed)
        assert found is not None
        gains.append(found.gain)
        kinds = [slices.by_value(frame.get_column(name), 300, None) for name in ("colour", "shape")]
        pair = slices._pair(*kinds)
        cells = [np.flatnonzero(pair.codes == code) for code, name in enumerate(pair.names) if name]
        naive.append(min(rivals.of(cell).gain("a").gain for cell in cells if rivals.of(cell).tellable(300)))
    # The mean of twelve honest figures is about 0; the worst of nine slices is always below.
    assert abs(np.mean(gains)) < 3 * np.std(gains, ddof=1) / math.sqrt(len(gains))
    assert np.mean(naive) < -2 * np.std(naive, ddof=1) / math.sqrt(len(naive))


@pytest.mark.parametrize(
    ("task", "metric"), [("regression", "rmse"), ("regression", "mae"), ("multiclass", "accuracy")]
)
def test_every_task_is_searched(task: str, metric: str) -> None:
    frame, rng = rows(8), np.random.default_rng(8)
    where = (frame.get_column("colour") == "green").to_numpy()
    label: Any
    if task == "regression":
        label = rng.normal(0, 10, ROWS)
        mine, other = (label + rng.normal(0, 3, ROWS) for _ in range(2))
        mine = mine + where * rng.normal(0, 9, ROWS)
    else:
        label = rng.integers(0, 3, ROWS).astype(float)
        mine, other = (rng.random((ROWS, 3)) + np.eye(3)[label.astype(int)] for _ in range(2))
        mine = np.where(where[:, None], rng.random((ROWS, 3)), mine)
    found = slices.worst(Rivals(spec_of(task, metric), label, mine, other), frame, 7)
    assert found is not None
    assert "colour = green" in found.slice
    assert found.gain < (-0.2 if task == "multiclass" else -2)


def test_placements_average_to_the_auc_of_either_class() -> None:
    rivals = equals(9)
    rounded = np.round(rivals.mine, 1)
    found = slices.placements(rivals.label, rounded)
    auc = metrics("binary", rivals.label, rounded)["auc"]
    assert found[rivals.label == 1].mean() == pytest.approx(auc)
    assert found[rivals.label == 0].mean() == pytest.approx(auc)

"""Each feature by itself: copies of the label are found whatever their shape; honest features and keys are not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.training import leaks
from pipelines.training.data import Table

from .conftest import TASKS, make_columns, make_spec

MOST = 0.98


def table(task: str, rows: int = 4000, **changed: Any) -> Table:
    columns = make_columns(task, rows, 3) | changed
    numeric = [np.array([np.nan if value is None else value for value in columns[n]], float) for n in NUMERIC]
    words = [pa.array(columns[name], pa.large_string()).dictionary_encode() for name in ("colour", "shape")]
    return Table(np.stack(numeric, 1).astype(np.float32), tuple(words), np.asarray(columns["label"], np.float32))


NUMERIC = ("wide", "narrow", "gaps")


def single(task: str, rows: Table) -> dict[str, float]:
    found: dict[str, float] = leaks.measure(make_spec(task), rows)["single"]
    return found


@pytest.mark.parametrize("task", TASKS)
def test_honest_features_pass_and_noise_says_nothing(task: str) -> None:
    noise = np.random.default_rng(9).normal(size=4000)
    found = single(task, table(task, gaps=noise))
    assert set(found) == {*NUMERIC, "colour", "shape"}
    assert max(found.values()) < 0.9
    assert found["wide"] > found["gaps"] + 0.1
    assert found["gaps"] == pytest.approx(0.5 if task == "binary" else 0.0, abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_a_column_equal_to_the_target_is_found_as_a_number_and_as_a_word(task: str) -> None:
    label = table(task).label
    found = single(task, table(task, narrow=label, shape=[f"class {value:.0f}" for value in label]))
    assert found["narrow"] > 0.995
    if task != "regression":
        assert found["shape"] == pytest.approx(1)
    assert max(found["wide"], found["gaps"], found["colour"]) < 0.9


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rows", [120, 4000])
def test_a_near_copy_with_noise_is_found_in_few_rows_and_with_a_null_in_many(task: str, rows: int) -> None:
    label = table(task, rows).label
    spread = 0.05 * label.std()
    copy = label + np.random.default_rng(4).normal(0, spread, rows)
    copy[:: rows // 10] += 2 * spread
    columns = [None if i == 17 and rows > 1000 else value for i, value in enumerate(copy)]
    assert single(task, table(task, rows, wide=columns))["wide"] > MOST


def test_a_copy_that_neither_rises_nor_falls_is_found() -> None:
    label = table("binary").label
    rng = np.random.default_rng(5)
    # Even numbers where the outcome was 1, odd ones where not; and far from the middle where it was 1.
    parity = 2 * rng.integers(0, 60, len(label)) + (label == 0)
    far = np.where(
        label == 1, rng.choice([-1, 1], len(label)) * rng.uniform(2, 3, len(label)), rng.normal(0, 0.3, 4000)
    )
    found = single("binary", table("binary", narrow=parity, gaps=far))
    assert found["narrow"] == pytest.approx(1)
    assert found["gaps"] > MOST
    assert roc_auc_score(label, far) < 0.6, "a straight look does not see it"


def test_nulls_that_tell_the_outcome_are_found() -> None:
    label = table("binary").label
    found = single("binary", table("binary", gaps=[None if value else 1.5 for value in label]))
    assert found["gaps"] == pytest.approx(1)


def test_a_copy_of_a_target_with_a_far_tail_is_found_by_its_ranks() -> None:
    label = np.random.default_rng(6).lognormal(0, 3, 4000)
    found = single("regression", table("regression", label=label, wide=label, narrow=np.log(label)))
    assert found["wide"] > 0.999
    assert found["narrow"] == pytest.approx(found["wide"], abs=1e-4)


def test_a_key_that_is_another_in_every_row_tells_nothing() -> None:
    rows = table("binary")
    found = single("binary", table("binary", colour=[f"key {i}" for i in range(len(rows))]))
    assert found["colour"] == pytest.approx(0.5)


def test_constant_and_null_and_infinite_columns_have_a_figure() -> None:
    infinite = np.where(np.arange(4000) % 2, np.inf, -np.inf)
    found = single(
        "binary", table("binary", wide=[None] * 4000, narrow=[7.0] * 4000, gaps=infinite, shape=[None] * 4000)
    )
    assert found["wide"] == found["narrow"] == found["shape"] == 0.5
    assert found["gaps"] == pytest.approx(0.5, abs=0.05)


def test_one_common_class_does_not_make_every_feature_a_leak() -> None:
    label = (np.arange(4000) % 200 == 0) * 2.0
    found = single("multiclass", table("multiclass", label=label, narrow=label))
    assert found["narrow"] == 1
    assert found["wide"] == pytest.approx(0, abs=0.05), "its accuracy is 0.995, which is no news"


def test_a_small_sample_is_measured_and_the_work_is_bounded() -> None:
    rows = 200_000
    rng = np.random.default_rng(7)
    big = Table(
        rng.normal(size=(rows, 3)).astype(np.float32),
        (pa.array(rng.integers(0, 50_000, rows).astype(str), pa.large_string()).dictionary_encode(),) * 2,
        rng.integers(0, 3, rows).astype(np.float32),
    )
    begin = time.process_time()
    assert leaks.measure(make_spec("multiclass"), big)["rows"] == 50_000
    assert time.process_time() - begin < 30


def test_the_training_writes_the_figures(trained: Any) -> None:
    import json

    found = json.loads((Path(trained.out) / "features.json").read_text("utf-8"))
    assert set(found) == {"measure", "rows", "single"}
    assert found["rows"] == 1500
    assert set(found["single"]) == set(trained.spec.features.columns)

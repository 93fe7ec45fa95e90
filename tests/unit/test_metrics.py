"""The gates' metrics, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.errors import TrainingError
from pipelines.metrics import calibration_error, metrics
from pipelines.spec import GREATER_IS_BETTER


def test_binary_metrics_are_the_textbooks() -> None:
    found = metrics("binary", np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    assert found["auc"] == pytest.approx(0.75)
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)


def test_multiclass_metrics_are_the_textbooks() -> None:
    score = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    found = metrics("multiclass", np.array([0, 1]), score, 3)
    assert found == {"accuracy": 0.5, "log_loss": pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2)}


def test_regression_metrics_are_in_the_labels_unit() -> None:
    found = metrics("regression", np.array([10.0, 20.0]), np.array([13.0, 16.0]))
    assert found == {"rmse": pytest.approx(math.sqrt(12.5)), "mae": pytest.approx(3.5)}


def test_every_metric_says_which_way_is_better() -> None:
    names = metrics("binary", np.array([0, 1]), np.array([0.1, 0.9])).keys()
    names |= metrics("multiclass", np.array([0]), np.array([[0.5, 0.5]])).keys()
    names |= metrics("regression", np.array([0.0]), np.array([0.5])).keys()
    assert names == GREATER_IS_BETTER.keys()


def test_the_auc_of_one_class_is_nan_so_that_a_gate_fails_closed() -> None:
    found = metrics("binary", np.ones(3), np.array([0.5, 0.6, 0.7]))
    assert math.isnan(found["auc"])
    assert math.isfinite(found["log_loss"])
    assert not found["auc"] >= 0.0


@pytest.mark.parametrize(
    ("task", "score"),
    [("binary", [0.5, np.nan]), ("multiclass", [[0.5, 0.5], [np.inf, 0.0]]), ("regression", [1.0, np.nan])],
)
def test_a_score_that_is_no_number_makes_no_metric_look_good(task: str, score: list[float]) -> None:
    found = metrics(task, np.array([0.0, 1.0]), np.array(score))  # type: ignore[arg-type]
    assert all(math.isnan(value) for value in found.values())


def test_a_certain_and_wrong_score_costs_much_but_not_infinitely() -> None:
    assert 30 < metrics("binary", np.array([0, 1]), np.array([1.0, 1.0]))["log_loss"] * 2 < 40
    assert math.isfinite(metrics("multiclass", np.array([0]), np.array([[0.0, 1.0]]))["log_loss"])


@pytest.mark.parametrize(
    ("task", "label", "score", "said"),
    [
        ("binary", [], [], "shape"),
        ("binary", [0, 1], [0.5], "shape"),
        ("binary", [0, 1], [[0.5, 0.5], [0.5, 0.5]], "shape"),
        ("multiclass", [0, 1], [0.5, 0.5], "shape"),
        ("binary", [0, 2], [0.5, 0.5], "0 and 1"),
        ("binary", [0, np.nan], [0.5, 0.5], "0 and 1"),
        ("multiclass", [0, 2], [[0.5, 0.5], [0.5, 0.5]], "0 to 1"),
        ("regression", [0, np.inf], [0.5, 0.5], "finite"),
    ],
)
def test_labels_that_do_not_fit_are_named(task: str, label: list[float], score: list[float], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        metrics(task, np.array(label), np.array(score))  # type: ignore[arg-type]


def test_the_module_imports_neither_numpy_nor_sklearn_by_itself() -> None:
    import subprocess
    import sys

    code = "import sys, pipelines.metrics; print(sorted({'numpy', 'sklearn'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_calibration_error_is_the_mean_gap_of_its_bins() -> None:
    score = np.repeat(np.arange(15) / 20 + 0.1, 40)
    # In each bin two of forty rows less than predicted.
    wanted = np.tile(np.arange(40), 15) < np.repeat(2 * np.arange(15) + 2, 40)
    found = calibration_error("binary", wanted.astype(float), score)
    assert found == pytest.approx(0.05)
    assert calibration_error("binary", np.tile([0.0, 1.0], 50), np.full(100, 0.5)) == pytest.approx(0)
    assert calibration_error("binary", np.zeros(100), np.full(100, 0.3)) == pytest.approx(0.3)
    assert calibration_error("regression", np.zeros(3), np.zeros(3)) is None


def test_over_and_under_confidence_do_not_cancel_between_bins() -> None:
    score = np.repeat([0.2, 0.8], 100)
    label = np.concatenate([np.arange(100) < 40, np.arange(100) < 60]).astype(float)
    assert calibration_error("binary", label, score) == pytest.approx(0.2)


def test_of_classes_the_one_that_was_chosen_is_judged() -> None:
    score = np.tile([0.7, 0.2, 0.1], (100, 1))
    label = np.where(np.arange(100) < 60, 0, 1)
    assert calibration_error("multiclass", label, score) == pytest.approx(0.1)

"""The threshold of a decision: chosen on the validation rows as they are served, and kept with the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from pipelines.scoring.engine import Engine
from pipelines.training.decision import choose
from pipelines.training.entry import run
from pipelines.training.job import Job

from .conftest import Trained, make_spec, write

Rows = tuple[NDArray[np.float64], NDArray[np.float32]]


def rows(seed: int, count: int, distinct: int) -> Rows:
    """Labels, and scores that know something of them; few distinct ones are ties."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.3).astype(float)
    score = np.clip(0.25 * label + 0.6 * rng.random(count), 0, 1)
    return label, (np.round(score * distinct) / distinct).astype(np.float32)


def f1_score(label: NDArray[np.float64], decided: NDArray[np.bool_]) -> float:
    """By its definition: the harmonic mean of precision and recall."""
    right = int((label[decided] == 1).sum())
    if right == 0:
        return 0.0
    precision, recall = right / int(decided.sum()), right / int((label == 1).sum())
    return 2 * precision * recall / (precision + recall)


def best_f1(label: NDArray[np.float64], score: NDArray[np.float32]) -> float:
    """By trying every score there is."""
    return max(f1_score(label, score >= cut) for cut in np.unique(score))


def nearest_share(label: NDArray[np.float64], score: NDArray[np.float32]) -> int:
    """How far the number of positive decisions must be from that of positives, whatever the threshold."""
    return min(abs(int((score >= cut).sum()) - int(label.sum())) for cut in np.unique(score))


CASES = [rows(seed, count, distinct) for seed in range(4) for count, distinct in ((7, 4), (60, 10), (500, 10_000))]


@pytest.mark.parametrize("case", CASES)
def test_f1_is_the_highest_that_any_threshold_reaches(case: Rows) -> None:
    label, score = case
    assert f1_score(label, score >= choose("f1", label, score)) == pytest.approx(best_f1(label, score), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_prior_decides_as_many_positive_as_are_as_near_as_ties_let_it(case: Rows) -> None:
    label, score = case
    decided = int((score >= choose("prior", label, score)).sum())
    assert abs(decided - int(label.sum())) == nearest_share(label, score)


def test_of_thresholds_that_are_as_good_the_highest_is_chosen() -> None:
    label, score = np.array([1.0, 0, 0, 1]), np.array([0.9, 0.6, 0.5, 0.4], np.float32)
    assert f1_score(label, score >= 0.9) == pytest.approx(f1_score(label, score >= 0.4)), "both are 2/3"
    assert choose("f1", label, score) == pytest.approx(0.75)
    # One positive more than are, or one fewer: two thresholds are as near.
    label, score = np.array([1.0, 1, 0, 0]), np.array([0.9, 0.6, 0.6, 0.1], np.float32)
    assert choose("prior", label, score) == pytest.approx(0.75)


@pytest.mark.parametrize("rule", ["f1", "prior"])
def test_rows_of_one_score_are_decided_together(rule: Any) -> None:
    label, score = np.array([1.0, 0, 1, 0]), np.full(4, 0.3, np.float32)
    assert (score >= choose(rule, label, score)).all()


@pytest.mark.parametrize("rule", ["f1", "prior"])
@pytest.mark.parametrize("label", [np.zeros(4), np.ones(4)])
def test_rows_of_one_class_cannot_tell(rule: Any, label: NDArray[np.float64]) -> None:
    assert choose(rule, label, np.array([0.1, 0.2, 0.8, 0.9], np.float32)) == 0.5


@pytest.mark.parametrize("rule", ["f1", "prior"])
def test_a_score_that_is_no_number_cannot_tell(rule: Any) -> None:
    assert choose(rule, np.array([0.0, 1.0]), np.array([np.nan, 0.2], np.float32)) == 0.5


def test_a_threshold_between_neighbours_still_tells_them_apart() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    found = choose("f1", np.array([0.0, 1.0]), np.array([low, high], np.float32))
    assert low < found <= high
    assert np.float32(found) == found, "float32 has it"


@pytest.mark.parametrize(("model", "rule"), [("tabm", "f1"), ("lightgbm", "prior")])
def test_the_model_keeps_a_threshold_that_is_best_by_the_scores_that_are_served(
    model: str, rule: str, train_rule: Callable[[str, str], tuple[Path, Path]]
) -> None:
    data, out = train_rule(model, rule)
    about = json.loads((out / "model.json").read_text("utf-8"))
    assert about["threshold_by"] == rule
    validation = pl.read_parquet(data / "validation.parquet")
    label, score = validation.get_column("label").to_numpy(), Engine(out).score(validation)
    decided = score >= about["threshold"]
    if rule == "f1":
        assert f1_score(label, decided) == pytest.approx(best_f1(label, score), abs=1e-12)
    else:
        assert abs(int(decided.sum()) - int(label.sum())) == nearest_share(label, score)


@pytest.fixture(scope="module")
def train_rule(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """A small training: its data and its artifact."""

    def train(model: str, rule: str) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp(f"{model}-{rule}")
        small = {"teacher": {"k": 2, "width": 16, "depth": 1, "epochs": 1}, "student": {"widths": [16], "epochs": 1}}
        spec = make_spec("binary", model=model, threshold=rule, **small)
        data = write(root / "data", "binary")
        run(Job(spec=spec, data=data, out=root / "out", threads=1), lambda _: None)
        return data, root / "out"

    return train


def test_a_given_threshold_is_kept_as_float32_has_it_and_what_is_not_binary_has_none(trained: Trained) -> None:
    about = json.loads((trained.out / "model.json").read_text("utf-8"))
    assert about["threshold"] == (0.5 if trained.task == "binary" else None)
    assert about["threshold_by"] == ("given" if trained.task == "binary" else None)

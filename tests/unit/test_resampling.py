"""The bootstrap: against scikit-learn on repeated rows, by what it promises, and on what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, roc_auc_score, root_mean_squared_error

from pipelines import resampling
from pipelines.errors import TrainingError
from pipelines.metrics import metrics
from pipelines.resampling import interval, paired_gain, replicates, rows_needed, statistic
from pipelines.spec import Task

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def made(task: str, rows: int, seed: int = 0) -> Arrays:
    """Labels and scores that have to do with each other; binary scores with many ties."""
    rng = np.random.default_rng(seed)
    if task == "binary":
        label = (rng.random(rows) < 0.3).astype(float)
        return label, np.round(np.clip(0.3 + 0.2 * label + rng.normal(0, 0.2, rows), 0.01, 0.99), 1)
    if task == "multiclass":
        label = rng.integers(0, 3, rows).astype(float)
        raw = rng.random((rows, 3)) + np.eye(3)[label.astype(int)]
        return label, raw / raw.sum(axis=1, keepdims=True)
    label = rng.normal(40, 25, rows)
    return label, label + rng.standard_t(5, rows) * 10


PEERS = {
    ("binary", "auc"): roc_auc_score,
    ("binary", "log_loss"): log_loss,
    ("multiclass", "accuracy"): lambda label, score: accuracy_score(label, score.argmax(axis=1)),
    ("multiclass", "log_loss"): lambda label, score: log_loss(label, score, labels=[0, 1, 2]),
    ("regression", "rmse"): root_mean_squared_error,
    ("regression", "mae"): mean_absolute_error,
}


@pytest.mark.parametrize(("task", "metric"), PEERS)
def test_a_row_that_counts_three_times_is_a_row_that_is_there_three_times(task: Task, metric: str) -> None:
    label, score = made(task, 300)
    counts = np.random.default_rng(1).poisson(1, 300).astype(np.uint8)
    again = np.repeat(np.arange(300), counts)
    found = statistic(task, metric, label, score)(counts)
    assert found == pytest.approx(PEERS[task, metric](label[again], score[again]), rel=1e-12)


@pytest.mark.parametrize(("task", "metric"), PEERS)
def test_rows_that_count_once_give_the_scorecards_metric(task: Task, metric: str) -> None:
    label, score = made(task, 300)
    once = statistic(task, metric, label, score)(np.ones(300, np.uint8))
    assert once == pytest.approx(metrics(task, label, score)[metric], rel=1e-12)


def test_ties_count_half_and_a_score_that_is_the_same_everywhere_orders_nothing() -> None:
    label = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    counts = np.array([2, 1, 0, 3, 5], np.uint8)
    assert statistic("binary", "auc", label, np.full(5, 0.4))(counts) == 0.5
    assert statistic("binary", "auc", label, np.array([0.1, 0.1, 0.9, 0.3, 0.3]))(counts) == pytest.approx(
        (1 * 2 * 0.5 + 5 * (2 + 3 * 0.5)) / (6 * 5)
    )


def test_counts_are_poissons() -> None:
    values, times = np.unique(resampling._POISSON, return_counts=True)
    shares = times / times.sum()
    wanted = [math.exp(-1) / math.factorial(int(k)) for k in values]
    assert shares == pytest.approx(wanted, abs=1 / 65_536)
    assert (resampling._POISSON.mean(), resampling._POISSON.var()) == (pytest.approx(1, abs=1e-4),) * 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_draws_the_same(threads: int) -> None:
    label, score = made("binary", 200)
    of = [statistic("binary", name, label, score) for name in ("auc", "log_loss")]
    one = replicates(of, 200, resamples=110, seed=3, threads=1)
    assert one.shape == (110, 2)
    assert (replicates(of, 200, resamples=110, seed=3, threads=threads) == one).all()
    assert not (replicates(of, 200, resamples=110, seed=4, threads=threads) == one).any()
    assert len(np.unique(one[:, 0])) > 50, "chunks repeat each other"


def test_a_model_gains_nothing_over_itself() -> None:
    label, score = made("binary", 200)
    found = paired_gain("binary", "auc", label, score, score, level=0.95, resamples=100, seed=1)
    assert (found.value, found.low, found.high, found.deviation) == (0, 0, 0, 0)


@pytest.mark.parametrize(("task", "metric"), PEERS)
def test_better_is_positive_whichever_way_the_metric_goes(task: Task, metric: str) -> None:
    label, score = made(task, 400)
    rng = np.random.default_rng(2)
    worse = rng.permutation(score)
    arguments: dict[str, Any] = {"level": 0.95, "resamples": 200, "seed": 1}
    found = paired_gain(task, metric, label, score, worse, **arguments)
    turned = paired_gain(task, metric, label, worse, score, **arguments)
    assert 0 < found.low < found.value < found.high
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    own, theirs = (metrics(task, label, each)[metric] for each in (score, worse))
    assert abs(own - theirs) == pytest.approx(found.value)


def test_pairing_takes_out_what_both_models_share() -> None:
    label, score = made("binary", 1000)
    near = np.clip(score + np.random.default_rng(3).normal(0, 0.01, 1000), 0, 1)
    of = [statistic("binary", "auc", label, each) for each in (score, near)]
    found = replicates(of, 1000, resamples=200, seed=1)
    assert found[:, 0].std() > 5 * (found[:, 0] - found[:, 1]).std()


def test_the_deviation_is_the_textbooks_where_there_is_one() -> None:
    label, score = made("regression", 2000)
    of = statistic("regression", "mae", label, score)
    found = interval(of(np.ones(2000, np.uint8)), replicates([of], 2000, resamples=1000, seed=1)[:, 0], 0.95)
    textbook = np.abs(score - label).std() / math.sqrt(2000)
    assert found.deviation == pytest.approx(textbook, rel=0.08)
    assert found.value - found.low == pytest.approx(1.645 * textbook, rel=0.15)
    assert (found.level, found.resamples) == (0.95, 1000)


def test_each_end_is_the_further_out_of_two() -> None:
    skewed = np.random.default_rng(0).lognormal(0, 1, 4000)
    found = interval(float(skewed.mean()), skewed, 0.95)
    reach = 1.6448536 * skewed.std(ddof=1)
    assert found.high == pytest.approx(max(found.value + reach, np.quantile(skewed, 0.95)))
    assert found.low == pytest.approx(min(found.value - reach, np.quantile(skewed, 0.05)))
    flat = interval(1.0, np.repeat([0.0, 1.0, 2.0], [300, 400, 300]), 0.95)
    assert (flat.low, flat.high) == (pytest.approx(-0.2747, abs=1e-3), pytest.approx(2.2747, abs=1e-3))
    wide = interval(0.0, np.concatenate([np.full(60, -9.0), np.zeros(880), np.full(60, 9.0)]), 0.95)
    assert (wide.low, wide.high) == (-9, 9)


def test_ends_are_missed_as_often_as_they_say() -> None:
    missed, trials = np.zeros(2), 400
    for trial in range(trials):
        rng = np.random.default_rng([11, trial])
        label = (rng.random(300) < 0.3).astype(float)
        shared = rng.normal(0, 1, 300)
        mine, other = (label + shared + rng.normal(0, 0.5, 300) for _ in range(2))
        found = paired_gain("binary", "auc", label, mine, other, level=0.9, resamples=200, seed=trial, threads=1)
        missed += (found.low > 0, found.high < 0)
    # 10% outside each end, give or take three binomial deviations of 0.015.
    assert (missed / trials).tolist() == [pytest.approx(0.1, abs=0.045)] * 2


@pytest.mark.parametrize(
    ("task", "metric", "label", "score", "why"),
    [
        ("binary", "auc", [1, 1, 1], [0.1, 0.2, 0.3], "every label is 1"),
        ("binary", "auc", [0, 1, 1], [0.1, math.nan, 0.3], "1 scores are not finite"),
        ("regression", "rmse", [0, 1], [0.1, math.inf], "1 scores are not finite"),
        ("binary", "auc", [0, 1, 1], [0.1, 0.2], "do not go with scores"),
        ("binary", "auc", [0, 1, math.nan], [0.1, 0.2, 0.3], "labels such as nan"),
        ("binary", "auc", [], [], "do not go with scores"),
        ("binary", "rmse", [0, 1], [0.1, 0.2], "'rmse' is no mean over rows of task binary"),
        ("regression", "auc", [0, 1], [0.1, 0.2], "'auc' is no mean over rows of task regression"),
    ],
)
def test_what_cannot_be_measured_is_refused(task: Task, metric: str, label: Any, score: Any, why: str) -> None:
    with pytest.raises(TrainingError, match=why):
        statistic(task, metric, np.array(label, float), np.array(score, float))


def test_models_of_other_rows_are_not_paired() -> None:
    label, score = made("binary", 50)
    with pytest.raises(TrainingError, match="do not go with scores"):
        paired_gain("binary", "auc", label, score, score[:-1], level=0.95, resamples=100, seed=1)


def test_a_metric_that_most_resamples_leave_undefined_has_no_interval() -> None:
    label, score = np.zeros(60), np.linspace(0, 1, 60)
    label[:1] = 1  # missing from every third resample
    with pytest.raises(TrainingError, match="do not define it"):
        paired_gain("binary", "auc", label, score, score[::-1], level=0.95, resamples=100, seed=1)
    label[:10] = 1
    assert paired_gain("binary", "auc", label, score, score[::-1], level=0.95, resamples=100, seed=1).resamples == 100


def test_rows_needed_are_the_textbooks_and_fall_with_the_gain_that_must_be_seen() -> None:
    needed = rows_needed(0.01, 1000, 0.02, level=0.95, power=0.8)
    assert needed == math.ceil(1000 * ((1.6448536 + 0.8416212) * 0.01 / 0.02) ** 2) == 1546
    assert rows_needed(0.01, 1000, 0.04, level=0.95, power=0.8) == pytest.approx(needed / 4, abs=1)
    assert rows_needed(0.01 / math.sqrt(2), 2000, 0.02, level=0.95, power=0.8) == pytest.approx(needed, abs=1)
    assert rows_needed(0.0, 1000, 0.02, level=0.95, power=0.8) == 1

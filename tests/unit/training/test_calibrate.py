"""Probabilities: each method undoes what it can, keeps the order of rows, and says when the rows cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pipelines.training import calibrate
from pipelines.training.calibrate import Calibration


def drawn(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """True logits and outcomes."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, generator=draw) * 2 - 1
    return logits, (torch.rand(rows, generator=draw) < logits.sigmoid()).float()


def distorted(logits: Tensor) -> Tensor:
    """Rises, but bent and shifted: no division brings it back. [n, 1]"""
    return (torch.where(logits > 0, 4 * logits, 0.3 * logits) + 1.5)[:, None]


def loss(calibration: Calibration, logits: Tensor, target: Tensor) -> float:
    score = calibrate.apply(calibration, "binary", logits)
    return functional.binary_cross_entropy(score, target.double()).item()


def test_isotonic_undoes_on_new_rows_a_distortion_that_a_temperature_cannot() -> None:
    (logits, target), (fresh, outcome) = drawn(5000), drawn(20_000, seed=1)
    best = functional.binary_cross_entropy_with_logits(fresh, outcome).item()
    bent = {
        method: calibrate.fit("binary", distorted(logits), target, method) for method in ("isotonic", "temperature")
    }
    assert loss(bent["isotonic"], distorted(fresh), outcome) < best + 0.005
    assert loss(bent["temperature"], distorted(fresh), outcome) > best + 0.05
    score = calibrate.apply(bent["isotonic"], "binary", distorted(fresh))
    assert score.mean().item() == pytest.approx(outcome.mean().item(), abs=0.015)


def test_auto_takes_what_is_better_on_rows_that_it_was_not_fitted_on_and_says_both_losses() -> None:
    logits, target = drawn(6000)
    bent = calibrate.fit("binary", distorted(logits), target, "auto")
    assert bent.method == "isotonic"
    assert bent.losses["isotonic"] < bent.losses["temperature"] - 0.02
    sharp = calibrate.fit("binary", 3 * logits[:, None], target, "auto")
    assert sharp.method == "temperature"
    assert sharp.losses["temperature"] < sharp.losses["isotonic"]
    # On its own rows isotonic is always the better one: the choice was not made there.
    own = calibrate.fit("binary", 3 * logits[:, None], target, "isotonic")
    assert loss(own, 3 * logits[:, None], target) < loss(sharp, 3 * logits[:, None], target)


@pytest.mark.parametrize(("rows", "positives"), [(999, 500), (3000, 49), (3000, 2951)])
def test_few_rows_or_few_of_a_class_leave_auto_no_choice_but_a_temperature(rows: int, positives: int) -> None:
    logits = distorted(torch.linspace(-3, 3, rows))
    target = (torch.arange(rows) % rows < positives).float()
    found = calibrate.fit("binary", logits, target, "auto")
    assert not found.losses
    assert not found.knots


def test_the_knots_are_few_rise_strictly_and_are_never_0_or_1() -> None:
    logits = torch.linspace(-8, 8, 9000)[:, None]
    target = (logits[:, 0] > 0).float()  # separable: whole blocks of one class
    knots = np.array(calibrate.fit("binary", logits, target, "isotonic").knots, np.float32)
    assert 2 <= len(knots) <= 64
    assert (np.diff(knots[:, 0]) > 5e-5).all(), "no line is too steep for float32"
    assert (np.diff(knots[:, 1]) > 0).all()
    assert knots[0, 0] == np.float32(-8)
    assert knots[-1, 0] == np.float32(8)
    assert knots[:, 1].min() > 0
    assert knots[:, 1].max() < 1


@given(
    st.lists(st.tuples(st.sampled_from([-5.0, -1.0, -0.5, 0.0, 0.25, 2.0, 1e-7, 30.0]), st.booleans()), min_size=2),
    st.sampled_from(["isotonic", "auto", "temperature", "none"]),
)
@settings(max_examples=60, deadline=None)
def test_equal_logits_score_equally_and_no_two_rows_change_order(rows: list[tuple[float, bool]], method: str) -> None:
    logits = torch.tensor([[logit] for logit, _ in rows] * 30)
    target = torch.tensor([float(positive) for _, positive in rows] * 30)
    found = calibrate.fit("binary", logits, target, method)  # type: ignore[arg-type]
    order = logits[:, 0].argsort()
    score = calibrate.apply(found, "binary", logits)[order]
    # A vectorised sigmoid and the one for the last few rows differ by an ulp.
    assert (score.diff() >= -1e-14).all()
    assert score.diff()[logits[order, 0].diff() == 0].abs().max() < 1e-14
    if found.knots:
        assert ((score > 0) & (score < 1)).all()


def test_rows_without_an_error_do_not_ask_for_certainty() -> None:
    logits = torch.tensor([[-4.0], [4.0]] * 30)
    found = calibrate.fit("binary", logits, (logits[:, 0] > 0).float(), "temperature")
    assert 0.99 < calibrate.apply(found, "binary", torch.tensor([[4.0]])).item() < 0.995


def test_the_auc_stays_as_it_was() -> None:
    logits, target = drawn(5000)
    found = calibrate.fit("binary", distorted(logits), target, "isotonic")
    score = calibrate.apply(found, "binary", distorted(logits)).float()
    assert roc_auc_score(target, score) == pytest.approx(roc_auc_score(target, logits), abs=1e-5)
    assert len(score.unique()) > 0.99 * len(logits.unique())


@pytest.mark.parametrize("method", ["auto", "isotonic", "temperature"])
@pytest.mark.parametrize("rows", [40, 4000])
def test_validation_rows_of_one_class_or_of_one_logit_of_no_news_leave_the_logits_alone(method: str, rows: int) -> None:
    logits, _ = drawn(rows)
    for target in (torch.zeros(rows), torch.ones(rows)):
        assert calibrate.fit("binary", logits[:, None], target, method) == Calibration()  # type: ignore[arg-type]
    half = (torch.arange(rows) % 2).float()
    assert calibrate.fit("binary", torch.zeros(rows, 1), half, method).method == "none"  # type: ignore[arg-type]


def test_constant_logits_give_the_base_rate_as_far_as_a_temperature_can() -> None:
    target = (torch.arange(4000) % 4 == 0).float()
    found = calibrate.fit("binary", torch.full((4000, 1), -2.0), target, "isotonic")
    assert found.method == "temperature"
    assert calibrate.apply(found, "binary", torch.full((1, 1), -2.0)).item() == pytest.approx(0.25, abs=1e-4)


def test_none_asks_for_nothing_and_several_classes_get_a_temperature() -> None:
    logits, target = drawn(4000)
    assert calibrate.fit("binary", 3 * logits[:, None], target, "none") == Calibration()
    assert calibrate.fit("regression", logits[:, None], logits, "auto") == Calibration()
    three = torch.stack([torch.zeros(4000), 3 * logits, torch.full((4000,), -60.0)], dim=1)
    shares = torch.stack([1 - target, target, torch.zeros(4000)], dim=1)
    found = calibrate.fit("multiclass", three, shares, "auto")
    assert found.method == "temperature"
    assert found.temperature == pytest.approx(3, rel=0.15)
    assert calibrate.apply(found, "multiclass", three).sum(1).allclose(torch.ones(4000, dtype=torch.float64))

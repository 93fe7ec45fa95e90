"""Rows weigh as a column and their class say; scores are probabilities at the real shares all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.errors import TrainingError
from pipelines.training import entry, weights
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.data import Table, read
from pipelines.training.job import Job
from pipelines.training.prepare import fit
from pipelines.training.scorecards import OnnxScorer

from .conftest import Columns, make_spec, write

PARTS = ("train", "validation", "holdout")


def table(label: list[float], weight: list[float] | None = None) -> Table:
    given = None if weight is None else np.array(weight, np.float32)
    return Table(np.zeros((len(label), 0), np.float32), (), np.array(label, np.float32), given)


def trained(folder: Path, task: str, data: Path, **training: Any) -> tuple[Path, np.ndarray, Table]:
    """The artifact, its scores of the holdout, and the holdout."""
    spec = make_spec(task, **training)
    entry.run(Job(spec=spec, data=data, out=folder, threads=1), lambda _: None)
    holdout = read(spec, data / "holdout.parquet")
    return folder, np.asarray(OnnxScorer(folder / "model.onnx", spec, 1)(holdout)), holdout


def rarer(old: Columns) -> Columns:
    """One positive in eight; of three classes, the last two are rare."""
    keep = (old["label"] == 0) | (np.arange(len(old["id"])) % 7 == 0)
    return {name: [value for value, kept in zip(values, keep, strict=True) if kept] for name, values in old.items()}


def test_balanced_classes_weigh_the_same_in_all_and_rows_one_on_average() -> None:
    spec = make_spec("multiclass", class_weight="balanced")
    rows = table([0, 0, 0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1, 2, 4])
    by_class = weights.by_class(spec, rows)
    assert by_class is not None
    assert by_class.tolist() == [1, 1, 1], "6 and 2 + 4; the third does not occur"
    even = table([0, 0, 0, 0, 0, 0, 1, 1])
    found = weights.of_rows(even, weights.by_class(spec, even))
    assert found is not None
    assert found.mean() == pytest.approx(1)
    assert found[:6].sum() == pytest.approx(found[6:].sum())
    assert weights.by_class(make_spec("multiclass"), rows) is None
    assert weights.of_rows(even) is None


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_shares_come_back_by_the_bias_as_bayes_says(outputs: int) -> None:
    classes = np.array([0.5, 4.0] if outputs == 1 else [0.5, 4.0, 1.0])
    logits = nn.Linear(4, outputs)
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    raw = logits(x).detach()
    weighted = torch.cat([1 - raw.sigmoid(), raw.sigmoid()], 1) if outputs == 1 else raw.softmax(1)
    real = weighted / torch.from_numpy(classes).float()
    real = real / real.sum(1, keepdim=True)
    weights.restore_shares(logits.bias, classes)
    found = logits(x).detach()
    if outputs == 1:
        torch.testing.assert_close(found.sigmoid()[:, 0], real[:, 1])
    else:
        torch.testing.assert_close(found.softmax(1), real)


@pytest.mark.parametrize("probabilities", ["auto", "none"])
def test_with_balanced_classes_the_mean_score_is_the_base_rate(tmp_path: Path, probabilities: str) -> None:
    data = write(tmp_path / "data", "binary", **dict.fromkeys(PARTS, rarer))
    out, score, holdout = trained(
        tmp_path / "out", "binary", data, class_weight="balanced", probabilities=probabilities
    )
    rate = holdout.label.mean()
    assert rate < 0.25
    assert score.mean() == pytest.approx(rate, abs=0.05)
    teacher = json.loads((out / "scorecards.json").read_text("utf-8"))[0]
    assert teacher["model"] == "teacher"
    assert teacher["metrics"]["log_loss"] < 0.36, "0.49 is what the rate alone gives"


def test_with_balanced_classes_each_mean_probability_is_its_share(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "multiclass", **dict.fromkeys(PARTS, rarer))
    _, score, holdout = trained(tmp_path / "out", "multiclass", data, class_weight="balanced")
    shares = np.bincount(holdout.label.astype(int), minlength=3) / len(holdout)
    assert shares.min() < 0.15
    np.testing.assert_allclose(score.mean(0), shares, atol=0.06)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_of_no_weight_teach_nothing(tmp_path: Path, task: str) -> None:
    """Half of the labels are nonsense and weigh nothing: the models are as good as without them."""

    def spoiled(old: Columns) -> Columns:
        bad = np.arange(len(old["id"])) % 2 == 0
        label = np.array(old["label"])
        top = label.max()
        return old | {"label": np.where(bad, top - label, label), "weight": np.where(bad, 0.0, 3.0)}

    def fair(old: Columns) -> Columns:
        return old | {"weight": [1] * len(old["id"])}

    data = write(tmp_path / "data", task, train=spoiled, validation=fair, holdout=fair)
    usual = make_spec(task).training
    how = usual.teacher.model_dump() | {"epochs": 8}
    alone = usual.student.model_dump() | {"soft_share": 0.0, "epochs": 10}  # no teacher mends its labels
    out, _, _ = trained(tmp_path / "out", task, data, sample_weight="wide", teacher=how, student=alone)
    cards = {card["model"]: card["metrics"] for card in json.loads((out / "scorecards.json").read_text("utf-8"))}
    loss = "rmse" if task == "regression" else "log_loss"
    for name in ("teacher", "student_fp32", "student_int8", "lightgbm"):
        assert cards[name][loss] < 0.85 * cards["constant"][loss], name


def test_lightgbm_and_the_constant_weigh_rows_alike(tmp_path: Path) -> None:
    spec, data = make_spec("binary"), write(tmp_path, "binary")
    train, validation = (read(spec, data / f"{part}.parquet") for part in ("train", "validation"))
    weight = np.where(train.label == 1, 3.0, 1.0).astype(np.float32)
    share = train.label.mean()
    assert Constant("binary", 1, train, weight=weight)(train)[0] == pytest.approx(3 * share / (1 + 2 * share), rel=1e-5)
    held = np.where(validation.label == 1, 3.0, 1.0).astype(np.float32)
    plain, heavy = (
        LightGbm("binary", 1, fit(train), train, validation, 1, 0, weights=given)(validation).mean()
        for given in (None, (weight, held))
    )
    assert heavy > plain + 0.05


@pytest.mark.parametrize(
    ("part", "bad", "said"),
    [
        ("train", [-1.0, float("nan"), None], r"train\.parquet column 'weight': 3 of 1500 weights are null, negative"),
        ("validation", [float("inf")], r"validation\.parquet column 'weight': 1 of 300 weights"),
        ("holdout", [-float("inf")], r"holdout\.parquet column 'weight': 1 of 400 weights"),
    ],
)
def test_weights_that_are_none_are_counted_and_their_file_named(
    tmp_path: Path, part: str, bad: list[Any], said: str
) -> None:
    def weigh(old: Columns) -> Columns:
        return old | {"weight": [1.0] * len(old["id"])}

    def spoil(old: Columns) -> Columns:
        return old | {"weight": [*bad, *[1.0] * (len(old["id"]) - len(bad))]}

    data = write(tmp_path / "data", "binary", **(dict.fromkeys(PARTS, weigh) | {part: spoil}))
    with pytest.raises(TrainingError, match=said):
        trained(tmp_path / "out", "binary", data, sample_weight="wide")


def test_weights_of_nothing_or_of_one_class_or_missing_are_refused(tmp_path: Path) -> None:
    def weigh(one: float, zero: float) -> dict[str, Any]:
        return dict.fromkeys(PARTS, lambda old: old | {"weight": np.where(old["label"] == 1, one, zero)})

    for name, data, said in (
        ("none", weigh(0.0, 0.0), "all 1500 weights are 0"),
        ("class", weigh(1.0, 0.0), r"rows that weigh anything: every label is 1"),
        ("missing", {}, "columns are missing: weight"),
    ):
        folder = write(tmp_path / name, "binary", **data)
        with pytest.raises(TrainingError, match=said):
            trained(tmp_path / "out", "binary", folder, sample_weight="wide")

"""From the raw row to the score: torch, fp32 ONNX and int8 ONNX agree, on kind rows and on hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from pipelines.metrics import metrics
from pipelines.training import data, prepare
from pipelines.training.data import Table
from pipelines.training.networks import Student

from .conftest import Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

INF = float("inf")
#: Rows that a source may send one day: nulls, words never seen, infinities, numbers past float32's range.
HOSTILE: dict[str, list[Any]] = {
    "wide": [None, INF, -INF, 1e30, -1e30, 1e300, 0.0, float("nan"), 20.0],
    "narrow": [None, -INF, INF, -1e30, 1e30, -1e300, 0.0, 0.0, 0.001],
    "gaps": [None, INF, None, 1e30, -1e30, 1e300, 5.0, float("nan"), 5.0],
    "colour": [None, "ultraviolet", "", "rare", "red", "RED", "nan", "None", "Grün\u0000"],
    "shape": [None, "tesseract", "x" * 10_000, "rare", "round", " round", "<NA>", "square", "round"],
}


def raw_table(columns: dict[str, list[Any]]) -> Table:
    numeric = np.array([columns[name] for name in ("wide", "narrow", "gaps")], np.float64).T
    with np.errstate(over="ignore"):
        narrow = numeric.astype(np.float32)
    words = tuple(pa.array(columns[name], pa.large_string()).dictionary_encode() for name in ("colour", "shape"))
    return Table(narrow, words, np.zeros(len(narrow), np.float32))


def torch_scores(trained: Trained, table: Table) -> NDArray[np.float32]:
    """The student's own arithmetic, from its weights and the training rows alone."""
    preparation = prepare.fit(data.read(trained.spec, trained.data / "train.parquet"))
    about = json.loads((trained.out / "model.json").read_text("utf-8"))
    student = Student(trained.spec.training.student, preparation, len(about["classes"]) or 1)
    student.load_state_dict(load_file(trained.out / "student.safetensors"))
    encoded = preparation.encode(table)
    with torch.no_grad():
        logits = student(*(torch.from_numpy(part) for part in (encoded.numeric, encoded.missing, encoded.codes)))[:, 0]
        if trained.task == "multiclass":
            return (logits / about["calibration"]["temperature"]).softmax(-1).numpy()
        if trained.task == "binary":
            return (logits[:, 0] / about["calibration"]["temperature"]).sigmoid().numpy()
        return (logits[:, 0] * about["label_scale"] + about["label_mean"]).numpy()


def onnx_scores(trained: Trained, file: str, table: Table, tile: int = 10_000) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(trained.out / file, providers=["CPUExecutionProvider"])
    feeds = table.feeds(["wide", "narrow", "gaps"], ["colour", "shape"])
    return np.concatenate(
        [
            session.run(["score"], {name: values[start : start + tile] for name, values in feeds.items()})[0]
            for start in range(0, len(table), tile)
        ]
    )


def spread(trained: Trained) -> float:
    """The size of one step of the score: 1 for probabilities, the label's standard deviation for a regression."""
    return float(json.loads((trained.out / "model.json").read_text("utf-8"))["label_scale"])


def test_the_graph_scores_raw_rows_as_torch_does(trained: Trained) -> None:
    holdout = data.read(trained.spec, trained.data / "holdout.parquet")
    ours, graph = torch_scores(trained, holdout), onnx_scores(trained, "student_fp32.onnx", holdout)
    assert graph.shape == ((400, 3) if trained.task == "multiclass" else (400,))
    np.testing.assert_allclose(graph, ours, rtol=0, atol=1e-5 * spread(trained))


def test_hostile_rows_get_finite_scores_that_are_torchs_too(trained: Trained) -> None:
    table = raw_table(HOSTILE)
    graph = onnx_scores(trained, "student_fp32.onnx", table)
    assert np.isfinite(graph).all()
    np.testing.assert_allclose(graph, torch_scores(trained, table), rtol=0, atol=1e-5 * spread(trained))
    assert np.isfinite(onnx_scores(trained, "model.onnx", table)).all()


def test_int8_stays_close_to_fp32(trained: Trained) -> None:
    holdout = data.read(trained.spec, trained.data / "holdout.parquet")
    fp32, int8 = onnx_scores(trained, "student_fp32.onnx", holdout), onnx_scores(trained, "model.onnx", holdout)
    assert np.abs(fp32 - int8).mean() < 0.02 * spread(trained)
    assert not np.array_equal(fp32, int8), "nothing was quantized"
    if trained.task == "binary":
        lost = metrics("binary", holdout.label, fp32)["auc"] - metrics("binary", holdout.label, int8)["auc"]
        assert lost < 0.005


@pytest.mark.parametrize("file", ["student_fp32.onnx", "model.onnx"])
def test_a_rows_score_does_not_depend_on_the_rows_beside_it(trained: Trained, file: str) -> None:
    holdout = data.read(trained.spec, trained.data / "holdout.parquet").take(np.arange(33))
    whole = onnx_scores(trained, file, holdout)
    for tile in (1, 7, 32):
        np.testing.assert_allclose(
            onnx_scores(trained, file, holdout, tile), whole, rtol=0, atol=2e-6 * spread(trained)
        )


def test_null_words_mean_missing_however_they_are_spelled(trained: Trained) -> None:
    session = onnxruntime.InferenceSession(trained.out / "model.onnx", providers=["CPUExecutionProvider"])
    spelled = np.array(["", None, float("nan"), "nan"], dtype=object)
    feeds = {name: np.full(4, 1.0, np.float32) for name in ("wide", "narrow", "gaps")}
    scores = session.run(["score"], {**feeds, "colour": np.array(["red"] * 4, dtype=object), "shape": spelled})[0]
    assert (scores == scores[0]).all()
    other = session.run(
        ["score"],
        {**feeds, "colour": np.array(["red"] * 4, dtype=object), "shape": np.array(["unseen"] * 4, dtype=object)},
    )[0]
    assert (other != scores).any(), "missing is not the same as unseen"


def test_an_empty_batch_gives_no_scores(trained: Trained) -> None:
    session = onnxruntime.InferenceSession(trained.out / "model.onnx", providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {name: np.empty(0, np.float32) for name in ("wide", "narrow", "gaps")}
    feeds |= {name: np.empty(0, dtype=object) for name in ("colour", "shape")}
    assert len(session.run(["score"], feeds)[0]) == 0


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_are_probabilities(train_once: Callable[[str], Trained], task: str) -> None:
    scores = onnx_scores(train_once(task), "model.onnx", raw_table(HOSTILE))
    assert ((scores >= 0) & (scores <= 1)).all()
    if task == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)

"""Compression: which layers become int8, what fp16 does, on which rows ranges are calibrated, and that scores agree
from the raw row through torch and every graph, on rows that a source may send one day.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from pipelines.spec import UseCase
from pipelines.training import compress, data, graph, prepare, quantize
from pipelines.training.calibrate import Calibration
from pipelines.training.compress import Compression, Scale
from pipelines.training.data import Table
from pipelines.training.job import Job
from pipelines.training.networks import Student
from pipelines.training.session import Session

from .conftest import Trained, make_spec
from .test_parity import HOSTILE, raw_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

KNOTS = ((-3.0, 0.01), (-1.0, 0.2), (-0.999, 0.35), (0.5, 0.4), (2.0, 0.97))


class Made:
    """The files that compression makes of a trained student, with a calibration and settings of the test's own."""

    def __init__(
        self,
        trained: Trained,
        out: Path,
        calibration: Calibration | None = None,
        max_loss: float = 0.005,
        **training: Any,
    ) -> None:
        out.mkdir()
        about = json.loads((trained.out / "model.json").read_text("utf-8"))
        told = make_spec(trained.task, **training).model_dump()
        told["gates"]["max_loss_to_fp32"] = max_loss
        self.spec = UseCase.model_validate(told)
        self.train = data.read(self.spec, trained.data / "train.parquet")
        self.validation = data.read(self.spec, trained.data / "validation.parquet")
        self.preparation = prepare.fit(self.train)
        self.student = Student(trained.spec.training.student, self.preparation, len(about["classes"]) or 1)
        self.student.load_state_dict(load_file(trained.out / "student.safetensors"))
        self.calibration = calibration or Calibration(temperature=about["calibration"]["temperature"])
        self.label, self.out = Scale(about["label_mean"], about["label_scale"]), out
        self.task = trained.task

    def write(self) -> Compression:
        job = Job(spec=self.spec, data=self.out, out=self.out)
        session = Session(job=job, device=torch.device("cpu"), threads=1, progress=lambda _: None)
        return compress.write(
            session, self.preparation, self.student, self.calibration, self.label, self.train, self.validation
        )

    def torch_scores(self, table: Table) -> NDArray[np.float64]:
        encoded = self.preparation.encode(table)
        with torch.no_grad():
            parts = (encoded.numeric, encoded.missing, encoded.codes)
            logits = self.student(*map(torch.from_numpy, parts))[:, 0].double()
        if self.calibration.knots:
            return np.interp(logits[:, 0].numpy(), *np.array(self.calibration.knots).T)
        if self.task == "regression":
            return (logits[:, 0] * self.label.scale + self.label.mean).numpy()
        calm = logits / self.calibration.temperature
        return (calm.softmax(1) if self.task == "multiclass" else calm[:, 0].sigmoid()).numpy()

    def onnx_scores(self, file: str, table: Table, tile: int = 10_000) -> NDArray[np.float32]:
        session = onnxruntime.InferenceSession(self.out / file, providers=["CPUExecutionProvider"])
        feeds = table.feeds(self.spec.features.numeric, self.spec.features.categorical)
        starts = range(0, len(table), tile)
        tiles = [{name: values[i : i + tile] for name, values in feeds.items()} for i in starts]
        return np.concatenate([session.run(["score"], fed)[0] for fed in tiles])


def hostile(rows: int) -> Table:
    """Combinations that a seed draws of the hostile values; among the first rows, strings of a megabyte."""
    rng = np.random.default_rng(1)
    columns = {name: [values[i] for i in rng.integers(0, len(values), rows)] for name, values in HOSTILE.items()}
    columns["shape"][2], columns["colour"][5] = "x" * 2**20, "é" * 2**19
    return raw_table(columns)


def quantized_layers(file: Path) -> set[str]:
    """Layers whose weights are int8."""
    model = onnx.load(file)
    made = {out: node for node in model.graph.node for out in node.output}
    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    return {node.name for node in gemms if node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear"}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "isotonic"])
@pytest.mark.parametrize("method", ["int8", "fp16"])
def test_every_form_of_the_student_scores_hostile_rows_alike_at_every_batch_size(
    train_once: Callable[[str], Trained], task: str, method: str, tmp_path: Path
) -> None:
    isotonic = Calibration(knots=KNOTS) if task == "isotonic" else None
    made = Made(train_once("binary" if isotonic else task), tmp_path / "out", isotonic, compression=method)
    made.write()
    scale = made.label.scale
    # Between the two close knots the score rises by 150 for 1 of the logit: rounded logits do not score alike there.
    close = 2e-3 if isotonic else 1e-5
    table = hostile(4096 + 7 + 1)
    truth = made.torch_scores(table)
    full, small = made.onnx_scores(compress.FP32, table), made.onnx_scores(compress.MODEL, table)
    assert np.isfinite(full).all()
    assert np.isfinite(small).all()
    np.testing.assert_allclose(full, truth, rtol=0, atol=close * scale)
    assert not np.array_equal(full, small), "nothing was compressed"
    if method == "fp16":
        np.testing.assert_allclose(small, full, rtol=0, atol=(0.16 if isotonic else 0.01) * scale)
    assert np.abs(small - full).mean() < (0.002 if method == "fp16" else 0.05) * scale
    if task != "regression":
        assert ((small >= 0) & (small <= 1)).all()
    for rows in (1, 7, 4096):
        part = table.take(np.arange(rows))
        for file, whole in ((compress.FP32, full), (compress.MODEL, small)):
            alone = made.onnx_scores(file, part)
            np.testing.assert_allclose(alone, whole[:rows], rtol=0, atol=close * scale)


def test_isotonic_scores_rise_with_the_logit_and_stay_between_the_outer_knots(binary: Trained, tmp_path: Path) -> None:
    made = Made(binary, tmp_path / "out", Calibration(knots=KNOTS), compression="none")
    made.write()
    holdout = data.read(binary.spec, binary.data / "holdout.parquet")
    plain = Made(binary, tmp_path / "plain", Calibration(), compression="none")
    plain.write()
    order = np.argsort(plain.onnx_scores(compress.FP32, holdout), kind="stable")
    scores = made.onnx_scores(compress.FP32, holdout)[order]
    assert (np.diff(scores) >= -1e-6).all()
    assert scores.min() >= np.float32(0.01)
    assert scores.max() <= np.float32(0.97)
    assert scores.min() < 0.2 < scores.max()


@pytest.mark.parametrize("knots", [KNOTS, KNOTS[:2], tuple((x / 8, 0.01 + x / 80) for x in range(64))])
def test_a_rows_isotonic_score_is_the_same_bytes_wherever_it_lies(
    binary: Trained, tmp_path: Path, knots: tuple[tuple[float, float], ...]
) -> None:
    made = Made(binary, tmp_path / "out", Calibration(knots=knots))
    made.write()
    table = hostile(1024)
    scores = made.onnx_scores(compress.MODEL, table)
    assert len(np.unique(scores)) > 2
    for shift in (1, 2, 3, 5, 64):
        order = np.roll(np.arange(len(table)), shift)
        assert made.onnx_scores(compress.MODEL, table.take(order)).tobytes() == scores[order].tobytes()


@pytest.mark.parametrize("calibration", [Calibration(knots=KNOTS), Calibration(temperature=1.5)])
def test_only_layers_are_quantized_never_what_makes_scores_of_logits(
    binary: Trained, calibration: Calibration, tmp_path: Path
) -> None:
    made = Made(binary, tmp_path / "out", calibration, sensitive_layers="int8")
    made.write()
    nodes = onnx.load(made.out / "model.onnx").graph.node
    dequantized = {out for node in nodes if node.op_type == "DequantizeLinear" for out in node.output}
    readers = {node.op_type for node in nodes if dequantized & set(node.input)}
    assert readers == {"Gemm"}


@pytest.mark.parametrize(
    ("asked", "allowed", "chosen"),
    [("int8", 0.0, "int8"), ("fp32", 1.0, "fp32"), ("auto", 1.0, "int8"), ("auto", 0.0, "fp32")],
)
def test_the_first_and_last_layer_are_int8_unless_asked_for_or_needed_in_fp32(
    binary: Trained, asked: str, allowed: float, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(binary, tmp_path / "out", max_loss=allowed, sensitive_layers=asked)
    if asked == "auto" and allowed == 0.0:
        # What int8 loses on a toy may be nothing: here it is a little.
        monkeypatch.setattr(compress, "_loss", lambda _metric, fp32, int8: abs(fp32 - int8) + 1e-6)
    found = made.write()
    middle = {graph.layer_name(1)}
    everything = middle | {graph.layer_name(0), graph.layer_name(2)}
    assert quantized_layers(made.out / "model.onnx") == (everything if chosen == "int8" else middle)
    assert found.layers == (chosen, "int8", chosen)
    assert found.sensitive_layers == chosen
    assert found.metric == "auc"
    tried = {"int8": {"fp32", "int8"}, "fp32": {"fp32", "int8_fp32_ends"}, "auto": {"fp32", "int8"}}[asked]
    assert set(found.validation or {}) == tried | ({"int8_fp32_ends"} if chosen == "fp32" else set())
    json.dumps(found.facts(), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "fp32", "int8", "loss"), [("auc", 0.7, 0.6, 0.1), ("rmse", 1.0, 1.5, 0.5), ("log_loss", 0.5, 0.4, -0.1)]
)
def test_a_loss_is_positive_where_int8_is_worse(metric: str, fp32: float, int8: float, loss: float) -> None:
    assert compress._loss(metric, fp32, int8) == pytest.approx(loss)


def test_a_student_of_two_layers_with_both_in_fp32_is_still_served(binary: Trained, tmp_path: Path) -> None:
    made = Made(binary, tmp_path / "out", sensitive_layers="fp32")
    made.student = Student(binary.spec.training.student.model_copy(update={"widths": (8,)}), made.preparation, 1)
    assert made.write().layers == ("fp32", "fp32")
    holdout = data.read(binary.spec, binary.data / "holdout.parquet")
    np.testing.assert_allclose(
        made.onnx_scores(compress.MODEL, holdout), made.onnx_scores(compress.FP32, holdout), rtol=0, atol=1e-6
    )


def test_fp16_keeps_inputs_and_the_last_layer_in_float32_and_holds_what_would_overflow(
    binary: Trained, tmp_path: Path
) -> None:
    made = Made(binary, tmp_path / "out", compression="fp16")
    with torch.no_grad():
        made.student.linears[0].weight.mul_(3e4)
    assert made.write().layers == ("fp16", "fp16", "fp32")
    model = onnx.load(made.out / "model.onnx")
    kinds = {constant.name: constant.data_type for constant in model.graph.initializer}
    assert {kinds[f"overnight:weight{i}"] for i in (0, 1)} == {onnx.TensorProto.FLOAT16}
    assert kinds["overnight:pairs_embedding"] == onnx.TensorProto.FLOAT16
    assert {kinds[name] for name in ("overnight:weight2", "overnight:centre")} == {onnx.TensorProto.FLOAT}
    assert np.isfinite(made.onnx_scores(compress.MODEL, hostile(64))).all()


def test_calibration_rows_reach_tails_nulls_infinities_and_rare_values_within_their_number() -> None:
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(5000, 2)).astype(np.float32)
    numeric[10, 0], numeric[20, 0], numeric[30, 1], numeric[40, 0] = np.nan, np.inf, -np.inf, 99
    words = ["common"] * 4990 + [f"rare{i}" for i in range(9)] + [None]
    table = Table(numeric, (pa.array(words, pa.large_string()).dictionary_encode(),), np.zeros(5000, np.float32))
    drawn = quantize.calibration_rows(table, 256, seed=1)
    assert len(drawn) <= 256
    column = drawn.numeric[:, 0]
    assert np.isnan(column).any()
    assert np.isposinf(column).any()
    assert np.isneginf(drawn.numeric[:, 1]).any()
    for own, all_of in ((drawn.numeric[:, i], numeric[:, i]) for i in (0, 1)):
        low_and_high = np.sort(all_of[np.isfinite(all_of)])[[0, 1, 2, 3, -4, -3, -2, -1]]
        assert np.isin(low_and_high, own).all()
    assert set(drawn.categorical[0].to_pylist()) == {*words}
    again = quantize.calibration_rows(table, 256, seed=1)
    np.testing.assert_array_equal(again.numeric, drawn.numeric)


def test_corners_are_at_most_half_of_the_calibration_rows() -> None:
    rng = np.random.default_rng(0)
    table = Table(rng.normal(size=(2000, 40)).astype(np.float32), (), np.zeros(2000, np.float32))
    drawn = quantize.calibration_rows(table, 64, seed=1)
    assert 32 <= len(drawn) <= 64


def test_the_graph_states_its_opset_and_takes_batches_of_any_size(binary: Trained, tmp_path: Path) -> None:
    made = Made(binary, tmp_path / "out", Calibration(knots=KNOTS), compression="fp16")
    made.write()
    for file in (compress.FP32, compress.MODEL):
        model = onnx.load(made.out / file)
        assert {(given.domain, given.version) for given in model.opset_import} == {("", 17), ("ai.onnx.ml", 2)}
        shapes = [value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)]
        assert {dims[0].dim_param for dims in shapes} == {"n"}


def test_what_was_chosen_is_in_model_json(trained: Trained) -> None:
    about = json.loads((trained.out / "model.json").read_text("utf-8"))
    told = about["compression"]
    assert told["method"] == "int8"
    assert told["sensitive_layers"] in ("int8", "fp32")
    assert {"fp32", "int8"} <= set(told["validation"])
    assert told["metric"] == trained.spec.gates.metric
    assert told["widths"] == about["student_widths"] == [32, 16]
    assert about["calibration"]["method"] in ("none", "temperature", "isotonic")


def test_rounding_before_values_are_moved_changes_no_bit_of_a_score(
    binary: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, table = Made(binary, tmp_path / "made"), hostile(500)
    made.write()
    early = made.onnx_scores("model.onnx", table)
    graph = onnx.load(made.out / "model.onnx").graph
    kinds = {constant.name: constant.data_type for constant in graph.initializer}
    assert kinds["overnight:pairs_embedding_rounded"] == onnx.TensorProto.UINT8
    assert [node.op_type for node in graph.node if node.output[0] == "overnight:filled_rounded"] == ["Where"]
    monkeypatch.setattr(quantize, "narrow", lambda _: None)
    made.write()
    assert "overnight:pairs_embedding" in {put.name for put in onnx.load(made.out / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(made.onnx_scores("model.onnx", table), early)


def test_equalizing_changes_no_score(binary: Trained, tmp_path: Path) -> None:
    made = Made(binary, tmp_path / "out")
    table = hostile(64)
    sample = made.preparation.encode(made.train)
    before = made.torch_scores(table)
    made.preparation, made.student = quantize.equalize(made.preparation, made.student, sample)
    np.testing.assert_allclose(made.torch_scores(table), before, rtol=0, atol=1e-5)
    assert (made.preparation.width != 1).any()

"""The whole training, on small tables: what it writes, how good it is, and that it repeats bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from pipelines.records import Scorecard
from pipelines.training import entry
from pipelines.training.job import Job

from .conftest import Trained, make_spec, write


def cards(out: Path) -> dict[str, Scorecard]:
    raw = json.loads((out / "scorecards.json").read_text("utf-8"))
    return {card["model"]: Scorecard.model_validate(card) for card in raw}


def test_the_artifact_folder_holds_what_the_registry_and_the_engine_need(trained: Trained) -> None:
    assert {path.name for path in trained.out.iterdir()} == {
        "model.onnx",
        "student_fp32.onnx",
        "teacher.safetensors",
        "student.safetensors",
        "model.json",
        "features.json",
        "scorecards.json",
        "compression.json",
        "compression.html",
        "curves.jsonl",
    }
    about = json.loads((trained.out / "model.json").read_text("utf-8"))
    assert about["task"] == trained.task
    assert about["numeric"] == ["wide", "narrow", "gaps"]
    assert about["vocabularies"]["colour"] == ["blue", "green", "red"]
    assert "rare" not in about["vocabularies"]["shape"], "fewer than ten rows"
    assert about["missing_indicators"] == ["gaps"]


def test_every_model_is_measured_on_the_same_holdout_and_all_beat_the_constant(trained: Trained) -> None:
    found = cards(trained.out)
    assert list(found) == ["teacher", "student_fp32", "student_int8", "lightgbm", "constant"]
    assert {card.rows for card in found.values()} == {400}
    loss = "rmse" if trained.task == "regression" else "log_loss"
    for name in ("teacher", "student_fp32", "student_int8", "lightgbm"):
        assert found[name].metrics[loss] < 0.8 * found["constant"].metrics[loss], name
        assert (found[name].rows_per_second or 0) > 0
        assert (found[name].bytes or 0) > 0


def test_int8_costs_little_and_is_smaller(trained: Trained) -> None:
    found = cards(trained.out)
    loss = "rmse" if trained.task == "regression" else "log_loss"
    full, small = found["student_fp32"], found["student_int8"]
    assert small.metrics[loss] < 1.03 * full.metrics[loss]
    if trained.task == "binary":
        assert small.metrics["auc"] > full.metrics["auc"] - 0.005


def test_progress_is_reported_by_epoch_and_kept_as_curves(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.out / "curves.jsonl").read_text("utf-8").splitlines()]
    speed = {"rows_per_second", "eta_seconds"}
    ends = [row for row in trained.progress if row.keys() & {"teacher_loss", "student_loss"}]
    assert lines == [{name: value for name, value in row.items() if name not in speed} for row in ends]
    assert all(row.keys() >= speed and row["rows_per_second"] > 0 for row in ends)
    assert [row["epoch"] for row in ends if "student_loss" in row] == list(range(1, 9))
    # 1500 rows and the 300 of the validation, heard without labels, in batches of 64 are 29 steps an epoch.
    assert [row["step"] for row in ends if "student_loss" in row] == list(range(29, 29 * 9, 29))
    assert any("teacher_validation" in row for row in trained.progress)


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_does_not(
    binary: Trained, tmp_path: Path
) -> None:
    torch.rand(3)  # The caller's random numbers have no say.
    entry.run(Job(spec=binary.spec, data=binary.data, out=tmp_path / "again", threads=1), lambda _: None)
    for name in ("teacher.safetensors", "student.safetensors", "student_fp32.onnx", "model.onnx"):
        assert (tmp_path / "again" / name).read_bytes() == (binary.out / name).read_bytes(), name
    entry.run(
        Job(spec=make_spec("binary", seed=8), data=binary.data, out=tmp_path / "other", threads=1), lambda _: None
    )
    first, other = (load_file(out / "student.safetensors") for out in (binary.out, tmp_path / "other"))
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_the_callers_random_numbers_and_threads_are_left_alone(binary: Trained, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    before = torch.get_num_threads()
    entry.run(Job(spec=binary.spec, data=binary.data, out=tmp_path / "out", threads=before + 1), lambda _: None)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == before


def test_without_compression_the_served_model_is_the_fp32_student(tmp_path: Path) -> None:
    spec, data = make_spec("binary", compression="none"), write(tmp_path / "data", "binary")
    entry.run(Job(spec=spec, data=data, out=tmp_path / "out", threads=1), lambda _: None)
    out = tmp_path / "out"
    assert (out / "model.onnx").read_bytes() == (out / "student_fp32.onnx").read_bytes()
    assert list(cards(out)) == ["teacher", "student_fp32", "lightgbm", "constant"]
    assert json.loads((out / "model.json").read_text("utf-8"))["served"] == "student_fp32"


def test_the_command_line_trains_from_a_spec_in_json(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "regression")
    quick = make_spec("regression", teacher={"k": 1, "epochs": 1, "width": 8}, student={"epochs": 1, "widths": [8]})
    (tmp_path / "spec.json").write_text(quick.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "pipelines.training", "--threads", "1"]
    command += ["--spec", str(tmp_path / "spec.json"), "--data", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["epoch"] for line in done.stdout.splitlines()] == [1, 1]
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 0
    pq.write_table(pq.read_table(data / "train.parquet").drop_columns(["wide"]), data / "train.parquet")
    failed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert failed.returncode == 1
    assert "columns are missing: wide" in failed.stderr


def test_the_package_imports_neither_torch_nor_polars_mlflow_or_airflow_by_itself() -> None:
    code = (
        "import sys, pipelines.training; light = {'torch', 'numpy', 'onnx'} & set(sys.modules);"
        "import pipelines.training.entry; heavy = {'polars', 'mlflow', 'airflow', 'pandas'} & set(sys.modules);"
        "print(sorted(light), sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.strip() == "[] []"


def test_the_int8_graph_quantizes_the_layers_and_nothing_else(trained: Trained) -> None:
    import onnx

    nodes = onnx.load(trained.out / "model.onnx").graph.node
    weights = [node for node in nodes if node.op_type == "DequantizeLinear" and "weight" in node.input[0]]
    about = json.loads((trained.out / "model.json").read_text("utf-8"))
    assert len(weights) == about["compression"]["layers"].count("int8")
    assert not {node.op_type for node in nodes} & {"QLinearMatMul", "MatMulInteger"}
    constants = {
        constant.name: onnx.numpy_helper.to_array(constant)
        for constant in onnx.load(trained.out / "model.onnx").graph.initializer
    }
    assert all(constants[node.input[0]].dtype == np.int8 for node in weights)
    assert all(constants[node.input[1]].size > 1 for node in weights if "weight2" not in node.input[0]), (
        "a scale for each output channel"
    )

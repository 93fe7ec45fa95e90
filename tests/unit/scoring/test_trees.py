"""Trees of the same convention as the student: their codes are entered, and their sums do not depend on the tile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from pipelines.scoring.engine import Engine

WORDS = tuple(f"w{i}" for i in range(12))
NULL_WORDS = ("", "None", "nan", "<NA>")
CODE = "overnight:code:word"


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    words = rng.choice([*WORDS, "unheard of", ""], 3000)
    numbers = {name: rng.normal(size=3000).astype(np.float32) for name in "ab"}
    return pl.DataFrame({**numbers, "word": words}).with_columns(pl.when(pl.col("word") != "").then("word"))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory, rows: pl.DataFrame) -> Path:
    """200 trees as a regression: a float sum each, whose last bits depend on the order of its terms."""
    folder = tmp_path_factory.mktemp("trees")
    codes = rows["word"].replace_strict({None: 1, **{word: 2 + i for i, word in enumerate(WORDS)}}, default=0)
    matrix = np.column_stack([rows["a"], rows["b"], codes]).astype(np.float32)
    label = matrix[:, 0] + np.sin(matrix[:, 2]) + np.random.default_rng(4).normal(size=len(matrix))
    learnt = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(matrix, label), 200)
    model = convert_lightgbm(learnt, initial_types=[("matrix", FloatTensorType([None, 3]))], target_opset=15)
    graph = model.graph
    made = graph.output[0].name
    front = [
        helper.make_node(
            "LabelEncoder",
            ["word"],
            [CODE],
            domain="ai.onnx.ml",
            keys_strings=[*NULL_WORDS, *WORDS],
            values_int64s=[1] * len(NULL_WORDS) + list(range(2, 2 + len(WORDS))),
            default_int64=0,
        ),
        helper.make_node("Cast", [CODE], ["code"], to=TensorProto.FLOAT),
        *(helper.make_node("Reshape", [name, "column"], [f"{name}_column"]) for name in ("a", "b", "code")),
        helper.make_node("Concat", ["a_column", "b_column", "code_column"], ["matrix"], axis=1),
    ]
    nodes = [*front, *graph.node, helper.make_node("Reshape", [made, "flat"], ["score"])]
    constants = [
        *graph.initializer,
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "ab"]
    inputs.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["n"]))
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])
    whole = helper.make_graph(nodes, "trees", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(whole, opset_imports=opsets, ir_version=8), folder / "model.onnx")
    told = {
        "numeric": ["a", "b"],
        "categorical": ["word"],
        "vocabularies": {"word": list(WORDS)},
        "null_strings": list(NULL_WORDS),
        "codes": {"unknown": 0, "missing": 1, "first": 2, "tensors": {"word": CODE}},
    }
    (folder / "model.json").write_text(json.dumps(told), "utf-8")
    return folder


def test_trees_are_entered_behind_their_encoders_and_score_as_the_whole_graph(
    trees: Path, rows: pl.DataFrame, tmp_path: Path
) -> None:
    engine = Engine(trees, threads=2, tile_rows=700)
    assert engine.enters_behind_encoders
    told = json.loads((trees / "model.json").read_text("utf-8"))
    del told["codes"]["tensors"]
    shutil.copy(trees / "model.onnx", tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(told), "utf-8")
    whole = Engine(tmp_path, threads=1)
    assert not whole.enters_behind_encoders
    assert whole.score(rows).tobytes() == engine.score(rows).tobytes()
    assert engine.unseen(rows)["word"] == whole.unseen(rows)["word"] > 0.05


@pytest.mark.parametrize("tile_rows", [1, 2, 31, 33, 1000])
def test_a_sum_over_trees_is_the_same_bytes_in_any_tile(trees: Path, rows: pl.DataFrame, tile_rows: int) -> None:
    few = rows.head(200)
    expected = Engine(trees, threads=1).score(rows)[:200]
    assert Engine(trees, threads=3, tile_rows=tile_rows).score(few).tobytes() == expected.tobytes()

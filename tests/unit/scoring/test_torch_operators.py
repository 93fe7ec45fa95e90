"""Operators in torch: what is not known is refused by name, and layers of integers are exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipelines.scoring.session import Session, Unsupported
from pipelines.scoring.torch_session import TorchSession

if TYPE_CHECKING:
    from numpy.typing import NDArray


def graph(nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[Any]], kind: int = TensorProto.FLOAT) -> bytes:
    """A model of nodes from x to score."""
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (("Erf", ["x"], {}), "the operator Erf;"),
        (("Transpose", ["x"], {"perm": [0, 2, 1]}), r"Transpose with perm \[0, 2, 1\]"),
        (("Gemm", ["x", "w"], {"transB": 1}), "Gemm with transB 1"),
        (("Gather", ["x", "w"], {"axis": 1}), "Gather with axis 1"),
        (("Reshape", ["x", "zero"], {}), "Reshape to a size of 0"),
        (("Reshape", ["w", "x"], {}), "Reshape whose 'x' is no constant"),
        (("Max", ["x", "w", "w"], {}), "Max of 3 inputs"),
        (("QuantizeLinear", ["x", "scales", "zeros"], {}), "more than one scale"),
    ],
)
def test_an_operator_or_an_attribute_that_is_not_known_is_named(
    node: tuple[str, list[str], dict[str, Any]], said: str
) -> None:
    operator, inputs, told = node
    constants = {
        "w": np.ones((1, 1), np.float32),
        "zero": np.array([0, -1], np.int64),
        "scales": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.uint8),
    }
    with pytest.raises(Unsupported, match=rf"{said}.*scoring\.device: cpu"):
        TorchSession(graph([helper.make_node(operator, inputs, ["score"], **told)], constants), "cpu")


def test_an_input_that_is_no_column_of_numbers_or_codes_is_named() -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["score"])]
    with pytest.raises(Unsupported, match="the input 'x'"):
        TorchSession(graph(nodes, {}, TensorProto.DOUBLE), "cpu")


@pytest.mark.parametrize(("inputs", "dtype"), [(700, torch.float32), (5000, torch.float64)])
def test_a_layer_of_integers_is_exact_however_wide(inputs: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    steps = rng.integers(200, 256, (64, inputs)).astype(np.uint8)
    weight = rng.integers(-64, 65, (inputs, 3)).astype(np.int8)
    weight[:, 0] = 64
    bias = rng.integers(-5000, 5000, 3).astype(np.int32)
    x_scale, scales = np.float32(0.037), np.array([0.011, 0.5, 3.0], np.float32)
    constants = {
        "steps": steps,
        "x_scale": np.array(x_scale),
        "x_zero": np.array(107, np.uint8),
        "weight": weight,
        "w_scale": scales,
        "w_zero": np.zeros(3, np.int8),
        "bias": bias,
        "b_scale": x_scale * scales,
        "b_zero": np.zeros(3, np.int32),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["steps", "place"], ["rounded"], axis=0),
        helper.make_node("DequantizeLinear", ["rounded", "x_scale", "x_zero"], ["wide"]),
        helper.make_node("DequantizeLinear", ["weight", "w_scale", "w_zero"], ["w"], axis=1),
        helper.make_node("DequantizeLinear", ["bias", "b_scale", "b_zero"], ["b"], axis=0),
        helper.make_node("Gemm", ["wide", "w", "b"], ["score"]),
    ]
    session = TorchSession(graph(nodes, constants), "cpu")
    held = [value.dtype for value in session._program._known.values() if value.is_floating_point()]
    assert not held, "the weights are in the layer itself, as integers"
    exact = (steps.astype(np.int64) - 107) @ weight.astype(np.int64) + bias
    assert (np.abs(exact).max() > 2**24) == (dtype == torch.float64)
    found = session.run({"x": np.arange(64, dtype=np.float32)})
    assert found.tobytes() == (exact.astype(np.float32) * (x_scale * scales)).tobytes()


@pytest.mark.parametrize("named", ["Gemm", "MatMul"])
def test_a_layer_whose_bias_or_scales_are_others_is_what_onnx_runtime_computes(named: str) -> None:
    """A bias in floats, none at all, and one scale for all weights."""
    rng = np.random.default_rng(2)
    constants = {
        "column": np.array([-1, 1], np.int64),
        "x_scale": np.array(0.01, np.float32),
        "x_zero": np.array(3, np.uint8),
        "weight": rng.integers(-64, 65, (1, 4)).astype(np.int8),
        "w_scale": np.array(0.02, np.float32),
        "w_zero": np.array(1, np.int8),
        "b": rng.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "column"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "x_scale", "x_zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["wide"]),
        helper.make_node("DequantizeLinear", ["weight", "w_scale", "w_zero"], ["w"]),
        helper.make_node(named, ["wide", "w", "b"] if named == "Gemm" else ["wide", "w"], ["score"]),
    ]
    model, x = graph(nodes, constants), rng.normal(size=300).astype(np.float32)
    found, expected = (session.run({"x": x}) for session in (TorchSession(model, "cpu"), Session(model)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(expected).max() > 1

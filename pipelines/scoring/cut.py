"""Cuts an artifact's graph behind its string encoders, where model.json says that an engine may enter.

The registered graph takes text, so that any ONNX or MLflow client can use it, and looks each string up by itself; that
takes more time than the network does. Cut, the same graph takes the codes, and everything behind them is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.scoring.encode import Encoder

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def cut(model: bytes, card: Mapping[str, Any], encoders: Mapping[str, Encoder]) -> bytes | None:
    """The graph with code tensors, int64 [n], in the place of its text inputs.

    Args:
        model: an ONNX file.
        card: model.json; `codes.tensors` names each feature's tensor.
        encoders: what model.json says that the graph's own encoders do.

    Returns:
        None when the graph has no such encoders, or when one of them is not as model.json says: run it as it is.

    Raises:
        ValueError: not an ONNX file.
    """
    # Some 30 ms where ONNX Runtime and numpy are loaded already, and nothing in a warm process.
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, helper

    tensors: Mapping[str, str] = card.get("codes", {}).get("tensors", {})
    if not tensors or set(tensors) != set(encoders):
        return None
    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ValueError(f"not an ONNX file: {error}") from None
    graph = parsed.graph
    inside = {name: _encoder_of(graph, name, tensor) for name, tensor in tensors.items()}
    for name, node in inside.items():
        if node is None or _codes(node) != (encoders[name].codes, encoders[name].unknown):
            return None
    for node in inside.values():
        graph.node.remove(node)
    kept = [value for value in graph.input if value.name not in tensors]
    entered = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in tensors.values()]
    del graph.input[:]
    graph.input.extend([*kept, *entered])
    return bytes(parsed.SerializeToString())


def _encoder_of(graph: GraphProto, feature: str, tensor: str) -> NodeProto | None:
    """The node that makes a feature's codes, when it alone reads the feature and nothing else makes them."""
    readers = [node for node in graph.node if feature in node.input]
    makers = [node for node in graph.node if tensor in node.output]
    if len(readers) != 1 or readers != makers:
        return None
    (node,) = readers
    plain = (node.domain, node.op_type) == ("ai.onnx.ml", "LabelEncoder")
    return node if plain and list(node.input) == [feature] and list(node.output) == [tensor] else None


def _codes(node: NodeProto) -> tuple[dict[str, int], int] | None:
    """What a LabelEncoder does: the code of each string, and of any other. None when it is no map of that kind."""
    told = {attribute.name: attribute for attribute in node.attribute}
    if set(told) != {"keys_strings", "values_int64s", "default_int64"}:
        return None
    keys = [key.decode("utf-8") for key in told["keys_strings"].strings]
    if len(set(keys)) < len(keys):
        return None
    return dict(zip(keys, told["values_int64s"].ints, strict=True)), told["default_int64"].i

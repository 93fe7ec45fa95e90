"""Moves an int8 graph's first rounding to where the values are still few: in front of what only moves them around.

Rounding and moving may change places: every value is rounded alone, by the one scale of its tensor, so that the scores
have the same bits. The embedding table is then rounded once, here, and one byte a value is gathered, transposed and
put beside the others, not four. Of the flights' student that is a tenth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

#: Operators that give some of their inputs' values in another order or shape, by the inputs that hold values.
_MOVES = {"Concat": slice(None), "Transpose": slice(1), "Reshape": slice(1), "Where": slice(1, 3)}


def narrow(model: ModelProto) -> None:
    """Moves each QuantizeLinear of the graph as far to the front as its scores stay the same bits; in place."""
    graph = model.graph
    for rounding in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        mover = _Mover(graph, rounding)
        if not mover.moves(rounding.input[0]):
            continue
        first = mover.rounded(rounding.input[0])
        for node in graph.node:
            node.input[:] = [first if name == rounding.output[0] else name for name in node.input]
        graph.node.remove(rounding)


class _Mover:
    """One rounding on its way to the front."""

    def __init__(self, graph: GraphProto, rounding: NodeProto) -> None:
        self._graph = graph
        self._scale, self._zero = rounding.input[1:3]
        self._tables = {table.name: table for table in graph.initializer}

    def moves(self, tensor: str) -> bool:
        """Whether the tensor's maker only moves values, and no one else reads what it makes."""
        maker = self._maker(tensor)
        alone = sum(list(node.input).count(tensor) for node in self._graph.node) == 1
        if maker is None or not alone or any(put.name == tensor for put in self._graph.output):
            return False
        return maker.op_type in _MOVES or (maker.op_type == "Gather" and maker.input[0] in self._tables)

    def rounded(self, tensor: str) -> str:
        """The name of the tensor's rounded values, after the nodes that make them are in the graph."""
        name = f"{tensor}_rounded"
        maker = self._maker(tensor)
        if maker is None or not self.moves(tensor):
            self._insert_behind(maker, helper.make_node("QuantizeLinear", [tensor, self._scale, self._zero], [name]))
            return name
        if maker.op_type == "Gather":
            maker.input[0] = self._rounded_table(maker.input[0])
        else:
            held = _MOVES[maker.op_type]
            maker.input[held] = [self.rounded(part) for part in list(maker.input)[held]]
        maker.output[0] = name
        return name

    def _maker(self, tensor: str) -> NodeProto | None:
        return next((node for node in self._graph.node if tensor in node.output), None)

    def _insert_behind(self, maker: NodeProto | None, node: NodeProto) -> None:
        at = 0 if maker is None else list(self._graph.node).index(maker) + 1
        self._graph.node.insert(at, node)

    def _rounded_table(self, name: str) -> str:
        """As QuantizeLinear: the nearest step, halves to the even one, held within 8 bits."""
        scale, zero = (numpy_helper.to_array(self._tables[part]) for part in (self._scale, self._zero))
        ends = np.iinfo(zero.dtype)
        table: NDArray[np.float32] = numpy_helper.to_array(self._tables[name])
        steps = np.clip(np.rint(table / scale) + zero.astype(np.float32), ends.min, ends.max).astype(zero.dtype)
        self._graph.initializer.remove(self._tables[name])
        self._graph.initializer.append(numpy_helper.from_array(steps, f"{name}_rounded"))
        return f"{name}_rounded"

"""An ONNX graph as a list of torch calls. Shapes: n rows, v float32 and c integer inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is imported only where a TorchSession is made

from pipelines.scoring.session import SCORE
from pipelines.scoring.torch_operators import Operator, attributes, integer_layer, made, unsupported

if TYPE_CHECKING:
    from onnx import NodeProto
    from torch import Tensor

#: The packed inputs, [v, n] float32 and [c, n] int64.
_NUMBERS, _CODES = "packed:numbers", "packed:codes"


@dataclass(frozen=True, slots=True)
class _Step:
    run: Operator
    inputs: tuple[str, ...]
    output: str
    last: tuple[str, ...] = ()
    """Values that no later step reads."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """Rows of a packed input, not yet taken out of it."""

    packed: str
    rows: tuple[int, ...]
    flat: bool = False
    """One row as [n], not [1, n]."""

    def taken(self, device: torch.device) -> Operator:
        """Gives the rows: a view where they lie together."""
        begin, end = self.rows[0], self.rows[-1] + 1
        if self.flat:
            return lambda packed: packed[begin]
        if self.rows == tuple(range(begin, end)):
            return lambda packed: packed[begin:end]
        index = torch.tensor(self.rows, device=device)
        return lambda packed: packed.index_select(0, index)


class Program:
    """A loaded graph, its constants on a device."""

    def __init__(self, model: bytes, device: torch.device) -> None:
        """Loads a graph.

        Raises:
            Unsupported: it has an operator, an attribute or an input that is not computed here.
            ValueError: not an ONNX file, or it has no score.
        """
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import TensorProto, numpy_helper

        try:
            graph = onnx.load_model_from_string(model).graph
        except DecodeError as error:
            raise ValueError(f"not an ONNX file: {error}") from None
        self._device = device
        self._known = {
            table.name: torch.from_numpy(numpy_helper.to_array(table).copy()).to(device) for table in graph.initializer
        }
        self._makers: dict[str, NodeProto] = {node.output[0]: node for node in graph.node if len(node.output) == 1}
        kinds = {TensorProto.FLOAT: ("tensor(float)", _NUMBERS), TensorProto.INT64: ("tensor(int64)", _CODES)}
        for node in graph.node:  # an operator says more than the text that it would read
            made(node)
        self.inputs: dict[str, str] = {}
        """Type by name, such as `tensor(float)`."""
        held: dict[str, list[str]] = {_NUMBERS: [], _CODES: []}
        self._lines: dict[str, _Lines] = {}
        for told in graph.input:
            kind, dims = told.type.tensor_type.elem_type, told.type.tensor_type.shape.dim
            if kind not in kinds or len(dims) != 1:
                raise unsupported(f"the input {told.name!r}, which is no column of float32 or int64")
            self.inputs[told.name], packed = kinds[kind]
            self._lines[told.name] = _Lines(packed, (len(held[packed]),), flat=True)
            held[packed].append(told.name)
        self.numbers, self.codes = tuple(held[_NUMBERS]), tuple(held[_CODES])
        """The inputs that are packed together, in the order of their rows."""
        steps: list[_Step] = []
        for node in graph.node:
            self._add(node, steps)
        self._steps = _needed(steps)
        if not any(step.output == SCORE for step in self._steps):
            raise ValueError(f"the graph computes no {SCORE} from its inputs")
        read = {name for step in self._steps for name in step.inputs}
        self._known = {name: value for name, value in self._known.items() if name in read}

    def __call__(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Scores [n] or [n, classes].

        Args:
            numbers: [v, n] float32 on the device, n a multiple of BLOCK.
            codes: [c, n] of any integers.
        """
        values = {**self._known, _NUMBERS: numbers, _CODES: codes.long()}
        for step in self._steps:
            values[step.output] = step.run(*(values[name] for name in step.inputs))
            for name in step.last:
                del values[name]
        return values[SCORE]

    def _add(self, node: NodeProto, steps: list[_Step]) -> None:
        """Computes what is known, leaves in place what only gathers columns, and makes a step of the rest."""
        run, inputs, output = made(node, self._known), tuple(node.input), node.output[0]
        if all(name in self._known for name in inputs):
            self._known[output] = run(*(self._known[name] for name in inputs))
            return
        if (lines := self._gathered(node)) is not None:
            self._lines[output] = lines
            return
        if (layer := integer_layer(node, self._makers, self._known)) is not None:
            run, inputs = layer
        there = {step.output for step in steps}
        for name in inputs:
            if name in self._lines and name not in there:
                lines = self._lines[name]
                steps.append(_Step(lines.taken(self._device), (lines.packed,), name))
            elif name not in there and name not in self._known and name not in self._lines:
                raise ValueError(f"{node.name or node.op_type} reads {name!r}, which nothing makes before it")
        steps.append(_Step(run, inputs, output))

    def _gathered(self, node: NodeProto) -> _Lines | None:
        """What a node gives that puts inputs below each other: they lie so already, a row each, in the packed ones.

        Of a wide table that spares a call a column, and a copy of them all.
        """
        lines = [self._lines.get(name) for name in node.input]
        if node.op_type == "Reshape" and lines[0] is not None and self._known[node.input[1]].tolist() == [1, -1]:
            return _Lines(lines[0].packed, lines[0].rows) if len(lines[0].rows) == 1 else None
        if node.op_type != "Concat" or attributes(node)["axis"] != 0:
            return None
        found = [each for each in lines if each is not None and not each.flat]
        if len(found) < len(lines) or len({each.packed for each in found}) > 1:
            return None
        return _Lines(found[0].packed, tuple(row for each in found for row in each.rows))


def _needed(steps: Sequence[_Step]) -> list[_Step]:
    """The steps that the score needs, each with what may be forgotten after it."""
    needed, found = {SCORE}, []
    for step in reversed(steps):
        if step.output in needed:
            found.append(replace(step, last=tuple({name for name in step.inputs if name not in needed})))
            needed.update(step.inputs)
    return found[::-1]

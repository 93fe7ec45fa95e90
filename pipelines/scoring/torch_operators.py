"""ONNX operators in torch: those of our own networks (training/graph.py, quantize.py and narrow.py), and no other.

Each computes what ONNX defines for it. Shapes: n rows, k inputs and o outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is imported only where a TorchSession is made
from torch import Tensor  # noqa: TID253

from pipelines.scoring.session import Unsupported

if TYPE_CHECKING:
    from onnx import NodeProto

Operator = Callable[..., Tensor]
_Constants = Sequence[Tensor | None] | None

#: Rows of a product of floats, and what rows are padded to. A library chooses how to sum by the shapes: of one shape,
#: a row's sum is the same for any number of rows beside it.
BLOCK = 8192
#: float32 has every integer up to it, so that sums of integers that stay below are exact in any order.
_EXACT = 2**24


def unsupported(what: str) -> Unsupported:
    """The error that says what is not computed here, and what helps."""
    return Unsupported(f"torch does not compute {what}; such a model is scored on the cpu: scoring.device: cpu")


def attributes(node: NodeProto) -> dict[str, Any]:
    """What a node says besides its inputs, by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def made(node: NodeProto, known: Mapping[str, Tensor] | None = None) -> Operator:
    """What a node does with the tensors of its inputs.

    Args:
        known: constants by name; without them, only the operator and its attributes are looked at.

    Raises:
        Unsupported: there is no such operator here, or not with such attributes or inputs.
    """
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    told = attributes(node)
    if name not in _OPERATORS or len(node.output) != 1:
        raise unsupported(f"the operator {name}")
    inputs, allowed, make = _OPERATORS[name]
    if inputs is not None and len(node.input) not in inputs:
        raise unsupported(f"the operator {name} of {len(node.input)} inputs")
    for attribute, value in told.items():
        if attribute not in allowed or (allowed[attribute] is not None and value not in allowed[attribute]):
            raise unsupported(f"the operator {name} with {attribute} {value}")
    if known is None:
        return make(told, None)
    constants = [known.get(each) for each in node.input]
    if name in _BY_CONSTANTS and any(each is None for each in constants[1:]):
        raise unsupported(f"the operator {name} whose {node.input[1]!r} is no constant")
    return make(told, constants)


def _reshape(_: Mapping[str, Any], constants: _Constants) -> Operator:
    shape = [] if constants is None or constants[1] is None else constants[1].tolist()
    if 0 in shape:
        raise unsupported("the operator Reshape to a size of 0")
    return lambda x, _: x.reshape(shape)


def _cast(told: Mapping[str, Any], _: _Constants) -> Operator:
    dtype = _DTYPES[told["to"]]
    return lambda x: x.to(dtype)


def _concat(told: Mapping[str, Any], _: _Constants) -> Operator:
    axis = told["axis"]
    return lambda *parts: torch.cat(parts, axis)


def _softmax(told: Mapping[str, Any], _: _Constants) -> Operator:
    axis = told.get("axis", -1)
    return lambda x: torch.softmax(x, axis)


def _quantize(_: Mapping[str, Any], constants: _Constants) -> Operator:
    """The nearest step, halves to the even one. One scale a tensor, on the device: by a scalar of the host torch would
    multiply its inverse, which is another number.
    """
    if constants is not None and any(each is not None and each.numel() != 1 for each in constants[1:]):
        raise unsupported("the operator QuantizeLinear with more than one scale")

    def run(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        ends = torch.iinfo(zero.dtype)
        return (torch.round(x / scale) + zero).clamp(ends.min, ends.max).to(zero.dtype)

    return run


def _dequantize(told: Mapping[str, Any], _: _Constants) -> Operator:
    axis = told.get("axis", 1)

    def run(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        shape = [-1 if place == axis % x.ndim and scale.numel() > 1 else 1 for place in range(x.ndim)]
        zero = zero.expand(scale.shape) if zero.numel() == 1 else zero
        return (x.int() - zero.int().reshape(shape)).float() * scale.reshape(shape)

    return run


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _gather(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).reshape(*index.shape, *table.shape[1:])


def _layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight + bias, BLOCK rows at a time. Of float16 the sums are float32 and rounded once: on a GPU these layers
    take a small part of the time in which the rows get there.
    """
    wide = weight.float()
    parts = [part @ wide for part in torch.split(x.float(), BLOCK)]
    product = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (product if bias is None else product + bias.float()).to(x.dtype)


def integer_layer(
    node: NodeProto, makers: Mapping[str, NodeProto], known: Mapping[str, Tensor]
) -> tuple[Operator, tuple[str, ...]] | None:
    """A layer between DequantizeLinear nodes as sums of integers, and what it then reads: the rounded activations.

    (x - z) @ w + b = x @ w + (b - z * the sums of w's columns), whose products and sums are integers. Where none can
    pass 2^24, float32 has them all, so that its product is exact in any order, with TF32 as well (it has integers up to
    2048), on any device: 8 by 7 bits reach 1,000 inputs. Otherwise float64 is as exact. `torch._int_mm` is quicker, but
    takes sizes by 8 and signed bytes only, and the product is not what takes the time.
    """
    rounded, weights = (makers.get(name) for name in node.input[:2]) if len(node.input) > 1 else (None, None)
    if node.op_type not in ("Gemm", "MatMul") or rounded is None or weights is None:
        return None
    if {rounded.op_type, weights.op_type} != {"DequantizeLinear"}:
        return None
    held = (*rounded.input[1:], *weights.input)
    if any(name not in known for name in held) or known[rounded.input[1]].numel() != 1:
        return None
    x_scale, x_zero, w, w_scale, w_zero = (known[name] for name in held)
    if w.ndim != 2 or (w_scale.numel() > 1 and attributes(weights).get("axis", 1) != 1):
        return None
    weight = w.double() - w_zero.double()
    scale = x_scale * w_scale.reshape(-1)
    offset = -x_zero.double() * weight.sum(0)
    rest: Tensor | None = None
    if len(node.input) > 2:
        bias = makers.get(node.input[2])
        steps = [known[name] for name in bias.input if name in known] if bias is not None else []
        if len(steps) == 3 and torch.equal(steps[1].reshape(-1), scale):  # it is rounded to steps of the sums' own
            offset = offset + (steps[0].double() - steps[2].double())
        elif node.input[2] in known:
            rest = known[node.input[2]]
        else:
            return None
    ends = torch.iinfo(x_zero.dtype)
    highest = max(abs(ends.min), ends.max) * weight.abs().sum(0) + offset.abs()
    dtype = torch.float32 if highest.max() <= _EXACT else torch.float64
    weight, offset = weight.to(dtype), offset.to(dtype)

    def run(x: Tensor) -> Tensor:
        found = torch.addmm(offset, x.to(dtype), weight).float() * scale
        return found if rest is None else found + rest

    return run, (rounded.input[0],)


def _plain(run: Operator) -> Callable[..., Operator]:
    return lambda *_: run


#: By ONNX's numbers of types.
_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 10: torch.float16, 11: torch.float64}
_BY_CONSTANTS = {"Reshape", "QuantizeLinear"}
_GEMM = {"alpha": (1.0,), "beta": (1.0,), "transA": (0,), "transB": (0,)}
#: Numbers of inputs (None: any), attributes with their values (None: any), and what makes the call.
_OPERATORS: Mapping[str, tuple[tuple[int, ...] | None, Mapping[str, Any], Callable[..., Operator]]] = {
    **{
        name: ((inputs,), {}, _plain(run))
        for name, inputs, run in (
            ("Add", 2, torch.add),
            ("Sub", 2, torch.sub),
            ("Mul", 2, torch.mul),
            ("Div", 2, _divide),
            ("Sqrt", 1, torch.sqrt),
            ("Max", 2, torch.maximum),
            ("Min", 2, torch.minimum),
            ("IsNaN", 1, torch.isnan),
            ("Where", 3, torch.where),
            ("GreaterOrEqual", 2, torch.ge),
            ("Relu", 1, torch.relu),
            ("Sigmoid", 1, torch.sigmoid),
            ("MatMul", 2, _layer),
        )
    },
    "Gemm": ((2, 3), _GEMM, _plain(_layer)),
    "Transpose": ((1,), {"perm": ([1, 0],)}, _plain(torch.t)),
    "Gather": ((2,), {"axis": (0,)}, _plain(_gather)),
    "GatherElements": ((2,), {"axis": (0,)}, _plain(lambda table, at: table.gather(0, at.long()))),
    "Concat": (None, {"axis": None}, _concat),
    "Reshape": ((2,), {"allowzero": (0,)}, _reshape),
    "Cast": ((1,), {"to": tuple(_DTYPES)}, _cast),
    "Softmax": ((1,), {"axis": None}, _softmax),
    "QuantizeLinear": ((3,), {"axis": None}, _quantize),
    "DequantizeLinear": ((3,), {"axis": None}, _dequantize),
}

"""The student as an ONNX graph that takes raw columns: fills, clips, scales and vocabularies are inside.

Inputs are rank 1, one a feature: float32 [n] (NaN where null) or string [n] ("" where null). The one output, `score`,
is a probability [n], a value in the label's unit [n], or class probabilities [n, classes]. Built by hand from
operators of opset 17 (and ai.onnx.ml 2) that every ONNX runtime has; batches of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.errors import TrainingError, explain
from pipelines.spec import UseCase
from pipelines.training import joint
from pipelines.training.calibrate import Calibration
from pipelines.training.networks import EMBEDDING, Student
from pipelines.training.prepare import BOUND, FIRST, MISSING, NULL_WORDS, UNKNOWN, Preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
ML_OPSET = 2
IR_VERSION = 8
SCORE = "score"
_ROWS = "n"


#: Every tensor inside the graph begins so, that no feature's name can meet it.
_INSIDE = "overnight:"


#: Numbers and indicators as the first layer sees them, [n, v + u].
NUMBERS = "numbers"


def code_name(feature: str) -> str:
    """The int64 [n] tensor of a categorical feature's codes: an engine may cut the graph here and encode by itself."""
    return f"{_INSIDE}code:{feature}"


class Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Adds a constant; gives its prefixed name."""
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), _INSIDE + name))
        return _INSIDE + name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Adds a node of one output; the output's name is prefixed, but for the graph's own."""
        output = output if output == SCORE else _INSIDE + output
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"make {output}", **attributes))
        return output

    def column(self, tensor: str, feature: str) -> str:
        """[n] to [n, 1]; [n, 1] stays as it is, which is how MLflow feeds a data frame of one column."""
        return self._shaped(tensor, "as_column", (-1, 1), f"column:{feature}")

    def line(self, tensor: str, feature: str) -> str:
        """[n] or [n, 1] to [1, n]."""
        return self._shaped(tensor, "as_line", (1, -1), f"line:{feature}")

    def pick(self, table: str, index: str, output: str) -> str:
        """A table's value by each index, [n] from [m]: a Gather copies slices, and takes seven times as long for one
        number each.
        """
        return self.add("GatherElements", [table, index], output, axis=0)

    def _shaped(self, tensor: str, shape: str, sizes: tuple[int, int], output: str) -> str:
        if all(constant.name != _INSIDE + shape for constant in self.constants):
            self.constant(shape, np.array(sizes, np.int64))
        return self.add("Reshape", [tensor, _INSIDE + shape], output)

    def code(self, feature: str, words: Sequence[str]) -> str:
        """Strings [n] to codes [n], as `Preparation.encode`."""
        self.nodes.append(
            helper.make_node(
                "LabelEncoder",
                [feature],
                [code_name(feature)],
                name=f"make {code_name(feature)}",
                domain="ai.onnx.ml",
                keys_strings=[*NULL_WORDS, *words],
                values_int64s=[MISSING] * len(NULL_WORDS) + list(range(FIRST, FIRST + len(words))),
                default_int64=UNKNOWN,
            )
        )
        return code_name(feature)


def layer_name(i: int) -> str:
    """The node of the i-th Gemm layer, from 0."""
    return f"make {_INSIDE}layer{i}"


def build(
    spec: UseCase,
    preparation: Preparation,
    student: Student,
    calibration: Calibration,
    mean: float,
    scale: float,
    *,
    half: bool = False,
) -> onnx.ModelProto:
    """The graph, in fp32, or with the hidden layers and the embeddings in fp16.

    Args:
        half: weights and sums of all layers but the last are float16; inputs are scaled, and the last layer and the
            score are computed, in float32. A runtime without float16 sums puts casts around the layers.
        calibration: how logits become probabilities (binary, multiclass).
        mean: regression only: the score is output * scale + mean.
        scale: see mean.

    Raises:
        TrainingError: a feature has the name of something inside the graph, or there is nothing to learn from: every
            column is constant and there is no category.
    """
    check_names(spec)
    graph = Graph()
    parts = _numbers(graph, spec.features.numeric, preparation)
    if student.embedding is not None:
        parts += _embed(graph, spec.features.categorical, preparation, student, half)
    layers = _half_layers if half else _layers
    hidden = layers(graph, _weights(student, preparation), concat(graph, parts, "features"))
    head(graph, spec, hidden, calibration, mean, scale)
    return finish(graph, spec)


def finish(graph: Graph, spec: UseCase, *, ml_opset: int = ML_OPSET, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """The checked model of a graph that ends in `score`."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [_ROWS]) for name in spec.features.numeric]
    inputs += [helper.make_tensor_value_info(name, TensorProto.STRING, [_ROWS]) for name in spec.features.categorical]
    classes = [len(spec.label.classes)] if spec.label.task == "multiclass" else []
    output = helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, [_ROWS, *classes])
    model = helper.make_model(
        helper.make_graph(graph.nodes, spec.name, inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ml_opset)],
        ir_version=ir_version,
        producer_name="overnight",
    )
    onnx.checker.check_model(model)
    return model


def check_names(spec: UseCase) -> None:
    """Refuses features that have the name of something inside the graph."""
    for name in spec.features.columns:
        if name == SCORE or name.startswith(_INSIDE):
            raise TrainingError(
                explain("features", f"{name!r} is a name inside the graph", remedy="give the feature another name")
            )


def concat(graph: Graph, parts: list[str], name: str, axis: int = 1) -> str:
    """Columns beside each other, or rows below each other; one alone stays as it is."""
    return graph.add("Concat", parts, name, axis=axis) if len(parts) > 1 else parts[0]


def _numbers(graph: Graph, numeric: Sequence[str], preparation: Preparation) -> list[str]:
    """As `Preparation.encode`: [n, v + u], or nothing where there is no such column.

    A feature is a row until all are done: [v, n] against one constant a row is one long loop a row, where [n, v]
    against a row of constants is n short ones. Of the flights' 14 numbers that is a third of the time, and the same
    bits.
    """
    lines = {i: graph.line(numeric[i], numeric[i]) for i in sorted({*preparation.varying, *preparation.flagged})}
    parts = []
    if preparation.varying:
        raw = concat(graph, [lines[i] for i in preparation.varying], "numeric", axis=0)
        null = graph.add("IsNaN", [raw], "numeric_null")
        centre = graph.constant("centre", preparation.centre[:, None])
        raised = graph.add("Max", [raw, graph.constant("low", preparation.low[:, None])], "raised")
        clipped = graph.add("Min", [raised, graph.constant("high", preparation.high[:, None])], "clipped")
        centred = graph.add("Sub", [clipped, centre], "centred")
        z = graph.add("Mul", [centred, graph.constant("scale", preparation.scale[:, None])], "scaled")
        # A null is filled with the centre, which is 0 here: last, where int8 graphs fill bytes (narrow.py).
        nothing = graph.constant("centred_null", np.zeros(1, np.float32))
        parts.append(graph.add("Where", [null, nothing, _bound(graph, z, preparation)], "filled"))
    if preparation.flagged:
        flagged = concat(graph, [lines[i] for i in preparation.flagged], "flagged", axis=0)
        absent = graph.add("IsNaN", [flagged], "flagged_null")
        ends = [
            graph.constant(f"flag_{word}", np.array([value], np.float32)) for word, value in (("on", 1), ("off", 0))
        ]
        parts.append(graph.add("Where", [absent, *ends], "missing"))
    return [graph.add("Transpose", [concat(graph, parts, "number_lines", axis=0)], NUMBERS)] if parts else []


def _bound(graph: Graph, z: str, preparation: Preparation) -> str:
    """As `prepare.bound`: z / sqrt(z^2 * width^2 / BOUND^2 + width^2)."""
    square = (preparation.width * preparation.width)[:, None]
    slope = graph.constant("bound_slope", (square / BOUND**2).astype(np.float32))
    steep = graph.add("Mul", [graph.add("Mul", [z, z], "squared"), slope], "steep")
    total = graph.add("Add", [steep, graph.constant("bound_width", square)], "bound_square")
    return graph.add("Div", [z, graph.add("Sqrt", [total], "bound_root")], "bounded")


def _embed(
    graph: Graph, categorical: Sequence[str], preparation: Preparation, student: Student, half: bool
) -> list[str]:
    """Strings to codes, codes to rows of embedding tables: float32 [n, c * EMBEDDING] in all, in the order of
    `joint.group`.
    """
    assert student.embedding is not None
    codes = []
    for name, words in zip(categorical, preparation.vocabularies, strict=True):
        codes.append(graph.line(graph.code(name, words), name))
    sizes = preparation.cardinalities
    tables = np.split(student.embedding.weight.detach().numpy(), np.cumsum(sizes)[:-1])
    grouping, parts = joint.group(sizes), []
    if grouping.pairs:
        firsts, seconds = zip(*grouping.pairs, strict=True)
        width = graph.constant("pair_width", np.array([[sizes[place]] for place in seconds], np.int64))
        begun = graph.add("Mul", [concat(graph, [codes[i] for i in firsts], "pair_first", axis=0), width], "pair_begin")
        lines = graph.add("Add", [begun, concat(graph, [codes[i] for i in seconds], "pair_second", axis=0)], "pair")
        parts.append(
            _rows(graph, "pairs", [joint.pair_table(tables[i], tables[j]) for i, j in grouping.pairs], lines, half)
        )
    if grouping.alone:
        lines = concat(graph, [codes[i] for i in grouping.alone], "single", axis=0)
        parts.append(_rows(graph, "singles", [tables[i] for i in grouping.alone], lines, half))
    return parts


def _rows(graph: Graph, name: str, tables: Sequence[NDArray[np.float32]], lines: str, half: bool) -> str:
    """The rows of tables [m, d] beside each other, [n, t * d], by their indices [t, n]."""
    begins = np.cumsum([0, *(len(table) for table in tables[:-1])])
    placed = graph.add(
        "Add", [lines, graph.constant(f"{name}_begin", begins[:, None].astype(np.int64))], f"{name}_lines"
    )
    index = graph.add("Transpose", [placed], f"{name}_index")
    whole = np.concatenate(tables)
    table = graph.constant(f"{name}_embedding", whole.astype(np.float16) if half else whole)
    rows = graph.add("Gather", [table, index], f"{name}_embedded", axis=0)
    if half:
        rows = graph.add("Cast", [rows], f"{name}_wide", to=TensorProto.FLOAT)
    shape = graph.constant(f"{name}_shape", np.array([-1, whole.shape[1] * len(tables)], np.int64))
    return graph.add("Reshape", [rows, shape], name)


def _weights(student: Student, preparation: Preparation) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight [i, o] and bias [o] of each layer; the first one's inputs in the order in which embeddings come out."""
    layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in student.linears]
    before = len(preparation.varying) + len(preparation.flagged)
    begins = before + EMBEDDING * np.array(joint.group(preparation.cardinalities).order, np.int64)
    order = np.concatenate([np.arange(before), (begins[:, None] + np.arange(EMBEDDING)).ravel()])
    weight, bias = layers[0]
    return [(weight[order], bias), *layers[1:]]


def _layers(graph: Graph, weights: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], x: str) -> str:
    last = len(weights) - 1
    for i, (weight, bias) in enumerate(weights):
        x = graph.add("Gemm", [x, graph.constant(f"weight{i}", weight), graph.constant(f"bias{i}", bias)], f"layer{i}")
        if i < last:
            x = graph.add("Relu", [x], f"relu{i}")
    return x


def _half_layers(graph: Graph, weights: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], x: str) -> str:
    """As `_layers`, all but the last in float16. What might overflow float16 is held at its largest number."""
    last = len(weights) - 1
    x = graph.add("Cast", [x], "features_half", to=TensorProto.FLOAT16)
    largest = graph.constant("largest_half", np.array([np.finfo(np.float16).max], np.float16))
    for i, (weight, bias) in enumerate(weights):
        if i == last:
            x = graph.add("Cast", [x], "hidden_wide", to=TensorProto.FLOAT)
        kind = np.float32 if i == last else np.float16
        held = [graph.constant(f"weight{i}", weight.astype(kind)), graph.constant(f"bias{i}", bias.astype(kind))]
        x = graph.add("Gemm", [x, *held], f"layer{i}")
        if i < last:
            x = graph.add("Min", [graph.add("Relu", [x], f"relu{i}"), largest], f"held{i}")
    return x


def head(graph: Graph, spec: UseCase, logits: str, calibration: Calibration, mean: float, scale: float) -> None:
    """Logits [n, o] become the score."""
    temperature = np.array([calibration.temperature], np.float32)
    if spec.label.task == "multiclass":
        sharp = graph.add("Div", [logits, graph.constant("temperature", temperature)], "calibrated")
        graph.add("Softmax", [sharp], SCORE, axis=1)
        return
    if calibration.knots:
        _isotonic(graph, logits, calibration)
        return
    flat = graph.add("Reshape", [logits, graph.constant("flat", np.array([-1], np.int64))], "logit")
    if spec.label.task == "binary":
        sharp = graph.add("Div", [flat, graph.constant("temperature", temperature)], "calibrated")
        graph.add("Sigmoid", [sharp], SCORE)
        return
    wide = graph.add("Mul", [flat, graph.constant("label_scale", np.array([scale], np.float32))], "unscaled")
    graph.add("Add", [wide, graph.constant("label_mean", np.array([mean], np.float32))], SCORE)


def _isotonic(graph: Graph, logits: str, calibration: Calibration) -> None:
    """Straight lines between knots (x_i, y_i): y_i + slope_i (z - x_i), at most y_{i+1}, in the segment i of z [n, 1].

    The segment is found by bisection and every step is one row's own: a sum over segments would depend, in its last
    bit, on where in memory the row lies, and one logit would have two scores.
    """
    x, y = np.array(calibration.knots, np.float32).T
    segments = len(x) - 1
    begins = np.full(1 << max(1, (segments - 1).bit_length()), np.inf, np.float32)
    begins[:segments] = x[:-1]
    known = {
        "segment_begin": graph.constant("segment_begin", begins),
        "segment_low": graph.constant("segment_low", y[:-1]),
        "segment_high": graph.constant("segment_high", y[1:]),
        "segment_slope": graph.constant("segment_slope", np.diff(y) / np.diff(x)),
    }
    flat = graph.add("Reshape", [logits, graph.constant("flat", np.array([-1], np.int64))], "logit")
    low = graph.add("Max", [flat, graph.constant("first_knot", x[:1])], "from_first_knot")
    z = graph.add("Min", [low, graph.constant("last_knot", x[-1:])], "to_last_knot")
    half, at = len(begins) // 2, ""
    while half:
        # Where the segment begins that is `half` further on, by where we are; at first that is 0.
        ahead = graph.constant(f"begin_ahead{half}", begins[half:] if at else begins[half : half + 1])
        begin = graph.pick(ahead, at, f"begin{half}") if at else ahead
        right = graph.add("GreaterOrEqual", [z, begin], f"right{half}")
        # A Where of two integers takes ten times as long as this product and this sum.
        counted = graph.add("Cast", [right], f"counted{half}", to=TensorProto.INT32)
        taken = graph.add("Mul", [counted, graph.constant(f"half{half}", np.array([half], np.int32))], f"taken{half}")
        at = graph.add("Add", [at, taken], f"segment{half}") if at else taken
        half //= 2
    begin, bottom, top, slope = (graph.pick(table, at, f"{name}_here") for name, table in known.items())
    rise = graph.add("Mul", [graph.add("Sub", [z, begin], "into_segment"), slope], "rise")
    graph.add("Min", [graph.add("Add", [bottom, rise], "line"), top], SCORE)

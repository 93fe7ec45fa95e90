"""Static int8: QDQ nodes around the MatMul and Gemm layers, per channel, on ranges of real rows.

An activation tensor has one scale, so that one wide column takes the resolution from all others: `equalize` first moves
width from the activations into the weights, where every output channel has a scale of its own.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipelines.training.data import Table
from pipelines.training.narrow import narrow
from pipelines.training.networks import EMBEDDING, Student
from pipelines.training.prepare import Encoded, Preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CALIBRATION_TILE = 1024
#: Rows of each end of a numeric column, and rare values of a category, that are looked at.
_TAIL_ROWS, _RARE_VALUES = 4, 16
#: How much of a channel's width goes into the weights: 0 none, 1 all.
_SHIFT = 0.75


def calibration_rows(table: Table, rows: int, seed: int) -> Table:
    """A seeded draw of training rows that reaches into the corners: of each numeric column the lowest and the highest
    finite rows, a null and the infinities; of each category its rarest values and a null.

    Args:
        rows: at most so many, and at most half of them corners: where there are more, those are drawn by the seed.
    """
    corners = {row for column in table.numeric.T for row in _tails(column)}
    corners |= {row for column in table.categorical for row in _rarest(column)}
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.array(sorted(corners), np.int64))[: rows // 2]
    # A corner may be drawn once more: a row that is there already costs nothing.
    draw = rng.permutation(len(table))[: rows - len(chosen)]
    return table.take(np.unique(np.concatenate([chosen, draw])))


def _tails(column: NDArray[np.float32]) -> list[int]:
    """Rows of the `_TAIL_ROWS` lowest and highest finite values, and the first null and infinities."""
    finite = np.flatnonzero(np.isfinite(column))
    found: list[int] = []
    if len(finite):
        values, k = column[finite], min(_TAIL_ROWS, len(finite))
        ends = np.concatenate([np.argsort(values, kind="stable")[:k], np.argsort(-values, kind="stable")[:k]])
        found = finite[ends].tolist()
    odd = (np.isnan(column), np.isposinf(column), np.isneginf(column))
    return [*found, *(int(is_odd.argmax()) for is_odd in odd if is_odd.any())]


def _rarest(column: pa.DictionaryArray) -> list[int]:
    """The first row of each of the `_RARE_VALUES` values with the fewest rows, and the first null."""
    index = pc.fill_null(column.indices, len(column.dictionary)).to_numpy(zero_copy_only=False)
    codes, first, counts = np.unique(index, return_index=True, return_counts=True)
    real = codes < len(column.dictionary)
    order = np.argsort(counts[real], kind="stable")[:_RARE_VALUES]
    return [*first[real][order].tolist(), *first[~real].tolist()]


def equalize(preparation: Preparation, student: Student, sample: Encoded) -> tuple[Preparation, Student]:
    """An equivalent student whose activation channels have similar ranges (SmoothQuant, arXiv 2211.10438).

    Channel j is divided by s_j = (max|x_j|)^a / (max|w_j|)^(1 - a), a = 0.75, and its weights are multiplied by it:
    exact but for rounding, since ReLU(x / s) = ReLU(x) / s. Numbers carry s in their width, categories in their
    embedding.

    Args:
        sample: the calibration rows, encoded; they give max|x_j|.
    """
    student = copy.deepcopy(student)
    v, u = len(preparation.varying), len(preparation.flagged)
    layers = [(layer.weight.data, layer.bias.data) for layer in student.linears]
    numeric, missing, codes = (torch.from_numpy(part) for part in (sample.numeric, sample.missing, sample.codes))
    parts = [numeric, missing]
    if student.embedding is not None:
        parts.append(student.embedding.weight.data[codes + student.offset].flatten(1))
    x = torch.cat(parts, dim=1)
    s = _channel_scales(x, layers[0][0])
    s[v : v + u] = 1.0  # Indicators are 0 or 1 and have no scale to put it in.
    width = preparation.width * s[:v].numpy()
    layers[0][0].mul_(s)
    if student.embedding is not None:
        sizes = torch.tensor(preparation.cardinalities)
        by_feature = s[v + u :].reshape(-1, EMBEDDING)
        student.embedding.weight.data.div_(by_feature.repeat_interleave(sizes, dim=0))
    x = x / s
    for (weight, bias), (following, _) in itertools.pairwise(layers):
        x = torch.relu(x @ weight.T + bias)
        s = _channel_scales(x, following)
        weight.div_(s[:, None])
        bias.div_(s)
        following.mul_(s)
        x = x / s
    return replace(preparation, width=width), student


def _channel_scales(x: Tensor, weight: Tensor) -> Tensor:
    wide, heavy = x.abs().amax(0), weight.abs().amax(0)
    s = wide**_SHIFT / heavy ** (1 - _SHIFT)
    # A channel that never fires, or that nothing reads, keeps its scale.
    return torch.where((wide > 0) & (heavy > 0), s.clamp(1e-4, 1e4), 1.0)


class _Reader:
    """What ONNX Runtime's calibrator asks for: one feed after the other, then None."""

    def __init__(self, table: Table, numeric: Sequence[str], categorical: Sequence[str]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.generic]]] = (
            table.take(np.arange(start, min(start + _CALIBRATION_TILE, len(table)))).feeds(numeric, categorical)
            for start in range(0, len(table), _CALIBRATION_TILE)
        )

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._feeds, None)


def quantize(
    fp32: Path,
    int8: Path,
    table: Table,
    numeric: Sequence[str],
    categorical: Sequence[str],
    keep: Sequence[str] = (),
) -> None:
    """Writes the int8 model of an fp32 one.

    Activations are uint8 per tensor, weights int8 per output channel. Weights keep to 7 bits: x86 processors without
    VNNI add pairs of products in 16 bits and would saturate, so that the same model gave other scores there.

    Args:
        table: the calibration rows.
        keep: names of nodes that stay in fp32. Only layers are quantized: what makes scores of logits never is.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root, before = logging.getLogger(), logging.getLogger().level
        root.setLevel(logging.ERROR)
        try:
            quantize_static(
                fp32,
                int8,
                _Reader(table, numeric, categorical),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=list(keep),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # The layers give floats: quantized sums would be rounded twice, and the scores would have 256 values.
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
            )
        finally:
            root.setLevel(before)
    model = onnx.load(int8)
    narrow(model)
    onnx.checker.check_model(model)
    onnx.save(model, int8)

"""Teacher and student. Shapes: b rows, v numeric, u indicators, c categorical, k ensemble members, o outputs.

Both give logits [b, k, o]: o is 1 for binary and regression (standardised there), the classes for multiclass; the
student has k = 1. One loop trains both.
"""

from __future__ import annotations

import itertools
import warnings

import torch
from torch import Tensor, nn

from pipelines.spec import Student as StudentSpec
from pipelines.spec import Teacher as TeacherSpec
from pipelines.training.prepare import Encoded, Preparation

#: Numbers by which the student knows a category. Small tables: the first layer stays narrow and quantizes well.
EMBEDDING = 8
#: Numbers by which the teacher knows a numeric value, piecewise-linear or periodic.
_PIECEWISE, _PERIODIC = 6, 16
#: Of each numeric value's learned sines and cosines: how many, and the spread of their first frequencies, in periods a
#: unit: values lie within -3 and 3, so that the fastest begin at about two periods over the range.
_FREQUENCIES, _FREQUENCY_SCALE = 24, 0.1
#: Bin edges are quantiles of at most so many rows.
_BIN_ROWS = 100_000


class Teacher(nn.Module):
    """TabM (arXiv 2410.24210): k MLPs that share most weights, on embeddings of the numeric columns (arXiv 2203.05556).

    Indicators of missing values enter as categories of two values.
    """

    def __init__(self, spec: TeacherSpec, preparation: Preparation, sample: Encoded, outputs: int) -> None:
        import tabm

        super().__init__()
        self.net = tabm.TabM.make(
            n_num_features=len(preparation.varying),
            cat_cardinalities=[*preparation.cardinalities, *([2] * len(preparation.flagged))],
            d_out=outputs,
            num_embeddings=_embeddings(spec, sample) if preparation.varying else None,
            k=spec.k,
            d_block=spec.width,
            n_blocks=spec.depth,
            dropout=spec.dropout,
        )

    @property
    def bias(self) -> Tensor:
        """[k, o], the last that is added to the logits."""
        bias: Tensor = self.net.output.bias
        return bias

    def forward(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
        """Logits [b, k, o] of numeric [b, v], missing [b, u] and codes [b, c]."""
        categories = torch.cat([codes, missing.long()], dim=1)
        logits: Tensor = self.net(
            numeric if numeric.shape[1] else None,
            categories if categories.shape[1] else None,
        )
        return logits


class Student(nn.Module):
    """The MLP that is served: standardised numbers, indicators and one small embedding a category, then ReLU layers."""

    def __init__(self, spec: StudentSpec, preparation: Preparation, outputs: int) -> None:
        super().__init__()
        self.offset: Tensor
        cardinalities = preparation.cardinalities
        # One table for all features: feature i's codes begin at offset[i].
        offsets = [sum(cardinalities[:i]) for i in range(len(cardinalities))]
        self.register_buffer("offset", torch.tensor(offsets, dtype=torch.long))
        self.embedding = nn.Embedding(sum(cardinalities), EMBEDDING) if cardinalities else None
        inputs = len(preparation.varying) + len(preparation.flagged) + EMBEDDING * len(cardinalities)
        sizes = [inputs, *spec.widths, outputs]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def bias(self) -> Tensor:
        """[o], the last that is added to the logits."""
        return self.linears[-1].bias

    def forward(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
        """Logits [b, 1, o] of numeric [b, v], missing [b, u] and codes [b, c]."""
        x = self.features(numeric, missing, codes)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        logits: Tensor = self.layers[-1](x)
        return logits[:, None, :]

    def features(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
        """What the first layer sees, [b, v + u + EMBEDDING * c]."""
        parts = [numeric, missing]
        if self.embedding is not None:
            parts.append(self.embedding(codes + self.offset).flatten(1))
        return torch.cat(parts, dim=1)


def _embeddings(spec: TeacherSpec, sample: Encoded) -> nn.Module | None:
    """[b, v] to [b, v, d], or None where the values enter as they stand."""
    from rtdl_num_embeddings import PeriodicEmbeddings, PiecewiseLinearEmbeddings

    made: nn.Module | None = None
    if spec.embeddings == "piecewise":
        with warnings.catch_warnings():
            # One bin is all that a column of two values needs.
            warnings.filterwarnings("ignore", "The .* feature has just two bin edges")
            made = PiecewiseLinearEmbeddings(_bins(sample, spec.bins), _PIECEWISE, activation=False, version="B")
    elif spec.embeddings == "periodic":
        made = PeriodicEmbeddings(
            sample.numeric.shape[1],
            _PERIODIC,
            n_frequencies=_FREQUENCIES,
            frequency_init_scale=_FREQUENCY_SCALE,
            lite=False,
        )
    return made


def _bins(sample: Encoded, bins: int) -> list[Tensor]:
    """Edges of each numeric column's bins: quantiles, distinct, at least two."""
    stride = -(-len(sample.numeric) // _BIN_ROWS)
    levels = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    edges = []
    for column in torch.from_numpy(sample.numeric[::stride].copy()).double().T:
        found = torch.unique(torch.quantile(column, levels).float())
        if len(found) < 2:
            # The sample missed the rare values that make this column vary.
            found = torch.tensor([column[0].item(), column[0].item() + 1.0])
        edges.append(found)
    return edges

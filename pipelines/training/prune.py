"""Structured pruning: whole hidden units go, so that what is left is a smaller dense network on any hardware.

A unit's importance is the root mean square of its activation on training rows times the norm of its outgoing weights:
the size of what it gives to the next layer. That is Wanda's score |W| ||X|| (Sun et al., arXiv 2306.11695), of single
weights, summed over a unit's outgoing ones.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor

from pipelines.training.feed import Feed
from pipelines.training.networks import Student

#: Hidden units that a layer keeps whatever the share.
LEAST_UNITS = 4
_TILE = 8192


def hidden_rms(student: Student, rows: Feed) -> list[Tensor]:
    """The root mean square, over all rows, of each hidden unit's activation: a tensor [units] a hidden layer."""
    student.eval()
    squares = [torch.zeros(layer.out_features, dtype=torch.float64) for layer in student.linears[:-1]]
    with torch.no_grad():
        for tile in rows.tiles(_TILE):
            x = student.features(tile.numeric, tile.missing, tile.codes)
            for i, layer in enumerate(student.linears[:-1]):
                x = torch.relu(layer(x))
                squares[i] += x.double().square().sum(0).cpu()
    return [(total / len(rows)).sqrt() for total in squares]


def kept_units(student: Student, share: float, rms: list[Tensor]) -> list[Tensor]:
    """Indices, ascending, of the units that stay: the most important of each hidden layer.

    Args:
        share: of each hidden layer's units that goes, rounded down, down to `LEAST_UNITS` at most.
        rms: see `hidden_rms`.
    """
    kept = []
    for (layer, following), size in zip(itertools.pairwise(student.linears), rms, strict=True):
        importance = size * following.weight.detach().double().norm(dim=0).cpu()
        stay = max(layer.out_features - int(share * layer.out_features), min(LEAST_UNITS, layer.out_features))
        # Sorted, not topk: units of equal importance go in an order that is the same everywhere.
        order = torch.argsort(importance, descending=True, stable=True)
        kept.append(order[:stay].sort().values)
    return kept


def without(student: Student, kept: list[Tensor]) -> Student:
    """The student without the other hidden units: what it computes with their activations held at 0.

    Args:
        kept: indices of the units that stay, a tensor a hidden layer.
    """
    small = copy.deepcopy(student)
    layers = small.linears
    for layer, following, stay in zip(layers, layers[1:], kept, strict=False):
        units = stay.to(layer.weight.device)
        layer.weight = torch.nn.Parameter(layer.weight.detach()[units].clone())
        layer.bias = torch.nn.Parameter(layer.bias.detach()[units].clone())
        following.weight = torch.nn.Parameter(following.weight.detach()[:, units].clone())
        layer.out_features = following.in_features = len(units)
    return small


def pruned(student: Student, share: float, rms: list[Tensor]) -> Student:
    """The student without the least important `share` of each hidden layer's units, not yet tuned."""
    return without(student, kept_units(student, share, rms))

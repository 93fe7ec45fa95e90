"""LightGBM's trees as an ONNX graph that takes raw columns, by the conventions of graph.py.

Categories and nulls stay native: a split on a category is a membership test on its code, a null takes the branch that
LightGBM gives it. The trees compute in float64, as LightGBM does: a threshold is halfway between two values that were
seen, and in float32 it may round to one of them, which then changes sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.spec import UseCase
from pipelines.training import graph
from pipelines.training.calibrate import Calibration
from pipelines.training.prepare import Preparation

#: The first ai.onnx.ml with TreeEnsemble, and the representation that came with it.
ML_OPSET, IR_VERSION = 5, 10
#: Of TreeEnsemble's `nodes_modes`: x <= split, and x is one of a set.
_AT_MOST, _MEMBER = 0, 6
_SUM = 1
#: What the dump writes for infinity.
_DUMPED_INFINITY = 1e300
#: LightGBM takes anything up to this size for zero, on the far side of a threshold just below it.
_ZERO = float(np.float32(1e-35))


def build(spec: UseCase, preparation: Preparation, dumped: dict[str, Any], calibration: Calibration) -> onnx.ModelProto:
    """The graph of a boosted model.

    Args:
        dumped: LightGBM's `Booster.dump_model()`: features are the spec's numeric columns, then the codes of its
            categorical ones.
        calibration: how raw scores become probabilities (binary, multiclass).

    Raises:
        TrainingError: a feature has the name of something inside the graph.
    """
    graph.check_names(spec)
    made = graph.Graph()
    columns = [made.column(name, name) for name in spec.features.numeric]
    for name, words in zip(spec.features.categorical, preparation.vocabularies, strict=True):
        code = made.column(made.code(name, words), name)
        columns.append(made.add("Cast", [code], f"number:{name}", to=TensorProto.FLOAT))
    wide = made.add("Cast", [graph.concat(made, columns, "features")], "wide", to=TensorProto.DOUBLE)
    ensemble = _Ensemble()
    for index, tree in enumerate(dumped["tree_info"]):
        ensemble.plant(tree["tree_structure"], index % dumped["num_tree_per_iteration"])
    raw = made.add(
        "TreeEnsemble",
        [wide],
        "sum",
        domain="ai.onnx.ml",
        aggregate_function=_SUM,
        n_targets=dumped["num_tree_per_iteration"],
        **ensemble.attributes(),
    )
    logits = made.add("Cast", [raw], "logits", to=TensorProto.FLOAT)
    graph.head(made, spec, logits, calibration, 0.0, 1.0)
    return graph.finish(made, spec, ml_opset=ML_OPSET, ir_version=IR_VERSION)


@dataclass(slots=True)
class _Ensemble:
    """Nodes and leaves of every tree, in two lists each addressed by position."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    null_left: list[int] = field(default_factory=list)
    branches: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Left position, left is a leaf, right position, right is a leaf."""
    members: dict[int, Sequence[float]] = field(default_factory=dict)
    """The set of each node with a membership test."""
    leaves: list[tuple[float, int]] = field(default_factory=list)
    """Value and target."""

    def plant(self, tree: dict[str, Any], target: int) -> None:
        """Adds one tree; one that is a single leaf becomes a node with that leaf on both sides."""
        if "leaf_value" in tree and "split_feature" not in tree:
            at, _ = self._leaf(tree, target)
            self.roots.append(self._node(0, _AT_MOST, 0.0, null_left=True))
            self.branches[self.roots[-1]] = (at, 1, at, 1)
        else:
            self.roots.append(self._grow(tree, target)[0])

    def _grow(self, node: dict[str, Any], target: int) -> tuple[int, int]:
        """Adds a node with what hangs on it; gives its position and whether it is a leaf."""
        if "split_feature" not in node:
            return self._leaf(node, target)
        if node["decision_type"] == "==":
            at = self._node(node["split_feature"], _MEMBER, 0.0, null_left=False)
            self.members[at] = [float(code) for code in str(node["threshold"]).split("||")]
        else:
            at = self._node(node["split_feature"], _AT_MOST, _split(node["threshold"]), null_left=_null_left(node))
        left, right = self._grow(node["left_child"], target), self._grow(node["right_child"], target)
        self.branches[at] = (*left, *right)
        return at, 0

    def _leaf(self, leaf: dict[str, Any], target: int) -> tuple[int, int]:
        self.leaves.append((leaf["leaf_value"], target))
        return len(self.leaves) - 1, 1

    def _node(self, feature: int, mode: int, split: float, *, null_left: bool) -> int:
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(split)
        self.null_left.append(int(null_left))
        self.branches.append((0, 0, 0, 0))
        return len(self.features) - 1

    def attributes(self) -> dict[str, Any]:
        """Of the TreeEnsemble node."""
        left, left_leaf, right, right_leaf = (list(part) for part in zip(*self.branches, strict=True))
        weights, targets = zip(*self.leaves, strict=True)
        found: dict[str, Any] = {
            "tree_roots": self.roots,
            "nodes_featureids": self.features,
            "nodes_modes": numpy_helper.from_array(np.array(self.modes, np.uint8), "nodes_modes"),
            "nodes_splits": _doubles(self.splits, "nodes_splits"),
            "nodes_missing_value_tracks_true": self.null_left,
            "nodes_truenodeids": left,
            "nodes_trueleafs": left_leaf,
            "nodes_falsenodeids": right,
            "nodes_falseleafs": right_leaf,
            "leaf_weights": _doubles(weights, "leaf_weights"),
            "leaf_targetids": list(targets),
        }
        if self.members:
            # One set after the other, in the order of their nodes, each ended by a NaN.
            ended = [code for at in sorted(self.members) for code in (*self.members[at], np.nan)]
            found["membership_values"] = _doubles(ended, "membership_values")
        return found


def _split(threshold: float) -> float:
    """The split of a dumped threshold, which differs at the two ends that LightGBM has of its own."""
    if threshold >= _DUMPED_INFINITY:
        return np.inf  # Between values and nulls.
    if threshold == -_ZERO:
        return float(np.nextafter(threshold, -np.inf))
    return threshold


def _null_left(node: dict[str, Any]) -> bool:
    """Where LightGBM sends a null: where training sent it, or with the zeros when training had none here."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return bool(node["threshold"] >= 0)


def _doubles(values: Sequence[float], name: str) -> TensorProto:
    return helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], list(values))

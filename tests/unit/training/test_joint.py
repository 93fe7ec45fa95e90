"""Categories looked up in pairs: the same network, whatever is paired with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.spec import Student as StudentSpec
from pipelines.spec import UseCase
from pipelines.training import graph, joint
from pipelines.training.calibrate import Calibration
from pipelines.training.networks import Student
from pipelines.training.prepare import FIRST, Preparation

from .conftest import make_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@given(st.lists(st.integers(2, 6000), max_size=12))
def test_each_feature_is_looked_up_once_and_every_pair_fits(cardinalities: list[int]) -> None:
    found = joint.group(cardinalities)
    assert sorted(found.order) == list(range(len(cardinalities)))
    assert all(cardinalities[i] * cardinalities[j] <= 4096 for i, j in found.pairs)
    # Nobody who is left alone could have had another who is.
    assert all(cardinalities[i] * cardinalities[j] > 4096 for i in found.alone for j in found.alone if i < j)


def test_the_fewest_codes_go_with_the_most() -> None:
    assert joint.group([300, 5, 400, 10]) == joint.Grouping(((1, 2), (3, 0)), ())
    assert joint.group([7000, 3, 3]) == joint.Grouping(((1, 2),), (0,))
    assert joint.group([]) == joint.Grouping((), ())


def _spec(features: int) -> UseCase:
    """Texts alone, so that all of a score comes out of the tables."""
    told = make_spec("regression").model_dump()
    names = [f"t{place}" for place in range(features)]
    told["tables"]["rows"]["columns"] |= {name: {"type": "string"} for name in names}
    told["features"] = {"numeric": [], "categorical": names}
    return UseCase.model_validate(told)


def _scores(student: Student, preparation: Preparation, codes: NDArray[np.int64], *, half: bool) -> NDArray[np.float32]:
    spec = _spec(codes.shape[1])
    model = graph.build(spec, preparation, student, Calibration(), 0.0, 1.0, half=half)
    words = [np.array(["never seen", "", *vocabulary], object) for vocabulary in preparation.vocabularies]
    feeds = {name: words[i][codes[:, i]] for i, name in enumerate(spec.features.categorical)}
    scores: NDArray[np.float32] = onnxruntime.InferenceSession(model.SerializeToString()).run(["score"], feeds)[0]
    return scores


@pytest.mark.parametrize("sizes", [(9,), (9, 3), (200, 3, 40, 5000, 7), (5000, 4000), (3, 3, 3, 3, 3, 3)], ids=str)
def test_a_graph_scores_every_code_as_torch_does(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    empty = np.empty(0, np.float32)
    vocabularies = tuple(tuple(f"{i}:{word}" for word in range(size - FIRST)) for i, size in enumerate(sizes))
    preparation = Preparation((), (), empty, empty, empty, empty, empty, vocabularies)
    student = Student(StudentSpec(widths=(16, 8)), preparation, 1)
    rng = np.random.default_rng(7)
    rows = max(sizes)
    # Every code of every feature at least once.
    codes = np.stack([rng.permutation(np.arange(rows) % size) for size in sizes], axis=1)
    with torch.no_grad():
        nothing = torch.zeros(rows, 0)
        ours = student(nothing, nothing, torch.from_numpy(codes))[:, 0, 0].numpy()
    np.testing.assert_allclose(_scores(student, preparation, codes, half=False), ours, rtol=0, atol=1e-6)
    np.testing.assert_allclose(_scores(student, preparation, codes, half=True), ours, rtol=0, atol=5e-3)
    assert len(np.unique(ours)) > rows // 2

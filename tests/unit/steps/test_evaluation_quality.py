"""What an evaluation says of two real artifacts on the same rows, and that it says it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.metrics import metrics
from pipelines.parquet import sha256
from pipelines.records import Holdout, SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.evaluation import PARTS, quality
from pipelines.steps.evaluation.meeting import Meeting
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.unit.training.conftest import make_columns, make_spec, write

ROWS = 1200
Meets = Callable[..., Meeting]


@pytest.fixture(scope="module", params=["binary", "regression"])
def meets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Meets:
    """Two artifacts of a task, trained for one epoch and for six, on rows that neither has seen."""
    root = tmp_path_factory.mktemp(request.param)
    data = write(root / "data", request.param)
    folders = {}
    for name, epochs in (("weak", 1), ("good", 6)):
        spec = make_spec(request.param, student={"widths": [32, 16], "epochs": epochs, "batch_rows": 64})
        teacher = spec.training.teacher.model_copy(update={"epochs": epochs})
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"teacher": teacher})})
        run(Job(spec=spec, data=data, out=root / name, threads=1), lambda _: None)
        folders[name] = root / name
    path = root / "holdout.parquet"
    pl.DataFrame(make_columns(request.param, ROWS, 99), strict=False).write_parquet(path)

    def meeting(champion: str | None = "weak", challenger: str = "good", **gates: Any) -> Meeting:
        told = make_spec(request.param).model_dump()
        told["features"]["slices"] = ("colour",)
        told["gates"] |= {"resamples": 100, **gates}
        pinned = SnapshotRef(store="delta", use_case="toy", table="rows", version="1")
        holdout = Holdout(
            path=str(path),
            partitions=("2024-01-01", "2024-01-01"),
            as_of="2024-01-02",
            snapshots=(pinned,),
            rows=ROWS,
            digest=sha256(path),
        )
        nobody: Any = None
        trained: Any = SimpleNamespace(folder=str(folders[challenger]), digest=None)
        rival: Path | None = folders[champion] if champion else None
        spec = UseCase.model_validate(told)
        return Meeting(spec, nobody, nobody, trained, holdout, pl.read_parquet(path), rival)

    return meeting


def test_the_gain_is_the_difference_of_the_scorecards_and_a_repeat_says_the_same(meets: Meets) -> None:
    meeting = meets(detectable=0.5)
    found = quality.certainty(meeting)
    mine = quality.scorecard(meeting, "challenger", meeting.folder, meeting.scores)
    other = meeting.champion_scores
    assert other is not None
    assert meeting.champion is not None
    theirs = quality.scorecard(meeting, "champion", meeting.champion, other)
    metric = meeting.spec.gates.metric
    (comparison,) = found["comparisons"]
    sign = 1 if metric == "auc" else -1
    assert comparison.gain.value == pytest.approx(sign * (mine.metrics[metric] - theirs.metrics[metric]))
    assert comparison.gain.value > 0
    assert comparison.gain.low < comparison.gain.value < comparison.gain.high
    assert {name: each.value for name, each in found["intervals"].items()} == pytest.approx(mine.metrics)
    assert found["interval"] == found["intervals"][metric]
    assert found["rows_needed"] >= 1
    assert quality.certainty(meets(detectable=0.5)) == found
    assert (mine.calibration_error is None) == (meeting.spec.label.task == "regression")


def test_each_declared_slice_and_the_worst_found_are_told_with_their_rows(meets: Meets) -> None:
    meeting = meets(slice_rows=200)
    (comparison,) = quality.certainty(meeting)["comparisons"]
    counts = dict(meeting.frame.get_column("colour").value_counts().iter_rows())
    assert {each.slice: each.rows for each in comparison.slices} == {f"colour = {k}": n for k, n in counts.items()}
    red = (meeting.frame.get_column("colour") == "red").to_numpy()
    metric, task = meeting.spec.gates.metric, meeting.spec.label.task
    told = next(each for each in comparison.slices if each.slice == "colour = red")
    assert told.mine == metrics(task, meeting.labels[red], meeting.scores[red])[metric]
    assert comparison.worst is not None
    assert comparison.worst.rows >= 100


def test_a_champion_gains_nothing_over_itself(meets: Meets) -> None:
    (comparison,) = quality.certainty(meets("good"))["comparisons"]
    assert (comparison.gain.low, comparison.gain.high) == (0, 0)
    assert {each.gain for each in comparison.slices} == {0}


def test_without_a_champion_there_is_no_comparison(meets: Meets) -> None:
    found = quality.certainty(meets(None, detectable=0.5))
    assert set(found) == {"interval", "intervals"}


def test_the_rarest_class_may_have_no_rows_at_all(meets: Meets) -> None:
    meeting = meets()
    found = PARTS["classes"](meeting)
    if meeting.spec.label.task == "regression":
        assert found == {}
        return
    ones = int(meeting.labels.sum())
    assert found == {"rarest_class": min(ones, ROWS - ones)}
    object.__setattr__(meeting, "labels", np.ones(ROWS))
    assert PARTS["classes"](meeting) == {"rarest_class": 0}

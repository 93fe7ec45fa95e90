"""The trainer in this process: an artifact that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.backends.local_trainer import LocalTrainer
from pipelines.errors import TrainingError
from tests.unit.training.conftest import make_spec, write

SPEC = make_spec(
    "regression",
    teacher={"k": 1, "epochs": 1, "width": 8, "depth": 1},
    student={"epochs": 1, "widths": [8]},
    calibration_rows=64,
)


def test_the_artifact_appears_when_it_is_complete_and_progress_is_passed_on(tmp_path: Path) -> None:
    heard, out = [], tmp_path / "work" / "artifact"

    def listen(values: object) -> None:
        assert not out.exists()
        heard.append(values)

    LocalTrainer(threads=1).train(SPEC, write(tmp_path / "data", "regression"), out, tmp_path / "checkpoints", listen)
    assert (out / "model.onnx").is_file()
    assert (out / "scorecards.json").is_file()
    assert len(heard) == 2
    assert [path.name for path in out.parent.iterdir()] == ["artifact"]


def test_a_failure_leaves_nothing_and_the_next_try_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    work = tmp_path / "work"
    data = write(tmp_path / "data", "regression", holdout=lambda old: {name: [] for name in old})
    with pytest.raises(TrainingError):
        LocalTrainer(threads=1).train(SPEC, data, work / "artifact", tmp_path / "checkpoints", lambda _: None)
    assert list(work.iterdir()) == []
    (work / ".artifact.building-killed").mkdir()
    (work / ".artifact.building-killed" / "model.onnx").write_bytes(b"half")
    LocalTrainer(threads=1).train(
        SPEC, write(tmp_path / "data", "regression"), work / "artifact", tmp_path / "checkpoints", lambda _: None
    )
    assert [path.name for path in work.iterdir()] == ["artifact"]


def test_an_artifact_that_exists_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"somebody's")
    with pytest.raises(TrainingError, match="exists already"):
        LocalTrainer(threads=1).train(SPEC, tmp_path / "no-data", out, tmp_path / "checkpoints", lambda _: None)
    assert (out / "model.onnx").read_bytes() == b"somebody's"

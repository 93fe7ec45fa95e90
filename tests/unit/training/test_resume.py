"""A killed training resumes to the same bytes as one that nobody disturbed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.spec import UseCase
from tests.unit.training.conftest import make_spec
from tests.unit.training.killing import launch, prepare

SAME = ("teacher.safetensors", "student.safetensors", "student_fp32.onnx", "model.onnx", "curves.jsonl")


def toy(**training: object) -> UseCase:
    """Three epochs of six steps for the teacher, two of six for the student; a checkpoint at every step."""
    return make_spec(
        "binary",
        **{
            "teacher": {"k": 2, "width": 16, "depth": 1, "epochs": 3, "batch_rows": 256, "bins": 4},
            "student": {"widths": [8], "epochs": 2, "batch_rows": 256},
            "calibration_rows": 64,
            "checkpoint_minutes": 1e-9,
            **training,
        },
    )


def artifact(root: Path) -> dict[str, bytes]:
    return {name: (root / "out" / name).read_bytes() for name in SAME}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = prepare(tmp_path_factory.mktemp("undisturbed"), toy())
    code, said = launch(root)
    assert code == [0], said
    assert not (root / "checkpoints").exists(), "they are removed when the artifact is complete"
    return artifact(root)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def empty(_content: bytes) -> bytes:
    return b""


def test_a_training_killed_at_any_step_resumes_to_the_same_bytes(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    root, draw = prepare(tmp_path, toy()), random.Random(5)
    # Steps count from where each try goes on.
    for network, step in (("teacher", draw.randint(2, 7)), ("teacher", draw.randint(2, 7)), ("student", 5)):
        code, said = launch(root, network, step, "kill")
        assert code == [-9], said
    assert any("teacher-done" in path.name for path in (root / "checkpoints").iterdir())
    code, said = launch(root)
    assert code == [0], said
    assert '"teacher_loss"' not in said, "the teacher was finished by an earlier try"
    assert artifact(root) == undisturbed


@pytest.mark.parametrize(("network", "harm"), [("teacher", cut), ("teacher", flip), ("student", empty)])
def test_a_checkpoint_that_is_not_what_was_written_is_passed_over_for_the_one_before(
    tmp_path: Path, undisturbed: dict[str, bytes], network: str, harm: Callable[[bytes], bytes]
) -> None:
    root = prepare(tmp_path, toy())
    assert launch(root, network, 8, "kill")[0] == [-9]
    older, newest = sorted((root / "checkpoints").glob(f"*-{network}-part-*"))
    newest.write_bytes(harm(newest.read_bytes()))
    (root / "checkpoints" / "00000099.writing").write_bytes(b"half")
    code, said = launch(root)
    assert code == [0], said
    assert f"checkpoint {newest.name} is passed over" in said
    assert older.name not in said
    assert artifact(root) == undisturbed


def test_sigterm_writes_a_checkpoint_and_the_next_try_goes_on(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    root = prepare(tmp_path, toy(checkpoint_minutes=60))
    code, said = launch(root, "teacher", 8, "term")
    assert code == [75], said
    assert "InterruptedTraining: teacher epoch 2 step 2: training was told to stop" in said
    code, said = launch(root)
    assert code == [0], said
    assert artifact(root) == undisturbed


def test_two_processes_that_are_killed_or_told_to_stop_resume_to_the_same_bytes(tmp_path: Path) -> None:
    whole = prepare(tmp_path / "whole", toy())
    assert launch(whole, processes=2)[0] == [0, 0]
    broken = prepare(tmp_path / "broken", toy())
    codes, said = launch(broken, "teacher", 9, "kill", processes=2)
    assert codes[0] == -9, said
    assert codes[1] != 0, "nobody waits for a dead process"
    codes, said = launch(broken, "student", 3, "term", processes=2)
    assert codes == [75, 75], said
    assert "InterruptedTraining: student epoch 1 step 3: training was told to stop" in said
    assert launch(broken, processes=2)[0] == [0, 0]
    assert artifact(broken) == artifact(whole)


def test_other_processes_than_before_go_on_from_the_same_place(tmp_path: Path) -> None:
    root = prepare(tmp_path, toy())
    assert launch(root, "teacher", 8, "term")[0] == [75]
    codes, said = launch(root, processes=2)
    assert codes == [0, 0], said
    assert "teacher: 2 processes go on for 1: with other random numbers" in said
    curve = [json.loads(line) for line in (root / "out" / "curves.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in curve] == [6, 12, 18, 8, 16]


def test_two_processes_short_of_memory_begin_again_with_half_a_batch(tmp_path: Path) -> None:
    root = prepare(tmp_path, toy())
    codes, said = launch(root, "teacher", 3, "memory", processes=2)
    assert 75 in codes, said
    assert "Remedy: start again: it then takes 128" in said
    codes, said = launch(root, processes=2)
    assert codes == [0, 0], said
    facts = json.loads((root / "out" / "model.json").read_text("utf-8"))["facts"]
    assert facts == {"processes": 2, "teacher_batch_rows_halved_to": 128}

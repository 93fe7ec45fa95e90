"""A killed training resumes to the same bytes as one that nobody disturbed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.spec import UseCase
from tests.unit.training.conftest import make_spec, write

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


def prepare(root: Path, spec: UseCase) -> Path:
    write(root / "data", "binary")
    (root / "spec.json").write_text(spec.model_dump_json(), "utf-8")
    return root


def launch(root: Path, network: str = "-", step: int = 0, how: str = "none", processes: int = 1) -> tuple[int, str]:
    """Exit code, and all that was said."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(processes)]
    command += ["-m", "tests.unit.training.killing", str(root), network, str(step), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stdout + done.stderr


def artifact(root: Path) -> dict[str, bytes]:
    return {name: (root / "out" / name).read_bytes() for name in SAME}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = prepare(tmp_path_factory.mktemp("undisturbed"), toy())
    code, said = launch(root)
    assert code == 0, said
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
        assert code == -9, said
    assert any("teacher-done" in path.name for path in (root / "checkpoints").iterdir())
    code, said = launch(root)
    assert code == 0, said
    assert '"teacher_loss"' not in said, "the teacher was finished by an earlier try"
    assert artifact(root) == undisturbed


@pytest.mark.parametrize(("network", "harm"), [("teacher", cut), ("teacher", flip), ("student", empty)])
def test_a_checkpoint_that_is_not_what_was_written_is_passed_over_for_the_one_before(
    tmp_path: Path, undisturbed: dict[str, bytes], network: str, harm: Callable[[bytes], bytes]
) -> None:
    root = prepare(tmp_path, toy())
    assert launch(root, network, 8, "kill")[0] == -9
    older, newest = sorted((root / "checkpoints").glob(f"*-{network}-part-*"))
    newest.write_bytes(harm(newest.read_bytes()))
    (root / "checkpoints" / "00000099.writing").write_bytes(b"half")
    code, said = launch(root)
    assert code == 0, said
    assert f"checkpoint {newest.name} is passed over" in said
    assert older.name not in said
    assert artifact(root) == undisturbed


def test_sigterm_writes_a_checkpoint_and_the_next_try_goes_on(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    root = prepare(tmp_path, toy(checkpoint_minutes=60))
    code, said = launch(root, "teacher", 8, "term")
    assert code == 75, said
    assert "InterruptedTraining: teacher epoch 2 step 2: training was told to stop" in said
    code, said = launch(root)
    assert code == 0, said
    assert artifact(root) == undisturbed


def test_two_processes_that_are_killed_or_told_to_stop_resume_to_the_same_bytes(tmp_path: Path) -> None:
    whole = prepare(tmp_path / "whole", toy())
    assert launch(whole, processes=2)[0] == 0
    broken = prepare(tmp_path / "broken", toy())
    assert launch(broken, "teacher", 9, "kill", processes=2)[0] != 0
    code, said = launch(broken, "student", 3, "term", processes=2)
    assert "InterruptedTraining: student epoch" in said, (code, said)
    assert launch(broken, processes=2)[0] == 0
    assert artifact(broken) == artifact(whole)

"""Checkpoint files: what they hold, which are used, which are kept."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.checkpoint import Store, identity, pack, unpack
from pipelines.training.job import Job
from tests.unit.training.conftest import make_spec


def state(store: Store, stage: str) -> Any:
    content = store.newest(stage)
    return None if content is None else unpack(content)["state"]


def test_a_tree_of_tensors_and_values_comes_back_bit_for_bit() -> None:
    shared = torch.randn(3)
    tree = {
        "a": [shared, shared, torch.tensor(7.0), torch.zeros(0, 2), torch.arange(4, dtype=torch.uint8)],
        "b": {0: {"step": torch.tensor(3.0), "lr": 0.1 + 0.2}, 1: (1, None, True, "text", math.inf)},
        "c": torch.eye(3)[:, 1],
    }
    back = unpack(pack(tree))
    assert list(back["b"]) == [0, 1], "keys keep their type"
    assert back["b"][1] == (1, None, True, "text", math.inf)
    assert back["b"][0]["lr"] == 0.1 + 0.2
    for one, other in zip([*tree["a"], tree["c"]], [*back["a"], back["c"]], strict=True):  # type: ignore[misc]
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    with pytest.raises(TypeError, match="cannot hold object"):
        pack({"x": object()})


def test_the_two_newest_are_kept_and_a_finished_stage_keeps_one(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    for step in range(4):
        store.save("teacher", {"step": step})
    assert [path.name[:8] for path in sorted(tmp_path.iterdir())] == ["00000003", "00000004"]
    store.save("teacher", {"step": 9}, finished=True)
    store.save("student", {"step": 1})
    assert [path.name[:21] for path in sorted(tmp_path.iterdir())] == ["00000005-teacher-done", "00000006-student-part"]
    assert state(store, "teacher") == {"step": 9}
    store.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "renamed"])
def test_a_file_that_is_not_what_was_written_is_passed_over(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, "key")
    store.save("teacher", {"step": 1, "net": torch.ones(5)})
    newest = store.save("teacher", {"step": 2, "net": torch.ones(5)})
    content = newest.read_bytes()
    if how == "renamed":
        newest.rename(tmp_path / newest.name.replace(newest.name[-40:-30], "0" * 10))
    else:
        newest.write_bytes({"cut": content[:-1], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}[how])
    with caplog.at_level(logging.WARNING):
        assert state(store, "teacher")["step"] == 1
    assert "is passed over: its bytes are not those that were written" in caplog.text


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(tmp_path, "one").save("teacher", {"step": 1})
    assert state(Store(tmp_path, "other"), "teacher") is None
    assert "another training's" in caplog.text


def test_what_is_trained_on_which_bytes_is_the_identity_and_where_is_not(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"rows")

    def of(threads: int = 1, **training: Any) -> str:
        spec = make_spec("binary", **training)
        return identity(Job(spec=spec, data=tmp_path, out=tmp_path / "out", threads=threads))

    first = of()
    assert of(threads=2, processes=4, checkpoint_minutes=1, trainer="sagemaker") == first
    assert of(seed=8) != first
    (tmp_path / "train.parquet").write_bytes(b"rows!")
    assert of() != first

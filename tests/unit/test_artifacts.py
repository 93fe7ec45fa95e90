"""Sealed folders: what was sealed verifies, and nothing else does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import artifacts
from pipelines.errors import IntegrityError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "model.onnx").write_bytes(b"weights")
    (made / "sub" / "notes.json").write_bytes(b"{}")
    return made


def test_a_sealed_folder_verifies_and_sealing_it_again_changes_nothing(folder: Path) -> None:
    digest = artifacts.seal(folder)
    artifacts.verify(folder, digest)
    before = (folder / "digests.json").read_bytes()
    assert list(json.loads(before)) == ["model.onnx", "sub/notes.json"]
    assert artifacts.seal(folder) == digest
    assert (folder / "digests.json").read_bytes() == before


def test_the_digest_depends_on_the_bytes_and_the_names_and_not_on_the_place(folder: Path, tmp_path: Path) -> None:
    digest = artifacts.seal(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    artifacts.verify(moved, digest)
    (moved / "model.onnx").rename(moved / "other.onnx")
    assert artifacts.seal(moved) != digest


def _flip(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"weightz")


def _swap(folder: Path) -> None:
    first, second = folder / "model.onnx", folder / "sub" / "notes.json"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def _outside_link(folder: Path) -> None:
    (folder.parent / "same").write_bytes(b"weights")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(folder.parent / "same")


def _linked_folder(folder: Path) -> None:
    (folder / "sub").rename(folder.parent / "real")
    (folder / "sub").symlink_to(folder.parent / "real")


def _hard_link(folder: Path) -> None:
    os.link(folder / "model.onnx", folder.parent / "other-name")


def _forge(folder: Path) -> None:
    _flip(folder)
    artifacts.seal(folder)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_flip, "changed: model.onnx"),
        (_swap, "changed: model.onnx, sub/notes.json"),
        (lambda folder: (folder / "evil.pkl").write_bytes(b""), "added: evil.pkl"),
        (lambda folder: (folder / "model.onnx").unlink(), "missing: model.onnx"),
        (lambda folder: (folder / "digests.json").unlink(), "digests.json is missing"),
        (lambda folder: (folder / "digests.json").write_bytes(b"{}"), "not the one that was sealed"),
        (_forge, "not the one that was sealed"),
        (_outside_link, "model.onnx is a link"),
        (_linked_folder, "sub is a link"),
        (_hard_link, "hard link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe is a link or no plain file"),
    ],
)
def test_a_changed_folder_is_refused(folder: Path, tamper: Callable[[Path], object], said: str) -> None:
    digest = artifacts.seal(folder)
    tamper(folder)
    with pytest.raises(IntegrityError, match=said):
        artifacts.verify(folder, digest)


def test_a_folder_that_is_itself_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    digest = artifacts.seal(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(IntegrityError, match="not a folder"):
        artifacts.verify(tmp_path / "link", digest)
    with pytest.raises(IntegrityError, match="not a folder"):
        artifacts.verify(tmp_path / "nowhere", digest)


def test_a_link_cannot_be_sealed(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="passwd is a link"):
        artifacts.seal(folder)


def test_a_file_too_large_is_refused_by_its_size_alone(folder: Path) -> None:
    digest = artifacts.seal(folder)
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(artifacts.MAX_FILE_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(IntegrityError, match="larger than"):
        artifacts.verify(folder, digest)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 3)
    for i in range(2):
        (folder / str(i)).write_bytes(b"")
    with pytest.raises(IntegrityError, match="more than 3 files"):
        artifacts.seal(folder)


def test_digests_larger_than_any_of_ours_are_not_read(folder: Path) -> None:
    digest = artifacts.seal(folder)
    (folder / "digests.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(IntegrityError, match="larger than"):
        artifacts.verify(folder, digest)

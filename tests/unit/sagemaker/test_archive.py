"""What comes back from a job is unpacked as if an enemy had packed it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.backends.sagemaker_archive import unpack
from pipelines.errors import IntegrityError

Member = tuple[tarfile.TarInfo, bytes]


def plain(name: str, content: bytes = b"x") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def packed(folder: Path, *members: Member) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_files_come_back_as_they_were_folders_and_a_leading_dot_included(tmp_path: Path) -> None:
    members = (special(".", tarfile.DIRTYPE), plain("./model.json", b"{}"), plain("a/b.bin", b"\0\1"))
    unpack(packed(tmp_path, *members), tmp_path / "out")
    assert (tmp_path / "out" / "model.json").read_bytes() == b"{}"
    assert (tmp_path / "out" / "a" / "b.bin").read_bytes() == b"\0\1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.tar.gz", "out"]


EVIL: dict[str, tuple[Member, ...]] = {
    "out of the folder": (plain("../evil"),),
    "out by a detour": (plain("a/../../evil"),),
    "absolute": (plain("/tmp/evil"),),
    "a symbolic link": (special("link", tarfile.SYMTYPE, "/etc/passwd"),),
    "a link and a file through it": (special("link", tarfile.SYMTYPE, ".."), plain("link/evil")),
    "a hard link": (plain("real"), special("hard", tarfile.LNKTYPE, "real")),
    "a device": (special("null", tarfile.CHRTYPE),),
    "a pipe": (special("pipe", tarfile.FIFOTYPE),),
    "a name with a line break": (plain("model\n.json"),),
    "twice the same name": (plain("model.json"), plain("./model.json")),
    "nothing": (),
    "more bytes than an artifact has": (plain("big", b"\0" * 2_000_000),),
    "more files than an artifact has": tuple(plain(f"{i}", b"") for i in range(1001)),
}


@pytest.mark.parametrize("members", EVIL.values(), ids=EVIL)
def test_an_archive_with_anything_else_is_refused_and_leaves_nothing(
    tmp_path: Path, members: tuple[Member, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    archive = packed(home, *members)
    with pytest.raises(IntegrityError, match=r"model\.tar\.gz"):
        unpack(archive, home / "work" / "out", max_bytes=1_000_000)
    assert list((home / "work").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw[100:], lambda raw: raw[:0]])
def test_a_torn_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    import random

    archive = packed(tmp_path, plain("weights", random.Random(1).randbytes(200_000)))
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(IntegrityError):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()

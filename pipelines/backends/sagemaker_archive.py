"""model.tar.gz -> an artifact folder. It comes from a machine that was rented: nothing in it is trusted."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from pipelines.artifacts import MAX_FILES, building
from pipelines.errors import IntegrityError, explain

#: Decompressed bytes of everything together.
MAX_BYTES = 8 * 2**30
_BLOCK = 2**20


def unpack(archive: Path, out: Path, max_bytes: int = MAX_BYTES) -> None:
    """Unpacks plain files; `out` appears complete or not at all.

    Raises:
        IntegrityError: it is no tar.gz, holds a link or a device, a name that is absolute, leads out, comes twice or is
            no plain text, or too many files or bytes.
    """
    try:
        with building(out) as folder:
            _extract(archive, folder, max_bytes)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _refused(archive, f"it cannot be unpacked: {error}") from error


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    left, files = max_bytes, 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise _refused(archive, f"{member.name!r} is a link or no plain file")
            target = folder / _inside(archive, member.name)
            files += 1
            # Stated sizes are checked before anything is written; what is written is counted all the same.
            if files > MAX_FILES or member.size > left:
                raise _refused(archive, f"more than {MAX_FILES} files or {max_bytes} bytes")
            if target.exists():
                raise _refused(archive, f"{member.name!r} comes twice")
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, target.open("xb") as sink:
                left -= _copy(source, sink)
    if files == 0:
        raise _refused(archive, "it holds no file")


def _copy(source: IO[bytes], sink: IO[bytes]) -> int:
    written = 0
    while block := source.read(_BLOCK):
        written += sink.write(block)
    return written


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or not name.isprintable() or "\\" in name:
        raise _refused(archive, f"{name!r} is not a name inside the artifact")
    return path


def _refused(archive: Path, what: str) -> IntegrityError:
    return IntegrityError(explain(f"artifact archive {archive.name}", what, remedy="look at what the job wrote"))

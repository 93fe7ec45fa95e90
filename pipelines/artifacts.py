"""Sealed folders: a digest of every file, checked before any of them is parsed. Standard library only."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import IntegrityError, explain

DIGESTS = "digests.json"
#: A sealed artifact is a small model and its papers: anything larger is not one of ours.
MAX_FILES = 1000
MAX_FILE_BYTES = 4 * 2**30
_MAX_DIGESTS_BYTES = 2**20
_BLOCK = 2**20


def seal(folder: Path) -> str:
    """Writes digests.json, the SHA-256 of every other file, and returns the folder's digest.

    Sealing a sealed folder whose files did not change gives the same bytes and the same digest.

    Returns:
        SHA-256 (hex) of digests.json: one line of JSON, sorted by path, {"path/in/folder": "sha256", ...}.

    Raises:
        IntegrityError: the folder holds a link, something that is no plain file, too many files, or one too large.
    """
    content = _canonical({name: _sha256(folder / name) for name in _files(folder)})
    target = folder / DIGESTS
    if not target.exists() or target.read_bytes() != content:
        partial = folder.parent / f".{folder.name}.{DIGESTS}"
        partial.write_bytes(content)
        partial.replace(target)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A folder to fill beside `out`, which takes its name when the block ends well; `out` appears whole or not at all.

    What a process that was killed had begun is swept away.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.building-"
    for abandoned in out.parent.glob(f"{prefix}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verify(folder: Path, digest: str) -> None:
    """Checks that a folder holds exactly what was sealed. Nothing is parsed before its digest is known to be right.

    Args:
        digest: what `seal` returned, kept apart from the folder.

    Raises:
        IntegrityError: a file was changed, added or removed, is a link or no plain file, or is too large.
    """
    files = _files(folder)
    target = folder / DIGESTS
    if not target.exists():
        raise _broken(folder, f"{DIGESTS} is missing")
    if target.stat().st_size > _MAX_DIGESTS_BYTES:
        raise _broken(folder, f"{DIGESTS} is larger than {_MAX_DIGESTS_BYTES} bytes")
    content = target.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise _broken(folder, f"{DIGESTS} is not the one that was sealed as {digest}")
    sealed: dict[str, str] = json.loads(content)
    if missing := sorted(sealed.keys() - set(files)):
        raise _broken(folder, f"missing: {', '.join(missing)}")
    if added := sorted(set(files) - sealed.keys()):
        raise _broken(folder, f"added: {', '.join(added)}")
    if changed := [name for name in files if _sha256(folder / name) != sealed[name]]:
        raise _broken(folder, f"changed: {', '.join(changed)}")


def read(folder: Path, digest: str | None, *names: str) -> list[bytes]:
    """Files of a sealed folder, each read once: the bytes that are given back are those that were compared.

    So nothing that is put into the folder after `verify` is ever parsed.

    Args:
        digest: what `seal` returned; None trusts the folder's own digests.json, as training does with its own work.

    Raises:
        IntegrityError: a file is not the one that was sealed.
    """
    target = folder / DIGESTS
    if target.stat().st_size > _MAX_DIGESTS_BYTES:
        raise _broken(folder, f"{DIGESTS} is larger than {_MAX_DIGESTS_BYTES} bytes")
    content = target.read_bytes()
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise _broken(folder, f"{DIGESTS} is not the one that was sealed as {digest}")
    sealed: dict[str, str] = json.loads(content)
    found = []
    for name in names:
        if name not in sealed or not (folder / name).is_file():
            raise _broken(folder, f"missing: {name}")
        found.append((folder / name).read_bytes())
        if hashlib.sha256(found[-1]).hexdigest() != sealed.get(name):
            raise _broken(folder, f"changed: {name}")
    return found


def _files(folder: Path) -> list[str]:
    """Every file but digests.json, relative and sorted. Links are refused, never followed."""
    if folder.is_symlink() or not folder.is_dir():
        raise _broken(folder, "it is not a folder")
    found: list[str] = []
    pending = [folder]
    while pending:
        for path in pending.pop().iterdir():
            name = path.relative_to(folder).as_posix()
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode):
                pending.append(path)
                continue
            if not stat.S_ISREG(info.st_mode):
                raise _broken(folder, f"{name} is a link or no plain file")
            if info.st_nlink > 1:
                raise _broken(folder, f"{name} is a hard link: its bytes can be changed from elsewhere")
            if info.st_size > MAX_FILE_BYTES:
                raise _broken(folder, f"{name} is larger than {MAX_FILE_BYTES} bytes")
            if name != DIGESTS:
                found.append(name)
            if len(found) > MAX_FILES:
                raise _broken(folder, f"it holds more than {MAX_FILES} files")
    return sorted(found)


def _canonical(digests: dict[str, str]) -> bytes:
    return json.dumps(digests, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _broken(folder: Path, what: str) -> IntegrityError:
    return IntegrityError(
        explain(f"artifact {folder}", what, remedy="fetch it again; if that fails, roll back to another version")
    )

"""DataSource on a folder: a landing zone where source systems drop files, one a partition.

CSV and JSON lines may be gzipped (a path that ends in .gz). A file is read whole, within its table's caps, and its
digest is that of the bytes that were read.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import partitions as keys
from pipelines.errors import InputError, MissingInput, SpecError, UnavailableError, explain
from pipelines.ports import STATIC, LandedFrame
from pipelines.records import Check, SourceFile
from pipelines.spec import Table, UseCase
from pipelines.tabular.delimited import read_csv
from pipelines.tabular.jsonlines import read_jsonl

if TYPE_CHECKING:
    import polars as pl

_PIECE = 2**20
#: gzip shrinks tables some 5 to 50 times. Past this ratio (and this size) a file is a bomb, whatever max_bytes allows.
_MAX_RATIO = 250
_RATIO_FROM = 64 * 2**20


class Files:
    """The landing zone under `root`. Nothing outside it is ever read, not by a key and not through a link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def partitions(self, spec: UseCase, table: str) -> list[str]:
        """The keys whose files are there, sorted; `[STATIC]` for a static table. Other names are passed over.

        Raises:
            SpecError: the use case has no such table.
        """
        wanted = _table(spec, table)
        if wanted.static:
            return [STATIC] if (self._root / wanted.path).is_file() else []
        head, *rest = (re.escape(part) for part in wanted.path.split("{partition}"))
        shape = re.compile(head + "(?P<key>[^/]+)" + "(?P=key)".join(rest))
        found = []
        for path in self._root.glob(wanted.path.replace("{partition}", "*")):
            match = shape.fullmatch(path.relative_to(self._root).as_posix())
            if match and _is_key(match["key"], spec) and path.is_file():
                found.append(match["key"])
        return sorted(found)

    def files(self, spec: UseCase, table: str, partition: str) -> tuple[SourceFile, ...]:
        """The partition's file with its digest, unread; empty when there is none.

        Raises:
            SpecError: no such table, or a malformed key.
            InputError: the path leads out of the landing zone, or is no regular file.
            UnavailableError: the disk did not answer.
        """
        where, path = self._locate(spec, table, partition)
        digest, size = hashlib.sha256(), 0
        try:
            with self._open(path, where).open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
        except MissingInput:
            return ()
        except OSError as error:
            raise UnavailableError(explain(where, f"{path} cannot be read: {error.strerror}")) from error
        return (SourceFile(path=self._name(path), sha256=digest.hexdigest(), bytes=size),)

    def read(self, spec: UseCase, table: str, partition: str) -> LandedFrame:
        """Reads one partition, strictly; columns, types and order are the spec's.

        Raises:
            MissingInput: there is no file.
            InputError: the file as a whole cannot be read as the spec says: truncated, another encoding, columns
                missing or extra, over the byte or row cap, or outside the landing zone.
            SpecError: no such table, or a malformed key.
            UnavailableError: the disk did not answer.
        """
        wanted = _table(spec, table)
        where, path = self._locate(spec, table, partition)
        try:
            with self._open(path, where).open("rb") as file:
                raw = file.read(wanted.max_bytes + 1)
        except OSError as error:
            raise UnavailableError(explain(where, f"{path} cannot be read: {error.strerror}")) from error
        if len(raw) > wanted.max_bytes:
            raise _too_large(where, wanted.max_bytes, "max_bytes")
        packed = wanted.path.endswith(".gz") and wanted.format != "parquet"
        data = _gunzip(raw, wanted.max_bytes, where) if packed else raw
        frame, problems = _reader(wanted)(data, wanted, where)
        source = SourceFile(path=self._name(path), sha256=hashlib.sha256(raw).hexdigest(), bytes=len(raw))
        return LandedFrame(frame=frame, sources=(source,), problems=problems)

    def local_path(self, file: SourceFile) -> Path:
        """Where a file that `files` or `read` named lies.

        Raises:
            InputError: the path leads out of the landing zone.
            MissingInput: the file is gone.
        """
        return self._open((self._root / file.path).absolute(), file.path)

    def _name(self, path: Path) -> str:
        """Relative to the landing zone, so that records say the same on every machine."""
        return path.relative_to(self._root.absolute()).as_posix()

    def _locate(self, spec: UseCase, table: str, partition: str) -> tuple[str, Path]:
        """How messages call the partition, and where its file would be."""
        wanted = _table(spec, table)
        if not wanted.static:
            keys.start(partition, spec.granularity)
        elif partition != STATIC:
            raise SpecError(explain(f"{spec.name}/{table}", f"no partition {partition!r}", allowed=f"{STATIC!r} only"))
        relative = wanted.path.replace("{partition}", partition)
        return f"{spec.name}/{table} {partition} ({relative})", (self._root / relative).absolute()

    def _open(self, path: Path, where: str) -> Path:
        """The path behind every link, when it is a regular file inside the root.

        Raises:
            MissingInput: nothing is there.
            InputError: it is outside the root, or a folder, pipe or device.
        """
        real = path.resolve()
        if not real.is_relative_to(self._root.resolve()):
            raise InputError(explain(where, "a link leads out of the landing zone", allowed="files inside it"))
        try:
            mode = real.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            remedy = "wait for the source to send it, then run this partition again"
            raise MissingInput(explain(where, f"there is no such file in {self._root}", remedy=remedy)) from None
        if not stat.S_ISREG(mode):
            raise InputError(explain(where, "not a regular file", allowed="a file"))
        return real


def _table(spec: UseCase, table: str) -> Table:
    if table not in spec.tables:
        raise SpecError(explain(spec.name, f"there is no table {table!r}", allowed=", ".join(spec.tables)))
    return spec.tables[table]


def _reader(table: Table) -> Callable[[bytes, Table, str], tuple[pl.DataFrame, tuple[Check, ...]]]:
    if table.format == "parquet":
        # Loads pyarrow, which nothing else here needs.
        from pipelines.tabular.parquet import read_parquet

        return read_parquet
    return read_jsonl if table.format == "jsonl" else read_csv


def _is_key(text: str, spec: UseCase) -> bool:
    try:
        keys.start(text, spec.granularity)
    except SpecError:
        return False
    return True


def _gunzip(raw: bytes, max_bytes: int, where: str) -> bytes:
    """Decompresses every member of a gzip file, and stops as soon as it grows past what is allowed."""
    remedy = "have the source send the file again"
    if not raw:
        raise InputError(explain(where, "the file is empty (0 bytes)", remedy=remedy))
    cap = min(max_bytes, max(_RATIO_FROM, _MAX_RATIO * len(raw)))
    pieces, size = [], 0
    rest = raw
    while rest:
        if rest[:2] != b"\x1f\x8b"[: len(rest)]:
            what = "not a gzip file" if rest is raw else f"{len(rest)} stray bytes after the end of the gzip stream"
            raise InputError(explain(where, what, allowed="a gzip file, as .gz says", remedy=remedy))
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(rest, _PIECE)
            except zlib.error as error:
                raise InputError(explain(where, f"the gzip file is corrupt: {error}", remedy=remedy)) from None
            rest = member.unconsumed_tail
            size += len(piece)
            if size > cap:
                raise _too_large(where, cap, "max_bytes" if cap == max_bytes else f"{_MAX_RATIO} times its own size")
            pieces.append(piece)
            if not piece and not rest and not member.eof:
                what = f"the gzip file is truncated: it ends after {len(raw)} bytes, within its data"
                raise InputError(explain(where, what, remedy=remedy))
        rest = member.unused_data
    return b"".join(pieces)


def _too_large(where: str, cap: int, rule: str) -> InputError:
    remedy = "have the source send the file again, or raise max_bytes if it is right"
    return InputError(
        explain(where, "the file is too large; reading stopped", allowed=f"{cap} bytes ({rule})", remedy=remedy)
    )

"""Parquet files put one behind the other: row groups are copied as the bytes that they are, and one footer is written.

The result is, byte for byte, what `pipelines.parquet.Writer` had written of all the rows, where every file but the last
ends with a whole row group. To decode and encode a million scores again takes one core longer than two cores take to
make a quarter of them; a copy is a hundred times as fast. pyarrow and Polars have no call for it. The footer's fields:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import compact, parquet

if TYPE_CHECKING:
    from typing import BinaryIO

    from pipelines.compact import Struct

_MAGIC = b"PAR1"
#: The footer's length and the magic word, behind the footer.
_END = 8
#: FileMetaData.
_ROWS, _GROUPS, _NOTES = 3, 4, 5
#: RowGroup.
_COLUMNS, _GROUP_ROWS, _GROUP_AT, _ORDINAL = 1, 3, 5, 7
#: ColumnChunk; the index pages, which lie behind all row groups, are not ours.
_CHUNK_AT, _CHUNK, _INDICES = 2, 3, (4, 6)
#: ColumnMetaData: where its data, index and dictionary pages begin; a bloom filter is not ours either.
_PAGES, _FILTER = (9, 10, 11), 14
_COPIED = 1 << 22


def can_join(files: Sequence[Path]) -> bool:
    """Whether the files, in this order, are a file of `Writer`'s that was cut between row groups."""
    footers = [_footer(file) for file in files]
    alike = all(_about(one) == _about(other) for one, other in pairwise(footers))
    groups = [group for footer in footers for group in footer[_GROUPS].values]
    whole = all(group[_GROUP_ROWS] == parquet.GROUP_ROWS for group in groups[:-1])
    return alike and whole and all(map(_plain, groups))


def join(files: Sequence[Path], path: Path, notes: Mapping[str, str]) -> int:
    """Writes one file of the rows of all, which `can_join` said yes to.

    Args:
        notes: what the footer says in the place of what the files' footers say under the same names.

    Returns:
        Its rows.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    footers = [_footer(file) for file in files]
    told = footers[0]
    with path.open("wb") as out:
        out.write(_MAGIC)
        for number, (file, footer) in enumerate(zip(files, footers, strict=True)):
            _move(footer, out.tell() - len(_MAGIC), 0 if not number else len(told[_GROUPS].values))
            if number:
                told[_GROUPS].values += footer[_GROUPS].values
            with file.open("rb") as piece:
                size = file.stat().st_size - _END - _length(file) - len(_MAGIC)
                piece.seek(len(_MAGIC))
                _copy(piece, out, size)
        told[_ROWS] = sum(footer[_ROWS] for footer in footers)
        for note in told[_NOTES].values:
            name = note[1].decode("utf-8")
            if name in notes:
                note[2] = notes[name].encode("utf-8")
        written = compact.serialize(told)
        out.write(written + len(written).to_bytes(4, "little") + _MAGIC)
    rows: int = told[_ROWS]
    return rows


def _footer(file: Path) -> Struct:
    with file.open("rb") as data:
        data.seek(-_END - _length(file), 2)
        return compact.parse(data.read()[:-_END])


def _length(file: Path) -> int:
    with file.open("rb") as data:
        data.seek(-_END, 2)
        end = data.read()
    if end[4:] != _MAGIC:
        raise ValueError(f"{file}: not a Parquet file")
    return int.from_bytes(end[:4], "little")


def _about(footer: Struct) -> dict[int, object]:
    """What the files of one writer have in common: version, schema, who wrote them."""
    return {number: told for number, told in footer.fields.items() if number not in (_ROWS, _GROUPS, _NOTES)}


def _plain(group: Struct) -> bool:
    """Whether all that belongs to a row group lies between its first page and its last."""
    chunks = group[_COLUMNS].values
    return not any(index in chunk for chunk in chunks for index in _INDICES) and not any(
        _FILTER in chunk[_CHUNK] for chunk in chunks
    )


def _move(footer: Struct, by: int, before: int) -> None:
    """Moves row groups further back by so many bytes, behind so many others."""
    for group in footer[_GROUPS].values:
        _shift(group, _GROUP_AT, by)
        if _ORDINAL in group:
            group[_ORDINAL] += before
        for chunk in group[_COLUMNS].values:
            _shift(chunk, _CHUNK_AT, by)
            for page in _PAGES:
                _shift(chunk[_CHUNK], page, by)


def _shift(struct: Struct, number: int, by: int) -> None:
    if struct.fields.get(number, (0, 0))[1]:  # 0 says that nothing is told
        struct[number] += by


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        block = source.read(min(size, _COPIED))
        if not block:
            raise ValueError("a file that became shorter while it was read")
        target.write(block)
        size -= len(block)

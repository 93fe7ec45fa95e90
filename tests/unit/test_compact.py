"""Thrift's compact protocol, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import compact
from pipelines.compact import List, Struct

_INTEGER, _BINARY, _BOOL, _STRUCT, _LIST = 6, 8, 1, 12, 9
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    3: st.integers(0, 255),
    5: st.integers(-(1 << 31), (1 << 31) - 1),
    _INTEGER: st.integers(-(1 << 63), (1 << 63) - 1),
    7: st.binary(min_size=8, max_size=8),
    _BINARY: st.binary(max_size=300),
}


def _structs(inner: st.SearchStrategy[Struct]) -> st.SearchStrategy[Struct]:
    kinds = {**_SCALARS, _BOOL: st.booleans(), _STRUCT: inner}
    kinds[_LIST] = st.sampled_from([*_SCALARS, _STRUCT]).flatmap(
        lambda kind: st.builds(List, st.just(kind), st.lists({**_SCALARS, _STRUCT: inner}[kind], max_size=20))
    )
    value = st.sampled_from(list(kinds)).flatmap(lambda kind: st.tuples(st.just(kind), kinds[kind]))
    fields = st.dictionaries(st.integers(1, 40), value, max_size=6)
    return fields.map(lambda told: Struct({number: _canonical(*told[number]) for number in sorted(told)}))


def _canonical(kind: int, value: Any) -> tuple[int, Any]:
    """False has a type of its own."""
    return (2 if kind == _BOOL and value is False else kind), value


@given(st.recursive(st.just(Struct()), _structs, max_leaves=6))
def test_what_is_written_is_read(struct: Struct) -> None:
    written = compact.serialize(struct)
    assert compact.parse(written) == struct
    assert compact.serialize(compact.parse(written)) == written


def test_the_examples_of_the_specification() -> None:
    # Zigzag varints: 0, -1, 1, -2; a field whose number is 16 further on has a long header.
    struct = Struct({1: (5, 0), 2: (5, -1), 3: (5, 1), 19: (6, -2)})
    assert compact.serialize(struct) == bytes([0x15, 0, 0x15, 1, 0x15, 2, 0x06, 38, 3, 0])
    # 15 values and more: the size follows.
    numbers = Struct({1: (9, List(5, list(range(15))))})
    assert compact.serialize(numbers)[:3] == bytes([0x19, 0xF5, 15])


@pytest.mark.parametrize(
    "options", [{}, {"write_page_index": True}, {"version": "1.0"}, {"store_schema": False}], ids=str
)
def test_footers_of_other_writers_come_back_as_they_were(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = pa.table({"a": [1, None, 3], "b": ["x", "y", None], "c": [[1.5], [], None], "d": [True, False, None]})
    pq.write_table(rows, tmp_path / "file", row_group_size=1, **options)
    data = (tmp_path / "file").read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert compact.serialize(compact.parse(footer)) == footer


@pytest.mark.parametrize("data", [b"", b"\x15", b"\x18\x05abc\x00", b"\x15\x02\x00\x00", b"\x1b\x00\x00"], ids=repr)
def test_what_is_no_struct_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no end|follow|type"):
        compact.parse(data)

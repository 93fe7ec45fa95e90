"""Thrift's compact protocol, as far as Parquet's footers use it: parsed without a schema, and written back as it was.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 12
#: i16, i32, i64: zigzag varints.
_INTEGERS = (4, 5, 6)
_LONG_LIST = 15


@dataclass(slots=True)
class Struct:
    """A struct's fields by number, in their order: type and value. Integers are int, text is bytes, lists are lists."""

    fields: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def __contains__(self, number: int) -> bool:
        return number in self.fields

    def __getitem__(self, number: int) -> Any:
        return self.fields[number][1]

    def __setitem__(self, number: int, value: Any) -> None:
        """Another value of the same type, for a field that is there."""
        self.fields[number] = (self.fields[number][0], value)


@dataclass(slots=True)
class List:
    """A list's values, which all have one type."""

    kind: int
    values: list[Any]


def parse(data: bytes) -> Struct:
    """The struct that some bytes are.

    Raises:
        ValueError: they are none, or hold what no footer does (a map, a set).
    """
    try:
        reader = _Reader(data)
        found = reader.struct()
    except IndexError:
        raise ValueError("the struct has no end") from None
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes follow the struct")
    return found


def serialize(struct: Struct) -> bytes:
    """The bytes of a struct: of one that was parsed, those that it was parsed from."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> Struct:
        found, number = Struct(), 0
        while (head := self._byte()) != _STOP:
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            found.fields[number] = (kind, kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind == _LIST:
            head = self._byte()
            size = self._varint() if head >> 4 == _LONG_LIST else head >> 4
            inner = head & 0x0F
            return List(inner, [self._value(inner) for _ in range(size)])
        if kind in (_TRUE, _FALSE, _BYTE):  # in a list: a byte each
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError(f"a value of type {kind} at byte {self.at}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self._data):
            raise IndexError
        return self._data[self.at - size : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def _write_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for number, (kind, value) in struct.fields.items():
        told = (_TRUE if value else _FALSE) if kind in (_TRUE, _FALSE) else kind
        if 0 < number - before <= 15:
            out.append((number - before) << 4 | told)
        else:
            out.append(told)
            _varint(out, _zigzag(number))
        before = number
        if kind not in (_TRUE, _FALSE):
            _write(out, kind, value)
    out.append(_STOP)


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _varint(out, _zigzag(value))
    elif kind == _BINARY:
        _varint(out, len(value))
        out += value
    elif kind == _STRUCT:
        _write_struct(out, value)
    elif kind == _LIST:
        size = len(value.values)
        out.append(min(size, _LONG_LIST) << 4 | value.kind)
        if size >= _LONG_LIST:
            _varint(out, size)
        for each in value.values:
            _write(out, value.kind, each)
    elif kind == _DOUBLE:
        out += value
    else:
        out.append(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)

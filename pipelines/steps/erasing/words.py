"""Words in files: how a value may be spelled, and what bytes say once they are unpacked and decoded."""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Iterator
from functools import cached_property

_PIECE = 2**20


def forms_of(word: str) -> list[str]:
    """How a word may be written: plain, in JSON, in quoted CSV, in HTML, in Python's repr."""
    forms = (
        word,
        json.dumps(word)[1:-1],
        json.dumps(word, ensure_ascii=False)[1:-1],
        word.replace('"', '""'),
        html.escape(word),
        html.escape(repr(word))[6:-6],
        repr(word)[1:-1],
    )
    return list(dict.fromkeys(form for form in forms if form))


class Words:
    """Spellings that are looked for, not as a part of a longer word."""

    def __init__(self, forms: list[str]) -> None:
        """Takes every spelling."""
        self._forms = forms

    def found_in(self, text: str) -> bool:
        """Whether a text holds any of them as a whole word."""
        return any(form in text for form in self._forms) and self._pattern.search(text) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, self._forms))})(?!\w)")


def decoded(data: bytes) -> Iterator[str]:
    """The text of a file, in each encoding that it may be in."""
    yield data.decode("utf-8", errors="replace")
    if b"\0" in data:
        yield data.decode("utf-16-le", errors="replace")
        yield data.decode("utf-16-be", errors="replace")
    elif not _is_utf8(data):
        yield data.decode("latin-1")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def inflated(data: bytes, cap: int) -> tuple[bytes, bool]:
    """What can be decompressed of a gzip file, and whether that is all of it."""
    pieces: list[bytes] = []
    size = 0
    while data[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(data, _PIECE)
            except zlib.error:
                return b"".join(pieces), False
            data = member.unconsumed_tail
            pieces.append(piece)
            size += len(piece)
            if size > cap or (not piece and not data and not member.eof):
                return b"".join(pieces), False
        data = member.unused_data
    return b"".join(pieces), not data

"""Words are found by the bytes of their views: the same codes as Polars' own look by text."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.scoring.encode import Encoder
from pipelines.scoring.inline import InlineWords

NULL_WORDS = ("", "None", "nan", "<NA>")


def _encoder(words: list[str]) -> Encoder:
    return Encoder(feature="t", words=tuple(words), null_words=NULL_WORDS, unknown=0, missing=1, first=2)


def _short(word: str) -> bool:
    return len(word.encode("utf-8")) <= 12 and word not in NULL_WORDS


TEXT = st.text(st.characters(codec="utf-8"), max_size=14)


@given(
    words=st.lists(TEXT.filter(_short), unique=True, max_size=60),
    others=st.lists(st.none() | TEXT | st.sampled_from(NULL_WORDS), max_size=40),
    data=st.data(),
)
@example(words=["ab", "ab\x00", "a", "123456789012"], others=["ab\x00\x00", "1234567890123", "A", None], data=None)
def test_codes_are_those_of_the_expression(
    words: list[str], others: list[str | None], data: st.DataObject | None
) -> None:
    encoder = _encoder(words)
    drawn = list(words) if data is None else data.draw(st.lists(st.sampled_from([*words, *NULL_WORDS]), max_size=80))
    values = pl.Series("t", [*drawn, *others, *words], dtype=pl.String)
    assert encoder._inline is not None
    expected = values.to_frame().select(encoder.expression()).to_series().to_numpy()
    np.testing.assert_array_equal(encoder.encode(values), expected)
    # A slice of a column lies somewhere within its buffers, and a column may have several chunks.
    np.testing.assert_array_equal(encoder.encode(values[1:]), expected[1:])
    np.testing.assert_array_equal(encoder.encode(pl.concat([values[:3], values[3:]], rechunk=False)), expected)


@pytest.mark.parametrize("long", ["1234567890123", "ééééééé"])
def test_a_longer_word_is_looked_up_by_its_text(long: str) -> None:
    encoder = _encoder(["a", long])
    assert encoder._inline is None
    values = pl.Series("t", [long, "a", None, "b", "nan"])
    assert encoder.encode(values).tolist() == [3, 2, 1, 0, 1]


def test_more_words_than_a_table_has_room_for_are_looked_up_by_their_text() -> None:
    words = [f"w{number}" for number in range(20_000)]
    encoder = _encoder(words)
    assert encoder._inline is None
    assert encoder.encode(pl.Series("t", ["w19999", "w0", "x"])).tolist() == [20_001, 2, 0]


@pytest.mark.parametrize("count", [1, 30, 300])
def test_every_word_has_a_place_of_its_own_and_no_other_has_one(count: int) -> None:
    words = [f"w{number}" for number in range(count)]
    table = InlineWords.of(words)
    assert table is not None
    assert table.places(pl.Series(words)).tolist() == list(range(count))
    others = pl.Series([f"x{number}" for number in range(5000)])
    assert (table.places(others) == count).all()
    again = InlineWords.of(words)
    assert again is not None
    assert again.factors == table.factors


def test_no_words_need_no_table() -> None:
    assert InlineWords.of([]) is None
    assert _encoder([]).encode(pl.Series("t", ["a", "", None], dtype=pl.String)).tolist() == [0, 1, 1]
    assert _encoder(["a"]).encode(pl.Series("t", [None, None], dtype=pl.Null)).tolist() == [1, 1]
    assert _encoder(["a"]).encode(pl.Series("t", [], dtype=pl.String)).tolist() == []

"""What is counted while rows are scored: the same as a look at each value by itself, whatever the value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.backends.files import Files
from pipelines.backends.psi import PopulationStability
from pipelines.counts import Coded, Counter, Edges, Words, column_counts, total
from pipelines.features.flights import build
from pipelines.ports import STATIC
from pipelines.records import CategoricalReference, ColumnCounts, Counts, NumericReference, Reference
from pipelines.scoring.encode import Encoder
from tests.cases import Case

NULL, UNSEEN = -1, -2


def binned(values: pl.Series, edges: Sequence[float] = (), words: Sequence[str] | None = None) -> ColumnCounts:
    """The same definition once more, as one Polars expression over float64 and text."""
    column = pl.col("x")
    if words is None:
        number = column.cast(pl.Float64).fill_nan(None)
        above = [(number >= edge).cast(pl.Int32) for edge in edges]
        bins = pl.when(number.is_null()).then(NULL).otherwise(pl.sum_horizontal(above) if above else 0)
        size = len(edges) + 1
    else:
        text, size = column.cast(pl.String), len(words)
        numbers = pl.Series(range(size), dtype=pl.Int32)
        known = text.replace_strict(pl.Series(words, dtype=pl.String), numbers, default=UNSEEN) if words else UNSEEN
        bins = pl.when(text.is_null()).then(NULL).otherwise(known)
    found = values.alias("x").to_frame().select(bins.cast(pl.Int32).alias("bin")).get_column("bin").to_list()
    counts = tuple(found.count(i) for i in range(size))
    return ColumnCounts(bins=counts, nulls=found.count(NULL), unseen=found.count(UNSEEN))


EDGES = st.lists(
    st.floats(allow_nan=False, allow_infinity=False)  # most of them no float32 has, some it does not even reach
    | st.sampled_from([0.1, -0.0, 0.0, 1e-46, -1e-46, 3.5e38, -3.5e38, 1.7e308, 5e-324, 16777217.0]),
    max_size=12,
    unique=True,
).map(sorted)


@st.composite
def numbers(draw: st.DrawFn) -> tuple[list[float], pl.Series]:
    """Edges, and values of which many are an edge or its neighbour."""
    edges = draw(EDGES)
    dtype = draw(st.sampled_from([pl.Float32, pl.Float64]))
    single = dtype == pl.Float32
    with np.errstate(over="ignore"):
        near = [float(np.float32(edge)) if single else edge for edge in edges]
        step = np.float32 if single else np.float64
        near += [float(np.nextafter(step(edge), step(way))) for edge in near for way in (-np.inf, np.inf)]
    value = st.none() | st.floats(width=32 if single else 64)
    values = draw(st.lists(value | st.sampled_from(near) if near else value, max_size=60))
    return edges, pl.Series("x", values, dtype=dtype)


@given(numbers())
@settings(deadline=None, max_examples=300)
def test_numbers_fall_where_their_exact_value_is_to_the_last_bit(drawn: tuple[list[float], pl.Series]) -> None:
    edges, values = drawn
    assert column_counts(Edges(edges).tally(values)) == binned(values, edges)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("x", [1, 2, None, -(2**53) - 1, 2**53 + 1], dtype=pl.Int64),
        pl.Series("x", [True, None, False], dtype=pl.Boolean),
        pl.Series("x", [None, None], dtype=pl.Null),
        pl.Series("x", [], dtype=pl.Float32),
        pl.Series("x", [None] * 5, dtype=pl.Float32),
        pl.Series("x", [0.5, math.inf, -math.inf, math.nan, None], dtype=pl.Float32),
        pl.concat([pl.Series("x", [0.5], dtype=pl.Float32), pl.Series("x", [None, 1.5], dtype=pl.Float32)]),
    ],
    ids=["whole numbers", "truths", "no type", "no rows", "all null", "infinities", "in pieces"],
)
@pytest.mark.parametrize("edges", [(), (0.5,), (-1.0, 0.1, 1.0, 2.0**53)])
def test_whatever_a_numeric_column_is_made_of_is_counted(values: pl.Series, edges: Sequence[float]) -> None:
    assert column_counts(Edges(edges).tally(values)) == binned(values, edges)


def test_more_rows_than_a_cache_holds_are_all_counted() -> None:
    values = pl.Series("x", np.random.default_rng(3).normal(size=150_001).astype(np.float32))
    edges = (-1.0, 0.1, 0.3)
    found = column_counts(Edges(edges).tally(values))
    assert found.bins == tuple(np.histogram(values.to_numpy().astype(np.float64), [-np.inf, *edges, np.inf])[0])


WORDS = st.sampled_from(["a", "b", "ä", "", " ", "null", "None", "-1", "a\x00", "🛩"])


@given(st.lists(WORDS, unique=True, max_size=8), st.lists(st.none() | WORDS, max_size=60))
@settings(deadline=None, max_examples=200)
def test_words_of_the_reference_unseen_words_and_nulls_are_told_apart(
    known: list[str], values: list[str | None]
) -> None:
    column = pl.Series("x", values, dtype=pl.String)
    assert column_counts(Words(known).tally(column)) == binned(column, words=known)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("x", ["a", "new", None], dtype=pl.Categorical),
        pl.Series("x", ["b", None, "a"], dtype=pl.Enum(["b", "a"])),
        pl.Series("x", [None, None], dtype=pl.Null),
        pl.Series("x", [True, False, None], dtype=pl.Boolean),
        pl.Series("x", [1, 2, None], dtype=pl.Int64),
    ],
)
@pytest.mark.parametrize("known", [(), ("a", "true", "1"), tuple(f"w{i}" for i in range(300))])
def test_whatever_a_categorical_column_is_made_of_is_counted(values: pl.Series, known: Sequence[str]) -> None:
    assert column_counts(Words(known).tally(values)) == binned(values, words=known)


@given(
    known=st.lists(WORDS, unique=True, max_size=8),
    vocabulary=st.lists(WORDS, unique=True, max_size=8),
    null_words=st.sampled_from([("",), (), ("", "null", "None")]),
    last=st.booleans(),
    values=st.lists(st.none() | WORDS, max_size=60),
)
@settings(deadline=None, max_examples=300)
def test_words_are_counted_by_the_models_codes_as_they_are_by_themselves(
    known: list[str],
    vocabulary: list[str],
    null_words: tuple[str, ...],
    last: bool,
    values: list[str | None],
) -> None:
    words = tuple(word for word in vocabulary if word not in null_words)
    # "Anything else" has a code before those of the words, or after.
    unknown, missing, first = (len(words) + 1, 0, 1) if last else (0, 1, 2)
    encoder = Encoder(feature="x", words=words, null_words=null_words, unknown=unknown, missing=missing, first=first)
    column = pl.Series("x", values, dtype=pl.String)
    codes = column.to_frame().select(encoder.expression()).to_series().to_numpy()
    assert column_counts(Coded(Words(known), encoder).tally(column, codes)) == binned(column, words=known)


def frozen(words: Sequence[str] = ("a", "b")) -> bytes:
    """A reference.json of one numeric column and one categorical one."""
    numeric = NumericReference(edges=(0.1, 0.7), counts=(1, 2, 3), nulls=0)
    return (
        Reference(
            rows=6,
            numeric={"x": numeric},
            categorical={"c": CategoricalReference(counts=dict.fromkeys(words, 1), nulls=0)},
            score=numeric,
            score_rows=6,
        )
        .model_dump_json()
        .encode()
    )


ROWS = st.lists(
    st.tuples(st.none() | st.floats(width=32), st.sampled_from(["a", "b", "z", None]), st.floats(0, 1, width=32)),
    max_size=30,
)


def counts(rows: Sequence[tuple[float | None, str | None, float]], reference: bytes = frozen()) -> Counts:
    """Of rows that were scored together; none are scored in no batch."""
    counter = Counter(reference)
    if rows:
        x, c, score = zip(*rows, strict=True)
        frame = pl.DataFrame({"x": x, "c": c}, schema={"x": pl.Float32, "c": pl.String})
        scores = np.asarray(score, np.float32)
        counter.add(frame, scores, pl.Series("prediction", scores > 0.5))
    return counter.counts()


@given(ROWS, ROWS, ROWS)
@settings(deadline=None, max_examples=80)
def test_parts_add_up_to_the_whole_in_any_order_and_grouping(first: list, second: list, third: list) -> None:  # type: ignore[type-arg]
    one, two, three = map(counts, (first, second, third))
    whole = counts([*first, *second, *third])
    assert total([one, two, three]) == whole
    assert total([total([one, two]), three]) == total([one, total([two, three])]) == whole
    assert total([three, one, two]) == whole
    assert total([total([three, two]), one]).model_dump_json() == whole.model_dump_json()


def test_counts_of_other_references_of_other_columns_and_of_nothing_do_not_add_up() -> None:
    rows = [(0.5, "a", 0.5)]
    for parts in (
        [counts(rows), counts(rows, frozen(("a", "b", "c")))],
        [counts(rows), counts(rows).model_copy(update={"columns": {}})],
        [],
    ):
        with pytest.raises(ValueError, match="add up"):
            total(parts)


def test_decisions_and_the_highest_score_of_several_classes_are_counted() -> None:
    counter = Counter(frozen())
    rows = pl.DataFrame({"x": [0.0, 1.0, 2.0], "c": ["a", "b", None]}, schema={"x": pl.Float32, "c": pl.String})
    scores = np.asarray([[0.05, 0.9, 0.05], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]], np.float32)
    counter.add(rows, scores, pl.Series(["late", "on time", "on time"]))
    counter.add(rows.head(0), scores[:0], pl.Series([], dtype=pl.String))
    found = counter.counts()
    assert found.rows == 3
    assert found.score == ColumnCounts(bins=(0, 1, 2))
    assert found.decisions == {"late": 1, "on time": 2}


def test_only_the_columns_that_are_asked_for_are_counted() -> None:
    counter = Counter(frozen(), ["x"])
    counter.add(pl.DataFrame({"x": [0.1, None]}, schema={"x": pl.Float32}))
    found = counter.counts()
    # The nearest float32 to 0.1 is above it.
    assert found.columns == {"x": ColumnCounts(bins=(0, 1, 0), nulls=1)}
    assert found.score is None


@given(st.lists(st.integers(0, 3) | st.integers(0, 10**12), max_size=40), st.integers(0, 9), st.integers(0, 9))
def test_counts_are_the_same_when_they_are_read_again(bins: list[int], nulls: int, unseen: int) -> None:
    made = ColumnCounts(bins=tuple(bins), nulls=nulls, unseen=unseen)
    assert ColumnCounts.model_validate_json(made.model_dump_json()) == made
    assert ColumnCounts.model_validate_json(made.model_dump_json(exclude_defaults=True)) == made
    assert ColumnCounts.model_validate(made.model_dump()) == made


def test_a_run_of_empty_bins_that_no_column_has_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 16777216 bins"):
        ColumnCounts.model_validate_json('{"bins":[-16777216,1]}')
    with pytest.raises(ValueError, match="valid array"):
        ColumnCounts.model_validate_json('{"bins":"many"}')


def test_ten_thousand_categories_take_the_room_of_those_that_a_night_sees() -> None:
    words = [f"word-{i}" for i in range(10_000)]
    reference, generator = frozen(words), np.random.default_rng(4)

    def note(rows: int) -> int:
        counter = Counter(reference)
        drawn = generator.integers(0, 10_000, rows)
        seen = pl.Series("c", words).gather(drawn)
        counter.add(pl.DataFrame({"x": np.zeros(rows, np.float32), "c": seen}))
        assert Counts.model_validate_json(counter.counts().model_dump_json()) == counter.counts()
        return len(counter.counts().model_dump_json())

    assert note(900) < 6_000
    # Of a million rows every category is counted: what remains is the figures themselves.
    assert note(1_000_000) < 45_000


def test_what_a_night_of_flights_keeps_of_its_counts_is_small(flights_case: Case) -> None:
    source, spec = Files(flights_case.landing), flights_case.spec

    def tables(keys: Sequence[str]) -> pl.DataFrame:
        rows, weather = (
            pl.concat(source.read(spec, table, key).frame.with_columns(partition=pl.lit(key)) for key in keys).lazy()
            for table in ("rows", "weather")
        )
        context = {"weather": weather.drop("partition"), "planes": source.read(spec, "planes", STATIC).frame.lazy()}
        built = build(rows, context, event_time="scheduled_departure", lead=spec.features.lead)
        return built.select(
            *(pl.col(name).cast(pl.Float32) for name in spec.features.numeric),
            *(pl.col(name).cast(pl.String) for name in spec.features.categorical),
        ).collect()

    scores = pl.DataFrame({"partition": "r", "score": np.linspace(0, 1, 500)})
    learned = tables(flights_case.keys[:7]).with_columns(partition=pl.lit("r"))
    reference = PopulationStability().reference(spec, learned, scores)
    counter, night = Counter(reference.model_dump_json().encode()), tables(flights_case.keys[7:8])
    drawn = np.random.default_rng(1).random(night.height).astype(np.float32)
    counter.add(night, drawn, pl.Series(drawn > 0.5))
    found = counter.counts()
    assert found.rows == night.height > 700
    assert len(found.columns["dest"].bins) > 90
    assert all(sum(each.bins) + each.nulls + each.unseen == night.height for each in found.columns.values())
    assert len(found.model_dump_json(exclude_defaults=True)) < 2_000

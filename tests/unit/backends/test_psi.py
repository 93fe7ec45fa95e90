import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.backends.psi import PopulationStability, psi
from pipelines.errors import SchemaMismatch
from pipelines.spec import UseCase

DETECTOR = PopulationStability()


def use_case(numeric=("x",), categorical=("c",), bins=10):
    columns = {
        "id": {"type": "int"},
        "y": {"type": "float"},
        **{name: {"type": "float"} for name in numeric},
        **{name: {"type": "string"} for name in categorical},
    }
    return UseCase.model_validate(
        {
            "name": "parcels",
            "title": "Parcels",
            "description": "Parcels",
            "owner": "team",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": {"path": "rows/{partition}.csv", "columns": columns, "key": ["id"]}},
            "label": {"table": "rows", "column": "y", "task": "regression"},
            "features": {"numeric": list(numeric), "categorical": list(categorical)},
            "gates": {"metric": "rmse", "bound": 1.0},
            "drift": {"bins": bins},
        }
    )


def frame(x, c=None):
    c = ["a"] * len(x) if c is None else c
    return pl.DataFrame({"x": x, "c": c}, schema={"x": pl.Float64, "c": pl.String}, strict=False)


def freeze(rows, spec=None, scores=(0.1, 0.9)):
    held = pl.DataFrame({"partition": "r", "score": scores}, schema={"partition": pl.String, "score": pl.Float64})
    dated = rows if "partition" in rows.columns else rows.with_columns(partition=pl.lit("r"))
    return DETECTOR.reference(spec or use_case(), dated, held)


def measure(reference, rows, partition="p", spec=None):
    lazy = rows.lazy().with_columns(partition=pl.lit(partition))
    return {drift.column: drift for drift in DETECTOR.measure(spec or use_case(), reference, lazy)[partition]}


def slow_psi(reference, current):
    """The same definition written once more, bin by bin, in numpy."""
    reference, current = np.asarray(reference, float), np.asarray(current, float)
    floor = 0.5 / min(reference.sum(), current.sum())
    q, p = np.maximum(reference / reference.sum(), floor), np.maximum(current / current.sum(), floor)
    return float(np.sum((p - q) * np.log(p / q)))


def slow_counts(values, edges):
    """[bins, then nulls]: every value is looked at by itself."""
    counts = [0] * (len(edges) + 2)
    for value in values:
        if value is None or math.isnan(value):
            counts[-1] += 1
        else:
            counts[sum(value >= edge for edge in edges)] += 1
    return counts


COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=20)
PAIRS = st.integers(1, 20).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 10_000), min_size=n, max_size=n).filter(sum) for _ in range(2)))
)
VALUES = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=60)


@given(PAIRS)
def test_the_index_is_never_negative_and_has_no_direction(pair):
    reference, current = pair
    assert psi(reference, current) >= 0
    assert psi(reference, current) == pytest.approx(psi(current, reference), abs=1e-12)


@given(COUNTS.filter(sum), st.integers(1, 1000))
def test_equal_proportions_have_an_index_of_zero_whatever_the_number_of_rows(counts, times):
    assert psi(counts, [times * count for count in counts]) == pytest.approx(0, abs=1e-12)


@given(PAIRS)
def test_the_index_agrees_with_its_definition_written_in_numpy(pair):
    assert psi(*pair) == pytest.approx(slow_psi(*pair), rel=1e-9, abs=1e-12)


def test_known_values():
    assert psi([50, 50], [80, 20]) == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))
    assert psi([10, 10], [20, 0]) == pytest.approx(0.5 * math.log(2) - (0.5 - 0.025) * math.log(0.025 / 0.5))


def test_a_stray_row_in_a_bin_that_the_other_side_lacks_is_no_news():
    assert psi([100_000, 0], [899, 1]) < 0.001
    assert psi([100_000, 0], [855, 45]) > 0.1


def test_nothing_to_compare_is_not_a_number_and_other_bins_are_refused():
    assert math.isnan(psi([0, 0], [1, 2]))
    assert math.isnan(psi([1, 2], [0, 0]))
    with pytest.raises(ValueError, match="2 and 1"):
        psi([1, 2], [1])


@given(VALUES, VALUES, st.integers(2, 12))
@settings(deadline=None, max_examples=150)
def test_counts_and_index_of_a_numeric_column_agree_with_a_slow_count(before, now, bins):
    spec = use_case(bins=bins)
    reference = freeze(frame(before), spec)
    held = reference.numeric["x"]
    assert [*held.counts, held.nulls] == slow_counts(before, held.edges)
    assert list(held.edges) == sorted(set(held.edges))
    assert all(math.isfinite(edge) for edge in held.edges)
    found = measure(reference, frame(now), spec=spec)["x"]
    expected = slow_counts(now, held.edges)
    assert found.psi == pytest.approx(slow_psi([*held.counts, held.nulls], expected), rel=1e-9, abs=1e-12)
    assert found.null_share == expected[-1] / len(now)


CATEGORIES = st.lists(st.none() | st.sampled_from(["a", "b", "c", "", "_null", "-1"]), min_size=1, max_size=50)


@given(CATEGORIES, CATEGORIES)
@settings(deadline=None, max_examples=100)
def test_counts_and_index_of_a_categorical_column_agree_with_a_slow_count(before, now):
    reference = freeze(frame([0.0] * len(before), before))
    held = reference.categorical["c"]
    assert held.counts == {value: before.count(value) for value in sorted({v for v in before if v is not None})}
    assert held.nulls == before.count(None)
    found = measure(reference, frame([0.0] * len(now), now))["c"]
    unseen = sum(value is not None and value not in held.counts for value in now)
    expected = slow_psi(
        [*held.counts.values(), held.nulls, 0], [*(now.count(value) for value in held.counts), now.count(None), unseen]
    )
    assert found.psi == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.unseen_share == unseen / len(now)
    assert found.null_share == now.count(None) / len(now)


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.floats(-5, 5), st.sampled_from("abz")), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_each_partition_is_measured_as_if_it_were_alone_and_in_key_order(rows):
    reference = freeze(frame([float(i) for i in range(-5, 6)], list("aaaaaabbbbb")))
    whole = pl.DataFrame(rows, schema=["partition", "x", "c"], orient="row")
    together = DETECTOR.measure(use_case(), reference, whole.lazy())
    assert list(together) == sorted({row[0] for row in rows})
    for key, drifts in together.items():
        alone = measure(reference, whole.filter(pl.col("partition") == key).drop("partition"), key)
        assert list(drifts) == list(alone.values())


@given(VALUES, VALUES)
@settings(deadline=None, max_examples=50)
def test_the_counts_of_two_partitions_add_up_to_the_counts_of_both(first, second):
    edges = freeze(frame([float(i) for i in range(40)])).numeric["x"].edges
    both = [a + b for a, b in zip(slow_counts(first, edges), slow_counts(second, edges), strict=True)]
    assert slow_counts([*first, *second], edges) == both
    reference = freeze(frame([float(i) for i in range(40)]))
    joined = measure(reference, frame([*first, *second]))["x"]
    held = reference.numeric["x"]
    assert joined.psi == pytest.approx(slow_psi([*held.counts, held.nulls], both), rel=1e-9, abs=1e-12)


def test_infinities_fall_into_the_end_bins():
    spec = use_case(bins=4)
    reference = freeze(frame([float(i) for i in range(100)]), spec)
    low = measure(reference, frame([-math.inf] * 10), spec=spec)["x"]
    assert low == measure(reference, frame([-5.0] * 10), spec=spec)["x"]
    high = measure(reference, frame([math.inf] * 10), spec=spec)["x"]
    assert high == measure(reference, frame([1e300] * 10), spec=spec)["x"]
    assert low.null_share == high.null_share == 0


@pytest.mark.parametrize("moved", [-1.0, 1.0])
def test_a_constant_column_is_seen_to_move_up_and_down(moved):
    reference = freeze(frame([7.0] * 100))
    assert measure(reference, frame([7.0] * 50))["x"].psi == 0
    assert measure(reference, frame([7.0 + moved] * 50))["x"].psi > 1


def test_a_column_of_mostly_one_value_is_seen_to_leave_it():
    reference = freeze(frame([0.0] * 99 + [5.0]))
    assert measure(reference, frame([0.0] * 99 + [5.0]))["x"].psi == 0
    assert measure(reference, frame([0.0] * 50 + [0.001] * 50))["x"].psi > 0.25


def test_a_column_that_was_all_null_is_seen_to_come_to_life_and_one_that_dies_too():
    empty = freeze(frame([None] * 100))
    assert empty.numeric["x"].edges == ()
    assert measure(empty, frame([None] * 10))["x"].psi == 0
    assert measure(empty, frame([1.0] * 10))["x"].psi > 1
    alive = freeze(frame([float(i) for i in range(100)]))
    died = measure(alive, frame([None] * 10))["x"]
    assert died.psi > 1
    assert died.null_share == 1


def test_a_not_a_number_counts_as_a_null():
    reference = freeze(frame([float(i) for i in range(100)]))
    nulls, nans = (measure(reference, frame([1.0, value]))["x"] for value in (None, math.nan))
    assert nulls == nans


def test_bins_hold_about_equal_shares_of_the_reference():
    rows = frame(np.random.default_rng(5).normal(size=5000).tolist())
    counts = freeze(rows).numeric["x"].counts
    assert len(counts) == 10
    assert max(counts) - min(counts) <= 2


def test_unseen_categories_are_a_bin_of_their_own():
    reference = freeze(frame([0.0] * 100, ["a", "b"] * 50))
    found = measure(reference, frame([0.0] * 10, ["a"] * 5 + ["new"] * 5))["c"]
    assert found.unseen_share == 0.5
    assert found.psi == pytest.approx(slow_psi([50, 50, 0, 0], [5, 0, 0, 5]))


def test_integers_booleans_and_a_reference_without_categories_are_measured_too():
    spec = use_case(numeric=("n",), categorical=("b", "k"))
    rows = pl.DataFrame({"n": [1, 2, None, 4], "b": [True, False, True, None], "k": [None] * 4})
    reference = freeze(rows, spec)
    assert reference.categorical["b"].counts == {"false": 1, "true": 2}
    assert reference.categorical["k"].counts == {}
    same = measure(reference, rows, spec=spec)
    assert [drift.psi for drift in same.values()] == [0, 0, 0]
    other = measure(reference, rows.with_columns(k=pl.lit("x")), spec=spec)
    assert other["k"].unseen_share == 1


def test_scores_are_measured_against_the_frozen_scores():
    scores = np.random.default_rng(2).beta(2, 5, 4000)
    reference = freeze(frame([0.0]), scores=scores)
    assert reference.score_rows == 4000
    rows = pl.DataFrame({"partition": ["p", "q"] * 2000, "score": scores})
    shifted = rows.with_columns(
        pl.when(pl.col("partition") == "q").then(pl.col("score") * 0.5).otherwise(pl.col("score")).alias("score")
    )
    found = DETECTOR.measure_scores(use_case(), reference, shifted.lazy())
    assert list(found) == ["p", "q"]
    assert found["p"].psi < 0.02
    assert found["q"].psi > 0.25


def test_no_rows_give_no_partitions_and_a_reference_of_no_rows_gives_no_number():
    reference = freeze(frame([1.0, 2.0]))
    none = frame([]).lazy().with_columns(partition=pl.lit("p"))
    assert DETECTOR.measure(use_case(), reference, none) == {}
    empty = freeze(frame([]), scores=[])
    assert empty.rows == 0
    assert math.isnan(measure(empty, frame([1.0]))["x"].psi)


def test_a_missing_column_is_named_on_whichever_side_it_is_missing():
    reference = freeze(frame([1.0, 2.0]))
    rows = frame([1.0]).lazy().with_columns(partition=pl.lit("p"))
    with pytest.raises(SchemaMismatch, match="no column c"):
        DETECTOR.measure(use_case(), reference, rows.drop("c"))
    with pytest.raises(SchemaMismatch, match="no column partition"):
        DETECTOR.measure(use_case(), reference, rows.drop("partition"))
    with pytest.raises(SchemaMismatch, match="champion's reference: no column z"):
        DETECTOR.measure(use_case(numeric=("x", "z")), reference, rows.with_columns(z=pl.lit(1.0)))
    with pytest.raises(SchemaMismatch, match="no column x"):
        freeze(frame([1.0]).drop("x"))


def test_a_reference_survives_json():
    reference = freeze(frame([0.1 * i for i in range(50)], [None, "a"] * 25))
    assert type(reference).model_validate_json(reference.model_dump_json()) == reference


def test_the_rows_are_read_once_whatever_the_number_of_columns():
    reads = []

    def counted(rows):
        reads.append(rows.height)
        return rows

    spec = use_case(numeric=("x", "x2", "x3"), categorical=("c", "c2"))
    rows = frame([1.0, 2.0, 3.0]).with_columns(x2=pl.col("x"), x3=pl.col("x"), c2=pl.col("c"))
    reference = freeze(rows, spec)
    lazy = rows.with_columns(partition=pl.lit("p")).lazy().map_batches(counted)
    assert len(DETECTOR.measure(spec, reference, lazy)["p"]) == 5
    assert reads == [3]

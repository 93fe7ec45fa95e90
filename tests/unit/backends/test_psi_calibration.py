"""Thresholds: calm partitions are past them as seldom as was promised, and a real shift is past them."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipelines import partitions
from pipelines.backends.psi import PopulationStability
from pipelines.backends.psi_calibration import chi_square, quantile
from pipelines.backends.psi_distances import jensen_shannon, vanished
from pipelines.records import Reference
from tests.unit.backends.test_psi import use_case

DETECTOR = PopulationStability()
COLUMNS = tuple(f"x{i}" for i in range(12))


def spec(**drift):
    case = use_case(numeric=COLUMNS, categorical=("c",))
    return case.model_copy(update={"drift": case.drift.model_copy(update={"warn": 1e-9, "alarm": 1e-9, **drift})})


def nights(keys, rows, seed, unrest=0.3, shift=0.0, weekly=0.0, words=(0.6, 0.3, 0.1)):
    """Partitions whose means move a little by themselves, each column by itself; and with the day of the week."""
    generator = np.random.default_rng(seed)
    frames = []
    for key in keys:
        centre = generator.normal(scale=unrest, size=len(COLUMNS)) + shift
        centre = centre + weekly * (partitions.start(key, "day").weekday() >= 5)
        values = generator.normal(loc=centre, size=(rows, len(COLUMNS)))
        shares = generator.dirichlet(np.asarray(words) * 200) if unrest else words
        frame = pl.DataFrame(values, schema=list(COLUMNS)).with_columns(
            c=pl.Series(generator.choice(["a", "b", "c"][: len(words)], rows, p=shares)), partition=pl.lit(key)
        )
        frames.append(frame)
    return pl.concat(frames)


def freeze(rows, case, scores=1000):
    held = pl.DataFrame({"partition": "r", "score": np.random.default_rng(0).random(scores)})
    return DETECTOR.reference(case, rows, held)


def levels(case, reference, rows):
    """The highest level of each partition's columns."""
    order = ("unknown", "calm", "warning", "alarm")
    found = DETECTOR.measure(case, reference, rows.lazy())
    return [max((each.level for each in found[key]), key=order.index) for key in sorted(found)]


LEARNED = partitions.span("2024-01-01", "2024-07-18", "day")
LATER = partitions.span("2025-01-01", "2025-10-27", "day")


def within(alarms, of, rate):
    """Not more than a rate allows: its upper end with 99.9 %, the reference's own luck of 200 nights included."""
    return alarms <= stats.betabinom.ppf(0.999, of, 200 * rate + 1, 200 * (1 - rate))


@pytest.mark.parametrize("rows", [250, 1500])
def test_calm_partitions_are_in_alarm_as_seldom_as_the_spec_says(rows):
    """By the same unrest, and by none: sampling alone."""
    for unrest in (0.0, 0.3):
        case = spec(false_alarms=0.02, false_warnings=0.1)
        reference = freeze(nights(LEARNED, rows, 1, unrest), case)
        found = levels(case, reference, nights(LATER, rows, 2, unrest))
        assert within(found.count("alarm"), len(LATER), 0.02), (unrest, found.count("alarm"))
        assert within(len(LATER) - found.count("calm"), len(LATER), 0.1), (unrest, found.count("calm"))
        # The spec's own levels, without any calibration, would cry most nights.
        raw = DETECTOR.measure(case, reference.model_copy(update={"unrest": None}), nights(LATER, rows, 2, 0.3).lazy())
        assert sum(any(each.psi >= 0.1 for each in columns) for columns in raw.values()) > 0.5 * len(LATER)


def test_a_shift_beyond_the_unrest_is_an_alarm_and_one_within_it_is_not():
    case = spec()
    reference = freeze(nights(LEARNED, 800, 1), case)
    far = levels(case, reference, nights(LATER[:40], 800, 3, shift=1.5))
    assert far.count("alarm") == 40
    assert levels(case, reference, nights(LATER[:40], 800, 3, shift=0.05)).count("alarm") <= 4


def test_other_sizes_of_partitions_are_calm_by_the_same_reference():
    """Thresholds follow the rows: neither a small night nor a large one is in alarm for its size."""
    case = spec(false_alarms=0.02)
    reference = freeze(nights(LEARNED, 800, 1, unrest=0.1), case)
    for rows in (200, 8000):
        found = levels(case, reference, nights(LATER[:100], rows, 4, unrest=0.1))
        assert within(found.count("alarm"), 100, 0.02), rows


def test_the_specs_levels_are_the_least():
    case = spec(warn=0.5, alarm=2.0)
    reference = freeze(nights(LEARNED, 800, 1, unrest=0.0), case)
    (far,) = DETECTOR.measure(case, reference, nights(LATER[:1], 20_000, 3, unrest=0.0, shift=0.2).lazy()).values()
    assert {each.level for each in far} == {"calm"}, "sure, and too small to matter"
    assert {(each.warn_at, each.alarm_at) for each in far} == {(0.5, 2.0)}


def test_a_partition_is_compared_with_its_day_of_the_week_when_asked():
    plain, seasonal = spec(), spec(season="week")
    learned, later = nights(LEARNED, 800, 1, 0.05, weekly=2.0), nights(LATER[:70], 800, 2, 0.05, weekly=2.0)
    never, weekly = freeze(learned, plain), freeze(learned, seasonal)
    assert (never.days, len(weekly.days)) == ({}, 7)
    assert levels(seasonal, weekly, later).count("alarm") <= 4
    # A weekend's numbers on working days are nothing strange without a season, and are with one.
    moved = nights(LATER[:70], 800, 2, 0.05).with_columns(pl.col(COLUMNS) + 2.0)
    working = [n for n, key in enumerate(LATER[:70]) if partitions.start(key, "day").weekday() < 5]
    assert sum(levels(plain, never, moved)[n] == "alarm" for n in working) <= 2
    assert all(levels(seasonal, weekly, moved)[n] == "alarm" for n in working)
    # What was frozen without a season is compared as a whole.
    assert levels(seasonal, never, later) == levels(plain, never, later)


def test_too_few_rows_are_unknown_however_far_they_are():
    case = spec(min_rows=200)
    reference = freeze(nights(LEARNED[:30], 500, 1), case)
    assert levels(case, reference, nights(LATER[:2], 199, 2, shift=9)) == ["unknown"] * 2


@pytest.mark.parametrize("learned", [0, 1, 2, 20])
def test_few_partitions_of_reference_leave_sampling_and_what_was_seen(learned):
    case = spec(false_alarms=0.01)
    rows = nights(LEARNED[: max(learned, 1)], 2000, 1, unrest=0.0)
    reference = freeze(rows if learned else rows.clear(), case)
    assert (reference.unrest is None) == (learned < 2)
    found = levels(case, reference, nights(LATER[:30], 500, 2, unrest=0.0))
    if not learned:
        assert found == ["unknown"] * 30, "there is nothing to compare with"
    else:
        assert found.count("alarm") <= 2
        assert levels(case, reference, nights(LATER[:3], 500, 2, shift=1.5)) == ["alarm"] * 3


def test_a_constant_column_is_calm_and_its_change_is_not():
    case = spec()
    rows = nights(LEARNED, 500, 1).with_columns(pl.lit(1.0).alias("x0"))
    reference = freeze(rows, case)
    now = nights(LATER[:1], 500, 2)
    by = {each.column: each for each in DETECTOR.measure(case, reference, now.lazy())[LATER[0]]}
    same = {each.column: each for each in DETECTOR.measure(
        case, reference, now.with_columns(pl.lit(1.0).alias("x0")).lazy())[LATER[0]]}  # fmt: skip
    assert (same["x0"].psi, same["x0"].level, by["x0"].level) == (0, "calm", "alarm")


def test_an_ignored_column_is_measured_and_is_none_of_the_family():
    wild = nights(LEARNED, 500, 1).with_columns(pl.col("x0") * pl.Series(np.random.default_rng(1).random(100_000) * 50))
    ignoring = spec(ignore=("x0",))
    reference = freeze(wild.head(100_000), ignoring)
    assert reference.unrest is not None
    assert "x0" not in reference.unrest.usual
    (found,) = DETECTOR.measure(ignoring, reference, nights(LATER[:1], 500, 2).lazy()).values()
    assert [each.column for each in found] == [*COLUMNS, "c"]


def test_a_column_that_loses_a_third_of_its_values_is_an_alarm():
    case = use_case(numeric=COLUMNS, categorical=("c",))
    reference = freeze(nights(LEARNED, 800, 1, 0.1), case)
    now = nights(LATER[:1], 800, 2, 0.1).with_row_index("n")
    lost = now.with_columns(
        pl.when(pl.col("n") % 10 >= 3)
        .then(
            pl.col("x3"),
        )
        .alias("x3")
    ).drop("n")
    by = {each.column: each for each in DETECTOR.measure(case, reference, lost.lazy())[LATER[0]]}
    assert (by["x3"].level, by["x3"].null_share) == ("alarm", 0.3)
    assert {each.level for name, each in by.items() if name != "x3"} == {"calm"}


def test_a_category_that_is_gone_is_named_and_distances_are_bounded():
    case = use_case(numeric=(), categorical=("c",))
    reference = freeze(nights(LEARNED[:30], 800, 1), case)
    (found,) = DETECTOR.measure(case, reference, nights(LATER[:1], 800, 2, words=(0.5, 0.5)).lazy())[LATER[0]]
    assert found.vanished == ("c",)
    assert 0 < found.js < 1
    (few,) = DETECTOR.measure(case, reference, nights(LATER[:1], 20, 2, words=(0.5, 0.5)).lazy())[LATER[0]]
    assert few.vanished == (), "twenty rows may lack one in ten by chance"


def test_the_jensen_shannon_distance_is_scipys():
    from scipy.spatial.distance import jensenshannon

    generator = np.random.default_rng(5)
    for _ in range(50):
        before, now = generator.integers(0, 50, 8), generator.integers(0, 50, 8)
        expected = jensenshannon(before / before.sum(), now / now.sum(), base=2)
        assert jensen_shannon(before.tolist(), now.tolist()) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(jensen_shannon([0, 0], [1, 2]))


def test_what_is_rare_is_not_missed():
    assert vanished([9_000, 999, 1], [200, 0, 0], ["often", "seldom", "once"]) == ("seldom",)
    assert vanished([5], [0], ["only"]) == ()


def test_the_chi_square_is_scipys_within_what_is_said():
    for freedom in (1, 4, 9, 30):
        for above in (0.1, 0.05, 0.01):
            assert chi_square(freedom, above) == pytest.approx(stats.chi2.isf(above, freedom), rel=0.03)
        assert 1 <= chi_square(freedom, 1e-6) / stats.chi2.isf(1e-6, freedom) < 1.16


def test_a_quantile_needs_enough_values():
    assert [quantile(list(range(1, n + 1)), 0.01) for n in (98, 99, 199)] == [None, 99, 198]
    assert quantile([], 0.4) is None


def test_a_reference_of_before_is_read_and_held_to_sampling_alone():
    case = spec()
    new = freeze(nights(LEARNED, 400, 1, 0.0), case)
    told = new.model_dump(mode="json", exclude={"unrest", "score_unrest", "days", "daily_unrest"})
    old = Reference.model_validate(told)
    assert levels(case, old, nights(LATER[:50], 400, 2, 0.0)).count("alarm") <= 4


def test_blizzards_in_the_reference_do_not_make_it_deaf():
    """Three nights that are nothing like the others: they are set aside, and are alarms themselves."""
    case = spec()
    calm = nights(LEARNED, 500, seed=4)
    wild = nights(LEARNED[50:53], 500, seed=5, shift=9.0)
    mixed = pl.concat([calm.filter(~pl.col("partition").is_in(LEARNED[50:53])), wild])
    plain, stormy = freeze(calm, case), freeze(mixed, case)
    assert plain.unrest is not None
    assert stormy.unrest is not None
    assert (plain.unrest.set_aside, stormy.unrest.set_aside) == (0, 3)
    moved = nights(LATER[:20], 500, seed=6, shift=1.5)
    assert levels(case, stormy, moved) == ["alarm"] * 20
    quiet = levels(case, stormy, nights(LATER, 500, seed=7))
    assert within(quiet.count("alarm"), len(LATER), case.drift.false_alarms)
    assert levels(case, stormy, wild) == ["alarm"] * 3

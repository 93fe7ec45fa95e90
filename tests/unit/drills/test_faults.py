"""What each fault does to a partition, and how its file is written."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import TypeAdapter

from pipelines.backends.files import Files
from pipelines.drills.faults import broken
from pipelines.drills.landing import write
from pipelines.errors import SpecError
from pipelines.spec import UseCase
from pipelines.spec.drills import Fault
from pipelines.spec.reading import load_drills
from tests.cases.sluices import lay_out
from tests.unit.steps.test_training_set import use_case

DAY = "2024-05-01"


def spec(**tables: Any) -> UseCase:
    raw = use_case().model_dump(mode="json")
    label = {**raw["label"], "task": "binary", "positive": {"above": 2}}
    gates = {"metric": "auc", "bound": 0.5}
    return UseCase.model_validate({**raw, "label": label, "gates": gates, "tables": {**raw["tables"], **tables}})


def rows(case: UseCase, count: int = 1000) -> pl.DataFrame:
    names = case.rows.columns
    made = {
        "string": [f"v{n}" for n in range(count)],
        "int": list(range(count)),
        "float": [n / 7 for n in range(count)],
        "bool": [n % 3 == 0 for n in range(count)],
        "timestamp": [datetime(2024, 5, 1, n % 24, tzinfo=UTC) for n in range(count)],
        "date": [date(2024, 5, 1)] * count,
    }
    return pl.DataFrame({name: made[column.type] for name, column in names.items()})


def fault(**raw: Any) -> Any:
    return TypeAdapter(Fault).validate_python(raw)


def number_of(case: UseCase) -> str:
    return next(name for name, column in case.rows.columns.items() if column.type == "float")


def test_numbers_are_shifted_and_scaled_all_at_once_or_night_by_night() -> None:
    case = spec()
    frame, name = rows(case), number_of(case)
    before = frame.get_column(name)
    sudden = broken(case, fault(kind="shift", table="rows", columns=[name], add=3), "rows", DAY, 1, frame)
    assert (sudden.get_column(name) - before).round(9).unique().to_list() == [3.0]
    ramp = fault(kind="shift", table="rows", columns=[name], add=3, over=3)
    grown = [(broken(case, ramp, "rows", DAY, night, frame).get_column(name) - before)[0] for night in (1, 2, 3, 9)]
    assert grown == pytest.approx([1, 2, 3, 3])
    scaled = broken(case, fault(kind="scale", table="rows", columns=[name], by=2), "rows", DAY, 1, frame)
    assert scaled.get_column(name)[-1] == pytest.approx(2 * before[-1])
    other = fault(kind="scale", table="labels", columns=["x"], by=2)
    assert_frame_equal(broken(case, other, "rows", DAY, 1, frame), frame)


def test_a_share_of_rows_is_nulled_or_replaced_the_same_ones_each_time_and_others_each_night() -> None:
    case = spec()
    frame, name = rows(case, 4000), number_of(case)
    gone = fault(kind="nulls", table="rows", columns=[name], share=0.3)
    first = broken(case, gone, "rows", DAY, 1, frame)
    assert first.get_column(name).null_count() / 4000 == pytest.approx(0.3, abs=0.03)
    assert_frame_equal(first, broken(case, gone, "rows", DAY, 1, frame))
    assert not first.equals(broken(case, gone, "rows", "2024-05-02", 2, frame))
    assert first.schema == frame.schema
    stuck = broken(case, fault(kind="stuck", table="rows", columns=[name], value=1), "rows", DAY, 1, frame)
    assert (stuck.schema, stuck.get_column(name).unique().to_list()) == (frame.schema, [1.0])


def test_labels_are_flipped_to_the_other_class_or_change_places() -> None:
    case = spec()
    column, table = case.label.column, case.label.table
    assert case.label.positive is not None
    values = pl.Series(column, [float(n % 5) for n in range(2000)], dtype=pl.Float64)
    frame = pl.DataFrame({column: values})
    positive = case.label.positive.above
    assert positive is not None
    half = broken(case, fault(kind="flip", share=0.4), table, DAY, 1, frame).get_column(column)
    assert ((half > positive) != (values > positive)).mean() == pytest.approx(0.4, abs=0.04)
    mixed = broken(case, fault(kind="concept"), table, DAY, 1, frame).get_column(column)
    assert sorted(mixed) == sorted(values), "as many of each as before"
    assert (mixed == values).mean() == pytest.approx(0.2, abs=0.05), "of five values, by chance"
    part = broken(case, fault(kind="concept", share=0.5, over=2), table, DAY, 1, frame).get_column(column)
    assert (part == values).mean() == pytest.approx(0.75 + 0.25 * 0.2, abs=0.05)


def test_faults_come_together_each_on_rows_of_its_own() -> None:
    case = spec()
    frame, name = rows(case, 4000), number_of(case)
    key = next(each for each, column in case.rows.columns.items() if column.type == "string")
    gone = {"kind": "nulls", "table": "rows", "columns": [name], "share": 0.5}
    odd = {"kind": "newcomer", "table": "rows", "columns": [key], "value": "other", "share": 0.5}
    both = broken(case, fault(kind="together", faults=[gone, odd]), "rows", DAY, 1, frame)
    hit = both.select(a=pl.col(name).is_null(), b=pl.col(key) == "other")
    assert (hit["a"] & hit["b"]).mean() == pytest.approx(0.25, abs=0.03), "neither the same rows nor the others"
    assert_frame_equal(broken(case, fault(kind="together", faults=[gone, odd]), "labels", DAY, 1, frame), frame)


def test_a_row_and_its_label_go_together_and_what_comes_late_is_whole() -> None:
    case = spec()
    frame = rows(case, 3000)
    thin = fault(kind="thin", share=0.67)
    kept = broken(case, thin, "rows", DAY, 1, frame)
    assert kept.height / 3000 == pytest.approx(0.67, abs=0.03)
    labels = frame.select(case.rows.key).with_columns(pl.lit(1.0).alias(case.label.column))
    told = broken(case, thin, case.label.table, DAY, 1, labels)
    assert_frame_equal(told.select(case.rows.key), kept.select(case.rows.key))
    for whole in (fault(kind="lost"), fault(kind="late_labels", nights=2)):
        assert_frame_equal(broken(case, whole, "rows", DAY, 1, frame), frame)


@pytest.mark.parametrize(
    "path", ["r/{partition}.csv", "r/{partition}.csv.gz", "r/{partition}.jsonl", "r/{partition}.parquet"]
)
def test_what_is_written_is_read_again(tmp_path: Path, path: str) -> None:
    columns = {kind: {"type": kind} for kind in ("string", "int", "float", "bool", "timestamp", "date")}
    table = {"path": path, "format": path.split(".")[1], "columns": columns, "key": ["int"], "null_values": ["NA"]}
    if "csv" in path:
        table["delimiter"] = ";"
    case = spec(other=table)
    frame = pl.DataFrame(
        {
            "string": ["a;b", 'say "x"', None],
            "int": [1, -(2**62), None],
            "float": [0.1 + 0.2, 1e-300, None],
            "bool": [True, False, None],
            "timestamp": [datetime(2024, 5, 1, 3, 4, 5, 678901, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=UTC), None],
            "date": [date(2024, 5, 1), date(1900, 2, 28), None],
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )
    write(tmp_path, case.tables["other"], DAY, frame)
    landed = Files(tmp_path).read(case, "other", DAY)
    assert landed.problems == ()
    assert_frame_equal(landed.frame, frame)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{kind: shift, table: clouds, columns: [pressure], add: 1}", "no table 'clouds'"),
        ("{kind: shift, table: rows, columns: [colour], add: 1}", "no column colour in rows"),
        ("{kind: shift, table: rows, columns: [], add: 1}", "at least 1 item"),
        ("{kind: flood}", "flood"),
        ("{kind: together, faults: [{kind: lost}, {kind: flip, share: 0.1}]}", "lost"),
        ("{kind: together, faults: [{kind: flip, share: 0.1}]}", "at least 2 items"),
        (
            "{kind: together, faults: [{kind: flip, share: 0.1}, "
            "{kind: nulls, table: rows, columns: [colour], share: 0.1}]}",
            "no column colour in rows",
        ),
        ("{kind: flip, share: 40}", "less than or equal to 1"),
    ],
)
def test_a_drill_that_cannot_be_is_refused(tmp_path: Path, wrong: str, said: str) -> None:
    from pipelines.spec import load_spec

    project = lay_out(tmp_path)
    case = load_spec(project / "include" / "use_cases" / "valves.yaml")
    path = tmp_path / "drills.yaml"
    text = "first: '2024-03-01'\nlast: '2024-03-02'\ndrills:\n  one: {title: x, nights: 1, expect: {}, fault: %s}\n"
    path.write_text(text % wrong)
    with pytest.raises(SpecError, match=said):
        load_drills(path, case)
    path.write_text(text.replace("expect: {}", "expect: {champion: changed}") % "{kind: lost}")
    with pytest.raises(SpecError, match="retrain is never"):
        load_drills(path, case)

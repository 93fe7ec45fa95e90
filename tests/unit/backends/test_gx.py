import hashlib
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from blake3 import blake3

from pipelines.backends.gx import GreatExpectations, _Definition, _Plan, _to_pandas, write_html
from pipelines.backends.gx_suite import Rule, catalogue, rules
from pipelines.backends.gx_words import allowed
from pipelines.errors import IntegrityError, SpecError
from pipelines.records import Check, SourceFile, StagedPartition
from pipelines.spec import UseCase
from tests.cases import REPOSITORY

DAY = datetime(2024, 5, 1, tzinfo=UTC)
OWN = [
    {"expect": "column_values_to_be_in_set", "kwargs": {"column": "port", "value_set": ["A", "B"]}},
    {"expect": "column_values_to_be_between", "kwargs": {"column": "weight", "min_value": 0, "max_value": 500}},
    {"expect": "column_mean_to_be_between", "kwargs": {"column": "weight", "min_value": 10, "max_value": 400}},
    {"expect": "column_values_to_not_be_null", "kwargs": {"column": "note", "mostly": 0.5}},
    {"expect": "column_values_to_match_regex", "kwargs": {"column": "note", "regex": "^n[0-9]+$"}},
]


def use_case(*, own=OWN, key=("id",), event_time="at", granularity="day", **table):
    columns = {
        "id": {"type": "int", "nullable": False},
        "at": {"type": "timestamp", "nullable": False},
        "port": {"type": "string"},
        "weight": {"type": "float"},
        "count": {"type": "int"},
        "note": {"type": "string"},
    }
    rows = {
        "path": "rows/{partition}.csv",
        "columns": columns,
        "key": key,
        "event_time": event_time,
        "min_rows": 2,
        "max_rows": 100,
        "expectations": own,
        **table,
    }
    return UseCase.model_validate(
        {
            "name": "parcels",
            "title": "Parcels",
            "description": "Parcels",
            "owner": "team",
            "granularity": granularity,
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {
                "rows": rows,
                "ports": {"path": "ports.csv", "columns": {"port": {"type": "string"}}, "key": ["port"]},
            },
            "label": {"table": "rows", "column": "weight", "task": "regression"},
            "features": {"numeric": ["count"]},
            "gates": {"metric": "rmse", "bound": 1.0},
        }
    )


def good(rows=10, start=DAY):
    return pl.DataFrame(
        {
            "id": range(rows),
            "at": [start + timedelta(minutes=i) for i in range(rows)],
            "port": ["A", "B"] * (rows // 2),
            "weight": [20.0 + i for i in range(rows)],
            "count": [None, *range(1, rows)],
            "note": [None, *(f"n{i}" for i in range(1, rows))],
        },
        schema={
            "id": pl.Int64,
            "at": pl.Datetime("us", "UTC"),
            "port": pl.String,
            "weight": pl.Float64,
            "count": pl.Int64,
            "note": pl.String,
        },
    )


def replaced(frame, column, row, value):
    values = frame[column].to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values, dtype=frame.schema[column]))


@pytest.fixture
def stage(tmp_path):
    def write(frame, partition="2024-05-01", table="rows", problems=()):
        path = tmp_path / f"{table}-{partition}-{len(list(tmp_path.iterdir()))}.parquet"
        frame.write_parquet(path)
        data = path.read_bytes()
        return StagedPartition(
            use_case="parcels",
            table=table,
            partition=partition,
            digest=blake3(data).hexdigest(),
            rows=frame.height,
            bytes=len(data),
            area=str(path),
            problems=problems,
            sources=(SourceFile(path="rows/x.csv", sha256="ab" * 32, bytes=7),),
        )

    return write


@pytest.fixture
def validator(tmp_path):
    return GreatExpectations(tmp_path / "reports")


@pytest.fixture
def judge(validator, stage):
    def run(frame, spec=None, **kwargs):
        return validate(validator, spec or use_case(), [stage(frame, **kwargs)])[0]

    return run


def validate(validator, spec, staged):
    """Judges staged partitions whose files lie where `stage` wrote them."""
    return validator.validate(spec, staged, [Path(part.area) for part in staged])


def failed(report):
    return {(check.name, check.column) for check in report.failed}


BAD = {
    "a null in the key": (replaced(good(), "id", 3, None), {("column_values_to_not_be_null", "id")}),
    "a repeated key": (replaced(good(), "id", 3, 4), {("column_values_to_be_unique", "id")}),
    "a value outside the set": (replaced(good(), "port", 3, "Z"), {("column_values_to_be_in_set", "port")}),
    "a value out of range": (replaced(good(), "weight", 3, 501.0), {("column_values_to_be_between", "weight")}),
    "a mean out of range": (
        good().with_columns(weight=pl.lit(1.0)),
        {("column_mean_to_be_between", "weight")},
    ),
    "an all-null column": (
        good().with_columns(note=pl.lit(None, pl.String)),
        {("column_values_to_not_be_null", "note")},
    ),
    "text that does not match": (replaced(good(), "note", 3, "oh"), {("column_values_to_match_regex", "note")}),
    "too few rows": (good(2).head(1).with_columns(note=pl.lit("n1")), {("table_row_count_to_be_between", None)}),
    "too many rows": (good(102), {("table_row_count_to_be_between", None)}),
    "a row of the day before": (
        replaced(good(), "at", 3, DAY - timedelta(microseconds=1)),
        {("column_values_to_be_between", "at")},
    ),
    "a row of the day after": (
        replaced(good(), "at", 3, DAY + timedelta(days=1)),
        {("column_values_to_be_between", "at")},
    ),
    "an infinite value": (
        replaced(good(), "weight", 3, float("inf")),
        {("column_values_to_be_between", "weight"), ("column_mean_to_be_between", "weight")},
    ),
}


def test_a_good_partition_passes_every_check(judge):
    report = judge(good())
    assert report.passed, report.failed
    assert (report.suite, report.rows, len(report.checks)) == ("parcels.rows", 10, 11)
    assert "10 rows" in [check.observed for check in report.checks]


@pytest.mark.parametrize("name", BAD)
def test_exactly_the_expectations_that_the_data_breaks_fail(name, judge):
    frame, expected = BAD[name]
    report = judge(frame)
    assert not report.passed
    assert failed(report) == expected


@pytest.mark.parametrize("name", ["nothing", *BAD])
def test_the_planned_run_decides_as_a_validation_definition_does(name):
    frame, expected = (good(), set()) if name == "nothing" else BAD[name]
    chosen = rules(use_case(), "rows")
    bounds = {"start": DAY, "end": DAY + timedelta(days=1)}
    table = _to_pandas(frame)
    slow = _Definition("check", chosen).run(table, bounds)
    fast = _Plan(chosen).run(table, bounds)
    assert [rule.at(bounds).expect for rule, found in zip(chosen, slow, strict=True) if found[0] is not True] == [
        rule.expect for rule in chosen if (rule.expect, rule.column) in expected
    ]
    assert (fast is None) == bool(expected)
    if fast is not None:
        for (_, counted, _), (_, full, _) in zip(fast, slow, strict=True):
            for field in ("unexpected_count", "element_count", "missing_count", "observed_value"):
                assert counted.get(field) == full.get(field), field


def test_the_verdict_on_one_partition_says_nothing_about_the_next(validator, stage):
    frames = [good(), BAD["a repeated key"][0], good(), BAD["an all-null column"][0], good()]
    days = [f"2024-05-0{i + 1}" for i in range(5)]
    moved = [frame.with_columns(pl.col("at") + timedelta(days=i)) for i, frame in enumerate(frames)]
    staged = [stage(frame, partition=day) for frame, day in zip(moved, days, strict=True)]
    reports = validate(validator, use_case(), staged)
    assert [report.passed for report in reports] == [True, False, True, False, True]
    assert [report.partition for report in reports] == days
    assert [report.digest for report in reports] == [part.digest for part in staged]


def test_the_bounds_are_each_partitions_own(validator, stage):
    staged = [stage(good(start=DAY + timedelta(days=1)), partition=day) for day in ("2024-05-02", "2024-05-03")]
    reports = validate(validator, use_case(), staged)
    assert [report.passed for report in reports] == [True, False]
    (check,) = reports[1].failed
    assert "at least 2024-05-03 00:00:00+00:00 and below 2024-05-04" in check.allowed


@pytest.mark.parametrize(
    ("moment", "passes"),
    [
        (DAY - timedelta(microseconds=1), False),
        (DAY, True),
        (DAY + timedelta(days=1, microseconds=-1), True),
        (DAY + timedelta(days=1), False),
    ],
)
def test_event_times_are_inside_the_partition_to_the_microsecond(judge, moment, passes):
    report = judge(replaced(good(), "at", 5, moment))
    assert report.passed is passes
    assert failed(report) == (set() if passes else {("column_values_to_be_between", "at")})


def test_an_hourly_partition_ends_with_its_hour(judge):
    spec = use_case(granularity="hour")
    inside, outside = DAY + timedelta(hours=1, microseconds=-1), DAY + timedelta(hours=1)
    assert judge(replaced(good(), "at", 5, inside), spec, partition="2024-05-01T00").passed
    assert not judge(replaced(good(), "at", 5, outside), spec, partition="2024-05-01T00").passed


def test_an_event_time_is_never_null_even_where_the_column_may_be(judge):
    spec = use_case(columns={**{n: {"type": c.type} for n, c in use_case().rows.columns.items()}})
    assert failed(judge(replaced(good(), "at", 5, None), spec)) == {("column_values_to_not_be_null", "at")}


def test_repeated_keys_are_listed_but_not_more_than_five(judge):
    report = judge(pl.concat([good(20), good(20).head(14)]).sort("id"))
    (check,) = report.failed
    assert check.observed == (
        "14 keys occur more than once: 0 (2 times), 1 (2 times), 2 (2 times), 3 (2 times), 4 (2 times), ..."
    )


def test_a_compound_key_is_judged_as_a_whole(judge):
    spec = use_case(key=("port", "at"))
    assert judge(good(), spec).passed
    twice = good().with_columns(at=pl.lit(DAY).cast(pl.Datetime("us", "UTC")))
    (check,) = judge(twice, spec).failed
    assert (check.name, check.column) == ("compound_columns_to_be_unique", "port, at")
    assert check.observed.startswith("2 keys occur more than once: A/2024-05-01 00:00:00+00:00 (5 times)")


def test_large_integer_keys_do_not_fall_together_when_one_is_missing(judge):
    frame = good().with_columns(id=pl.Series([2**60 + i for i in range(10)]))
    assert judge(frame).passed
    assert failed(judge(replaced(frame, "id", 3, None))) == {("column_values_to_not_be_null", "id")}


def test_failing_values_are_shown_but_not_more_than_three(judge):
    frame = good().with_columns(port=pl.Series(list("VVWXYZABAB")))
    (check,) = judge(frame).failed
    assert check.observed == "6 of 10 values (60.00%) are not as allowed: 'V', 'W', 'X', ..."
    assert check.allowed == "one of 'A', 'B'"


@pytest.mark.parametrize(
    ("expect", "kwargs", "words"),
    [
        ("column_values_to_not_be_in_set", {"value_set": ["A"]}, "none of 'A'"),
        ("column_distinct_values_to_equal_set", {"value_set": ["A", "B"]}, "exactly 'A', 'B'"),
        ("column_distinct_values_to_contain_set", {"value_set": ["A"]}, "all of, among others, 'A'"),
        ("column_value_lengths_to_equal", {"value": 2}, "2 characters"),
        ("column_values_to_match_regex", {"regex": "^Q", "mostly": 0.9}, "matches ^Q, for at least 0.9 of the values"),
        ("column_unique_value_count_to_be_between", {"max_value": 1}, "at most 1"),
        ("column_values_to_be_null", {"mostly": 0.5}, "column values to be null, for at least 0.5 of the values"),
    ],
)
def test_a_check_says_what_would_have_passed(expect, kwargs, words):
    assert allowed(Rule(expect=expect, kwargs={"column": "port", **kwargs})) == words


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (good().drop("note"), "missing note"),
        (good().with_columns(extra=pl.lit(1)), "not in the spec: extra"),
        (good().select("at", "id", "port", "weight", "count", "note"), "another order: at, id"),
    ],
)
def test_another_set_or_order_of_columns_fails_and_says_how(judge, frame, words):
    report = judge(frame)
    check = next(check for check in report.failed if check.name == "table_columns_to_match_ordered_list")
    assert words in check.observed


def test_an_expectation_that_raises_is_a_failed_check_and_not_a_pass(judge):
    own = [{"expect": "column_values_to_match_regex", "kwargs": {"column": "port", "regex": "("}}]
    report = judge(good(), use_case(own=own))
    assert not report.passed
    check = next(check for check in report.failed if check.name == "column_values_to_match_regex")
    assert "could not be evaluated" in check.observed
    assert [other.passed for other in report.checks if other.name == "column_values_to_be_unique"] == [True]


def test_an_expectation_on_a_column_of_the_wrong_type_is_a_failed_check(judge):
    own = [{"expect": "column_mean_to_be_between", "kwargs": {"column": "port", "min_value": 3}}]
    assert failed(judge(good(), use_case(own=own))) == {("column_mean_to_be_between", "port")}


def test_problems_found_while_reading_fail_the_audit(judge):
    problem = Check(name="readable as float", column="weight", passed=False, observed="'abc' in line 3")
    report = judge(good(), problems=(problem,))
    assert not report.passed
    assert report.failed == (problem,)


def test_an_empty_partition_passes_only_where_the_spec_allows_no_rows(judge):
    assert failed(judge(good().clear())) >= {("table_row_count_to_be_between", None)}
    assert judge(good().clear(), use_case(min_rows=0, own=OWN[:2])).passed


def test_bytes_that_differ_from_the_staged_digest_are_refused(validator, stage):
    part = stage(good())
    Path(part.area).write_bytes(Path(part.area).read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="has digest"):
        validate(validator, use_case(), [part])


def test_a_staged_file_that_is_gone_is_refused(validator, stage):
    part = stage(good()).model_copy(update={"area": "/nowhere/at-all.parquet"})
    with pytest.raises(IntegrityError, match=r"rows 2024-05-01: the staged file cannot be read"):
        validate(validator, use_case(), [part])


def test_staged_bytes_that_are_no_parquet_are_refused(validator, stage, tmp_path):
    path = tmp_path / "text.parquet"
    path.write_bytes(b"hello")
    part = stage(good()).model_copy(update={"area": str(path), "digest": blake3(b"hello").hexdigest()})
    with pytest.raises(IntegrityError, match="no Parquet file"):
        validate(validator, use_case(), [part])


@pytest.mark.parametrize(
    ("expect", "kwargs", "words"),
    [
        (
            "column_values_to_be_in_sett",
            {},
            ["parcels/rows", "in_sett'", "column_values_to_be_in_set,"],
        ),
        ("expect_column_values_to_be_unique", {}, ["column_values_to_be_unique"]),
        (
            "column_values_to_be_in_set",
            {"column": "port", "value_sett": ["A"]},
            ["'value_sett'", "value_set was"],
        ),
        ("column_values_to_be_in_set", {"column": "port"}, ["value_set", "required"]),
        ("column_values_to_be_between", {"column": "weight", "min_value": [1]}, ["min_value"]),
        ("column_values_to_be_between", {"column": "wieght", "min_value": 1}, ["'wieght'", "weight was meant"]),
        ("column_values_to_be_unique", {"column": "id", "severity": "warning"}, ["'severity'"]),
        ("column_values_to_be_unique", {"column": "id", "row_condition": "@__import__('os')"}, ["row_condition"]),
        ("column_values_to_be_between", {"column": "weight", "min_value": {"$PARAMETER": "start"}}, ["$PARAMETER"]),
    ],
)
def test_an_expectation_that_cannot_be_is_a_spec_error_that_names_what_may_be(validator, stage, expect, kwargs, words):
    spec = use_case(own=[{"expect": expect, "kwargs": kwargs}])
    with pytest.raises(SpecError) as caught:
        validate(validator, spec, [stage(good())])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("least", [datetime(2024, 5, 1).date(), datetime(2024, 5, 1), "2024-05-01T00:00:00+00:00"])  # noqa: DTZ001
def test_a_date_in_an_expectation_on_instants_is_taken_as_utc(judge, least):
    own = [{"expect": "column_values_to_be_between", "kwargs": {"column": "at", "min_value": least}}]
    assert judge(good(), use_case(own=own, event_time=None)).passed
    late = replaced(good(), "at", 0, DAY - timedelta(microseconds=1))
    assert not judge(late, use_case(own=own, event_time=None)).passed


def test_a_static_table_has_no_bounds_of_time(judge):
    report = judge(pl.DataFrame({"port": ["A", "B"]}), partition="static", table="ports")
    assert report.passed, report.failed
    assert not judge(pl.DataFrame({"port": ["A", "A"]}), partition="static", table="ports").passed


def test_partitions_of_several_tables_are_judged_by_their_own_suites(validator, stage):
    staged = [
        stage(good()),
        stage(pl.DataFrame({"port": ["A", None]}), partition="static", table="ports"),
    ]
    rows, ports = validate(validator, use_case(), staged)
    assert (rows.suite, ports.suite) == ("parcels.rows", "parcels.ports")
    assert rows.passed
    assert failed(ports) == {("column_values_to_not_be_null", "port")}


def test_the_suite_digest_changes_with_the_suite_and_not_with_the_data(judge):
    first = judge(good())
    second = judge(good(8))
    other = judge(good(), use_case(own=OWN[:-1]))
    assert first.suite_digest == second.suite_digest != other.suite_digest


def test_a_page_is_written_for_a_single_partition_and_for_failed_ones(validator, stage, tmp_path):
    (alone,) = validate(validator, use_case(), [stage(good())])
    assert alone.html == str(
        tmp_path / "reports" / "parcels" / "validation" / "rows" / f"2024-05-01-{alone.digest[:12]}.html"
    )
    passed, bad = validate(validator, use_case(), [stage(good()), stage(BAD["a repeated key"][0])])
    assert passed.html is None
    text = Path(bad.html).read_text("utf-8")
    assert "2 times" in text
    assert "http" not in text.replace("http-equiv", "")


def test_what_stands_in_the_data_is_escaped_in_the_page(judge):
    report = judge(good().with_columns(port=pl.lit("<script>alert(1)</script>")))
    text = Path(report.html).read_text("utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text


def test_files_that_could_not_be_read_get_a_failed_report_with_a_page(validator):
    check = Check(name="readable", passed=True, observed="truncated after 10 bytes", allowed="a whole gzip file")
    source = SourceFile(path="rows/2024-05-01.csv.gz", sha256="cd" * 32, bytes=10)
    report = validator.report_unreadable(use_case(), "rows", "2024-05-01", [source], check)
    assert not report.passed
    assert [each.passed for each in report.checks] == [False]
    assert (report.rows, report.sources) == (0, (source,))
    assert report.digest == hashlib.sha256(("cd" * 32).encode()).hexdigest()
    assert "truncated after 10 bytes" in Path(report.html).read_text("utf-8")


def test_a_report_is_written_inside_its_folder_only(judge, tmp_path):
    report = judge(good())
    with pytest.raises(SpecError, match="no file name"):
        write_html(report.model_copy(update={"partition": "../../etc"}), tmp_path)


def test_validation_is_quiet(judge, capfd, caplog):
    with caplog.at_level(logging.INFO):
        judge(good())
        judge(BAD["a repeated key"][0])
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
    assert [record for record in caplog.records if record.name.startswith("great_expectations")] == []


def test_every_named_expectation_of_the_library_is_within_reach_of_a_spec():
    import great_expectations.expectations as library

    names = catalogue()
    assert {"column_kl_divergence_to_be_less_than", "column_pair_values_a_to_be_greater_than_b"} <= set(names)
    assert {cls.__name__ for cls in names.values()} >= {
        name for name in dir(library) if name.startswith("ExpectColumn") or name.startswith("ExpectTable")
    }


def test_the_digest_of_a_suite_is_that_of_its_reports_and_costs_no_import_of_the_library(judge, validator):
    assert validator.suite(use_case(), "rows", "2024-05-01") == judge(good()).suite_digest
    code = (
        "import sys; from pathlib import Path; from pipelines.backends.gx import GreatExpectations; "
        "from pipelines.spec import load_spec; spec = load_spec(Path(sys.argv[1])); "
        "[GreatExpectations(Path('reports')).suite(spec, table, '2013-09-01') for table in spec.tables]; "
        "print('great_expectations' in sys.modules)"
    )
    flights = REPOSITORY / "include" / "use_cases" / "flights.yaml"
    done = subprocess.run([sys.executable, "-c", code, str(flights)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"

"""Files: a landing zone that is read strictly or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import tracemalloc
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.backends.files import Files
from pipelines.errors import InputError, MissingInput, SpecError
from pipelines.ports import STATIC, LandedFrame
from pipelines.spec import UseCase
from tests.cases import Case

DAY = "2024-02-29"
TYPES = {"id": "int", "at": "timestamp", "on": "date", "size": "float", "open": "bool", "site": "string"}
HEADER = ",".join(TYPES)
ROW = f"1,{DAY}T10:00:00Z,{DAY},2.5,true,north"
GOOD = f"{HEADER}\n{ROW}\n2,{DAY}T23:59:59.999999+00:00,,,0,\n".encode()


def make_spec(table: Mapping[str, Any] | None = None, granularity: str = "day") -> UseCase:
    """A use case whose rows are one small table."""
    rows = {
        "path": "a/date={partition}/a.csv",
        "columns": {name: {"type": kind, "nullable": name != "id"} for name, kind in TYPES.items()},
        "key": ["id"],
        "event_time": "at",
        **(table or {}),
    }
    return UseCase.model_validate(
        {
            "name": "case",
            "title": "A case",
            "description": "For tests.",
            "owner": "tests",
            "granularity": granularity,
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": rows},
            "label": {"table": "rows", "column": "open", "task": "binary", "positive": {"equals": True}},
            "features": {"numeric": ["size"]},
            "gates": {"metric": "auc", "bound": 0.5},
        }
    )


def land(root: Path, data: bytes, table: Mapping[str, Any] | None = None) -> LandedFrame:
    """Drops one file and reads it."""
    spec = make_spec(table)
    path = root / spec.rows.path.replace("{partition}", DAY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Files(root).read(spec, "rows", DAY)


def refused(root: Path, data: bytes, table: Mapping[str, Any] | None = None) -> str:
    """The message of the InputError that a file is refused with."""
    with pytest.raises(InputError) as caught:
        land(root, data, table)
    message = str(caught.value)
    assert message.startswith(f"case/rows {DAY} (")
    return message


# What is read


def test_a_csv_file_becomes_a_frame_of_the_specs_columns_and_types(tmp_path: Path) -> None:
    landed = land(tmp_path, GOOD)
    assert landed.problems == ()
    assert landed.frame.schema == {
        "id": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
        "on": pl.Date,
        "size": pl.Float64,
        "open": pl.Boolean,
        "site": pl.String,
    }
    assert landed.frame.rows() == [
        (1, datetime(2024, 2, 29, 10, tzinfo=UTC), date(2024, 2, 29), 2.5, True, "north"),
        (2, datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC), None, None, False, None),
    ]


def test_columns_in_another_order_end_in_the_specs_order(tmp_path: Path) -> None:
    lines = [",".join(reversed(line.split(","))) for line in GOOD.decode().splitlines()]
    assert land(tmp_path, "\n".join(lines).encode()).frame.equals(land(tmp_path, GOOD).frame)


def test_quotes_windows_line_ends_and_no_last_line_end_are_read(tmp_path: Path) -> None:
    quoted = f'"id",at,on,size,open,site\r\n1,{DAY}T10:00:00Z,{DAY},2.5,true,"a ""b"",\nc"'
    landed = land(tmp_path, quoted.encode())
    assert landed.frame["site"].to_list() == ['a "b",\nc']
    assert landed.frame.height == 1


def test_only_the_specs_null_values_are_null(tmp_path: Path) -> None:
    data = f"{HEADER}\n1,{DAY}T10:00:00Z,NA,NA,true,\n".encode()
    landed = land(tmp_path, data, {"null_values": ["NA"]})
    assert landed.problems == ()
    assert landed.frame.row(0)[2:] == (None, None, True, "")


def test_no_null_values_at_all_leaves_every_text_as_it_is(tmp_path: Path) -> None:
    landed = land(tmp_path, f"{HEADER}\n1,{DAY}T10:00:00Z,,2,true,\n".encode(), {"null_values": []})
    assert landed.frame["site"].to_list() == [""]
    assert [check.column for check in landed.problems] == ["on"]


def test_an_instant_is_read_in_utc_whatever_its_offset(tmp_path: Path) -> None:
    texts = ("2024-02-29T05:00:00-05:00", "2024-02-29T10:00:00Z", "2024-02-29 10:00:00+0000")
    data = HEADER + "\n" + "".join(f"{i},{text},,,,\n" for i, text in enumerate(texts))
    landed = land(tmp_path, data.encode())
    assert landed.problems == ()
    assert landed.frame["at"].unique().to_list() == [datetime(2024, 2, 29, 10, tzinfo=UTC)]


def test_a_header_without_rows_is_an_empty_frame(tmp_path: Path) -> None:
    landed = land(tmp_path, HEADER.encode() + b"\n")
    assert landed.frame.height == 0
    assert landed.frame.schema["at"] == pl.Datetime("us", "UTC")


def test_gzip_of_several_members_is_read_whole(tmp_path: Path) -> None:
    cut = GOOD.index(b"\n") + 1
    data = gzip.compress(GOOD[:cut]) + gzip.compress(GOOD[cut:])
    landed = land(tmp_path, data, {"path": "a/{partition}.csv.gz"})
    assert landed.frame.height == 2


def test_the_source_is_named_with_the_digest_of_the_raw_file(tmp_path: Path) -> None:
    data = gzip.compress(GOOD)
    landed = land(tmp_path, data, {"path": "a/{partition}.csv.gz"})
    assert landed.sources[0].sha256 == hashlib.sha256(data).hexdigest()
    assert landed.sources[0].bytes == len(data)
    assert landed.sources[0].path == f"a/{DAY}.csv.gz"
    assert Files(tmp_path).local_path(landed.sources[0]) == tmp_path / "a" / f"{DAY}.csv.gz"
    assert Files(tmp_path).files(make_spec({"path": "a/{partition}.csv.gz"}), "rows", DAY) == landed.sources


def test_the_shipped_cases_are_read_without_a_problem(flights_case: Case, third_case: Case) -> None:
    for case in (flights_case, third_case):
        source = Files(case.landing)
        for table, wanted in case.spec.tables.items():
            key = STATIC if wanted.static else case.keys[-1]
            landed = source.read(case.spec, table, key)
            assert landed.problems == ()
            assert landed.frame.columns == list(wanted.columns)
            assert landed.frame.height >= wanted.min_rows


# Values that cannot be read


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("id", "1.5"),
        ("id", "1e3"),
        ("id", " 7"),
        ("id", "9223372036854775808"),
        ("size", "n/a mi"),
        ("size", "nan"),
        ("size", "-inf"),
        ("size", "1e400"),
        ("size", '"1,5"'),
        ("open", "yes"),
        ("open", "2"),
        ("at", "2024-02-29T10:00:00"),
        ("at", "2024-02-30T10:00:00Z"),
        ("at", "29.02.2024"),
        ("at", "1709200800"),
        ("on", "2024-2-9"),
        ("on", "2023-02-29"),
    ],
)
def test_text_that_is_not_of_the_columns_type_is_null_and_named(tmp_path: Path, column: str, text: str) -> None:
    cells = dict(zip(TYPES, ROW.split(","), strict=True))
    bad = ",".join({**cells, column: text}.values())
    landed = land(tmp_path, f"{HEADER}\n{ROW}\n{bad}\n{ROW}\n".encode())
    shown = text.strip('"')
    (check,) = landed.problems
    assert (check.name, check.column, check.passed) == (f"readable_as_{TYPES[column]}", column, False)
    expected = f"1 of 3 values cannot be read as {TYPES[column]}, first at row 2: {shown!r}"
    assert check.observed == expected
    assert check.allowed
    assert landed.frame[column].is_null().to_list() == [False, True, False]


def test_every_bad_column_has_its_own_check_and_long_values_are_cut(tmp_path: Path) -> None:
    data = f"{HEADER}\nx,{DAY}T10:00:00Z,,{'9' * 500}z,true,\n".encode()
    landed = land(tmp_path, data)
    assert [check.column for check in landed.problems] == ["id", "size"]
    assert len(landed.problems[1].observed) < 150


# Files that cannot be read


def test_a_missing_file_is_missing_input_and_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"a/date=2024-02-29/a\.csv.*there is no such file"):
        Files(tmp_path).read(make_spec(), "rows", DAY)
    assert Files(tmp_path).files(make_spec(), "rows", DAY) == ()


@pytest.mark.parametrize("path", ["a/{partition}.csv", "a/{partition}.csv.gz"])
def test_an_empty_file_is_refused(tmp_path: Path, path: str) -> None:
    assert "the file is empty (0 bytes)" in refused(tmp_path, b"", {"path": path})


def test_a_truncated_gzip_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD * 50)
    for size in (1, 2, 9, 10, 11, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        assert "truncated" in refused(tmp_path, whole[:size], {"path": "a/{partition}.csv.gz"})


def test_a_gzip_with_any_byte_flipped_never_gives_other_rows(tmp_path: Path) -> None:
    dice = random.Random(5)
    whole = gzip.compress(GOOD * 3, mtime=0)
    expected = None
    outcomes = set()
    for place in sorted(dice.sample(range(len(whole)), 40)):
        data = bytearray(whole)
        data[place] ^= 1 << dice.randrange(8)
        try:
            landed = land(tmp_path, bytes(data), {"path": "a/{partition}.csv.gz"})
        except InputError:
            outcomes.add("refused")
        else:
            # Some header bytes (the time, the operating system) say nothing about the data.
            expected = expected or land(tmp_path, whole, {"path": "a/{partition}.csv.gz"})
            assert landed.frame.equals(expected.frame)
    assert outcomes == {"refused"}


def test_what_is_not_gzip_or_goes_on_after_gzip_is_refused(tmp_path: Path) -> None:
    table = {"path": "a/{partition}.csv.gz"}
    assert "not a gzip file" in refused(tmp_path, GOOD, table)
    assert "4 stray bytes after the end" in refused(tmp_path, gzip.compress(GOOD) + b"more", table)


def test_another_delimiter_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD.replace(b",", b";"))
    assert "the delimiter is a semicolon (';')" in message
    assert "columns are missing: id, at, on" in message
    assert "a tab ('\\t')" in refused(tmp_path, GOOD.replace(b",", b"\t"))


def test_missing_extra_and_doubled_columns_are_named_with_those_allowed(tmp_path: Path) -> None:
    missing = refused(tmp_path, b"id,at,on,size,open\n1,,,,\n")
    assert "columns missing: site" in missing
    assert "Allowed: id, at, on, size, open, site" in missing
    assert "columns that the spec does not have: spy" in refused(tmp_path, f"{HEADER},spy\n{ROW},1\n".encode())
    both = refused(tmp_path, GOOD.replace(b"site", b"Site"))
    assert "columns missing: site; columns that the spec does not have: Site" in both
    assert "a column is named twice" in refused(tmp_path, f"{HEADER},id\n{ROW},1\n".encode())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"1,{DAY}T10:00:00Z,,2.5", "row 2 has 4 fields"),
        ("", "row 2 has 1 fields"),
        (ROW + ",8", "row 2 has 7 fields"),
        (f'1,{DAY}T10:00:00Z,,"2.5"', "row 2 has 4 fields"),
        ('1,"x', "not readable as CSV"),
    ],
)
def test_a_row_of_another_length_is_refused_with_its_number(tmp_path: Path, row: str, said: str) -> None:
    assert said in refused(tmp_path, f"{HEADER}\n{ROW}\n{row}\n{ROW}\n".encode())


def test_a_long_row_does_not_hide_a_short_one(tmp_path: Path) -> None:
    short, long = ROW.rsplit(",", 1)[0], ROW + ",more"
    assert "not readable as CSV" in refused(tmp_path, f"{HEADER}\n{short}\n{long}\n".encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD.replace(b"north", "Zürich".encode("latin-1")), f"byte 0xFC at offset {GOOD.index(b'north') + 1}"),
        (GOOD.decode().encode("utf-16"), "UTF-16"),
        (GOOD.decode().encode("utf-16-le"), "a NUL byte at offset 1"),
        (GOOD.replace(b"north", b"no\0th"), f"a NUL byte at offset {GOOD.index(b'north') + 2}"),
        (b"\xef\xbb\xbf" + GOOD, "byte order mark (offset 0)"),
        (GOOD.replace(b"\n", b"\r"), "lines end in CR alone"),
    ],
)
def test_other_encodings_are_refused_with_the_offset(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data)


def test_utf8_text_is_kept_as_it_is(tmp_path: Path) -> None:
    landed = land(tmp_path, GOOD.replace(b"north", "Zürich 東京 🛫".encode()))
    assert landed.frame["site"][0] == "Zürich 東京 🛫"


# Caps


def test_a_compression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"0" * 2**20) for _ in range(256)) + packer.flush()
    tracemalloc.start()
    message = refused(tmp_path, bomb, {"path": "a/{partition}.csv.gz", "max_bytes": 4 * 2**20})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "reading stopped" in message
    assert "4194304 bytes (max_bytes)" in message
    assert peak < 16 * 2**20


def test_a_file_that_shrinks_too_well_is_refused_though_max_bytes_is_large(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"0" * 2**20) for _ in range(100)) + packer.flush()
    message = refused(tmp_path, bomb, {"path": "a/{partition}.csv.gz"})
    assert "250 times its own size" in message


def test_a_plain_file_over_max_bytes_is_refused(tmp_path: Path) -> None:
    assert f"{len(GOOD) - 1} bytes (max_bytes)" in refused(tmp_path, GOOD, {"max_bytes": len(GOOD) - 1})
    assert land(tmp_path, GOOD, {"max_bytes": len(GOOD)}).frame.height == 2


@pytest.mark.parametrize("row", [ROW, ROW.replace("north", '"north"')])
def test_more_rows_than_max_rows_are_refused(tmp_path: Path, row: str) -> None:
    data = (HEADER + "\n" + f"{row}\n" * 5).encode()
    assert "max_rows: 4" in refused(tmp_path, data, {"max_rows": 4})
    assert land(tmp_path, data, {"max_rows": 5}).frame.height == 5


# Inside the landing zone


@pytest.mark.parametrize(
    "key", ["../../secret", "2024-02-29/../x", "/etc/passwd", "%2e%2e", "2024-02-29\0", "2024-02-30", "2024-2-29", ""]
)
def test_a_key_that_is_no_partition_is_refused_before_any_path_is_made(tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match="is not a day key"):
        Files(tmp_path).read(make_spec(), "rows", key)
    with pytest.raises(SpecError, match="is not a day key"):
        Files(tmp_path).files(make_spec(), "rows", key)


def test_a_link_out_of_the_landing_zone_is_refused_and_one_inside_is_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_bytes(GOOD)
    (root / "a").mkdir(parents=True)
    (root / "a" / f"date={DAY}").symlink_to(outside)
    with pytest.raises(InputError, match="a link leads out of the landing zone"):
        Files(root).read(make_spec(), "rows", DAY)
    with pytest.raises(InputError, match="a link leads out of the landing zone"):
        Files(root).files(make_spec(), "rows", DAY)
    (root / "b").mkdir()
    (root / "b" / "a.csv").write_bytes(GOOD)
    (root / "a" / f"date={DAY}").unlink()
    (root / "a" / f"date={DAY}").symlink_to(root / "b")
    assert Files(root).read(make_spec(), "rows", DAY).frame.height == 2


def test_a_folder_or_a_pipe_in_the_files_place_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a" / f"date={DAY}" / "a.csv"
    place.mkdir(parents=True)
    with pytest.raises(InputError, match="not a regular file"):
        Files(tmp_path).read(make_spec(), "rows", DAY)
    place.rmdir()
    os.mkfifo(place)
    with pytest.raises(InputError, match="not a regular file"):
        Files(tmp_path).read(make_spec(), "rows", DAY)


def test_partitions_are_the_keys_whose_files_are_there(tmp_path: Path) -> None:
    spec = make_spec({"path": "a/date={partition}/a-{partition}.csv"})
    names = ["date=2024-03-01/a-2024-03-01.csv", "date=2024-02-29/a-2024-02-29.csv"]
    stray = [
        "date=2024-03-01/a-2024-03-02.csv",
        "date=2024-02-30/a-2024-02-30.csv",
        "date=x/a-x.csv",
        "date=2024-03-05/b.csv",
    ]
    for name in names + stray:
        path = tmp_path / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD)
    assert Files(tmp_path).partitions(spec, "rows") == ["2024-02-29", "2024-03-01"]
    assert Files(tmp_path / "nowhere").partitions(spec, "rows") == []


def test_hours_and_static_tables_have_keys_of_their_own(flights_case: Case, third_case: Case, tmp_path: Path) -> None:
    assert Files(third_case.landing).partitions(third_case.spec, "rows") == list(third_case.keys)
    assert Files(third_case.landing).partitions(third_case.spec, "labels") == list(third_case.keys)
    planes = Files(flights_case.landing)
    assert planes.partitions(flights_case.spec, "planes") == [STATIC]
    assert Files(tmp_path).partitions(flights_case.spec, "planes") == []
    with pytest.raises(SpecError, match="no partition '2013-01-01'"):
        planes.read(flights_case.spec, "planes", "2013-01-01")
    with pytest.raises(SpecError, match=r"there is no table 'plane'.*rows, labels, weather, planes"):
        planes.read(flights_case.spec, "plane", STATIC)


# JSON lines

JSONL = {"path": "a/{partition}.jsonl", "format": "jsonl"}
OBJECT = {"id": 1, "at": f"{DAY}T10:00:00Z", "on": DAY, "size": 2.5, "open": True, "site": "north"}


def lines(*objects: Mapping[str, Any]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in objects).encode()


def test_json_lines_become_the_same_frame_as_csv(tmp_path: Path) -> None:
    second = {"id": 2, "at": f"{DAY}T23:59:59.999999+00:00", "size": None, "open": False, "site": ""}
    landed = land(tmp_path, lines(OBJECT, second), JSONL)
    assert landed.problems == ()
    assert landed.frame.equals(land(tmp_path, GOOD).frame)


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("id", "5", "'5'"),
        ("id", 1.5, "'1.5'"),
        ("id", True, "'true'"),
        ("id", 2**63, f"'{2**63}'"),
        ("size", "2.5", "'2.5'"),
        ("size", False, "'false'"),
        ("size", 10**400, None),
        ("open", 1, "'1'"),
        ("open", "true", "'true'"),
        ("site", 7, "'7'"),
        ("site", ["a"], "'[\"a\"]'"),
        ("site", "\ud800", None),
        ("at", 1709200800, "'1709200800'"),
        ("at", "2024-02-29T10:00:00", "'2024-02-29T10:00:00'"),
        ("on", {"y": 2024}, None),
    ],
)
def test_a_json_value_of_another_type_is_null_and_named(
    tmp_path: Path, column: str, value: Any, shown: str | None
) -> None:
    landed = land(tmp_path, lines(OBJECT, {**OBJECT, column: value}), JSONL)
    (check,) = landed.problems
    assert (check.name, check.column) == (f"readable_as_{TYPES[column]}", column)
    assert check.observed.startswith(f"1 of 2 values cannot be read as {TYPES[column]}, first at row 2: {shown or ''}")
    assert landed.frame[column].is_null().to_list() == [False, True]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (lines(OBJECT) + b"\n" + lines(OBJECT), "line 2 is not JSON"),
        (lines(OBJECT) + b'{"id": 1', "line 2 is not JSON"),
        (lines(OBJECT) + b"[1]\n", "line 2 is list, not an object"),
        (b'{"id": NaN}\n', "NaN is not JSON"),
        (b'{"id": 1, "id": 2}\n', "a key is given twice"),
        (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        (lines({**OBJECT, "spy": 1}), "line 1 has columns that the spec does not have: spy"),
        (lines({k: v for k, v in OBJECT.items() if k != "site"}), "columns missing: site"),
        (lines(OBJECT, {k: v for k, v in OBJECT.items() if k != "id"}), "line 2 leaves out 'id'"),
        (lines(OBJECT).decode().encode("utf-16"), "UTF-16"),
        (b"\xef\xbb\xbf" + lines(OBJECT), "byte order mark"),
    ],
)
def test_bad_json_lines_are_refused_with_the_line(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data, JSONL)


def test_json_lines_have_the_same_caps(tmp_path: Path) -> None:
    assert "max_rows: 1" in refused(tmp_path, lines(OBJECT, OBJECT), {**JSONL, "max_rows": 1})
    assert "max_bytes" in refused(tmp_path, lines(OBJECT), {**JSONL, "max_bytes": 10})


def test_no_json_lines_are_an_empty_table_where_the_spec_allows_none(tmp_path: Path) -> None:
    landed = land(tmp_path, b"", {**JSONL, "min_rows": 0})
    assert landed.frame.height == 0
    assert landed.frame.schema["size"] == pl.Float64


# Parquet

PARQUET = {"path": "a/{partition}.parquet", "format": "parquet"}


def parquet(tmp_path: Path, frame: pl.DataFrame) -> bytes:
    """The bytes of a Parquet file."""
    file = tmp_path / "made.parquet"
    frame.write_parquet(file)
    return file.read_bytes()


def test_parquet_becomes_the_same_frame_as_csv_and_narrow_types_are_widened(tmp_path: Path) -> None:
    frame = land(tmp_path, GOOD).frame
    narrow = frame.with_columns(
        pl.col("id").cast(pl.UInt16),
        pl.col("size").cast(pl.Float32),
        pl.col("site").cast(pl.Categorical),
        pl.col("at").dt.convert_time_zone("Asia/Tokyo").cast(pl.Datetime("ns", "Asia/Tokyo")),
    ).select(reversed(frame.columns))
    landed = land(tmp_path, parquet(tmp_path, narrow), PARQUET)
    assert landed.problems == ()
    assert landed.frame.equals(frame)
    assert landed.frame.schema == frame.schema


@pytest.mark.parametrize(
    ("column", "to", "said"),
    [
        ("id", pl.String, "column 'id' has type String"),
        ("id", pl.Float64, "column 'id' has type Float64"),
        ("id", pl.UInt64, "column 'id' has type UInt64"),
        ("size", pl.Int64, "column 'size' has type Int64"),
        ("on", pl.Datetime("us"), "column 'on' has type Datetime"),
        ("at", pl.Datetime("us"), "column 'at' holds timestamps without a time zone"),
        ("open", pl.Int8, "column 'open' has type Int8"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(tmp_path: Path, column: str, to: Any, said: str) -> None:
    frame = land(tmp_path, GOOD).frame
    made = pl.col(column).dt.replace_time_zone(None) if column == "at" else pl.col(column).cast(to)
    assert said in refused(tmp_path, parquet(tmp_path, frame.with_columns(made)), PARQUET)


def test_parquet_floats_that_are_not_finite_are_null_and_named(tmp_path: Path) -> None:
    frame = land(tmp_path, GOOD).frame.with_columns(size=pl.Series([float("nan"), float("inf")]))
    landed = land(tmp_path, parquet(tmp_path, frame), PARQUET)
    assert [check.observed for check in landed.problems] == [
        "2 of 2 values cannot be read as float, first at row 1: 'nan'"
    ]
    assert landed.frame["size"].null_count() == 2


def test_what_is_not_whole_parquet_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path, land(tmp_path, GOOD).frame)
    for data in (b"", GOOD, whole[: len(whole) // 2], whole[:-4], b"PAR1" + whole[4:-9] + b"\xff" * 5 + b"PAR1"):
        assert "not readable as Parquet" in refused(tmp_path, data, PARQUET)


def test_parquet_columns_and_caps_are_judged(tmp_path: Path) -> None:
    frame = land(tmp_path, GOOD).frame
    assert "columns missing: site" in refused(tmp_path, parquet(tmp_path, frame.drop("site")), PARQUET)
    extra = parquet(tmp_path, frame.with_columns(spy=1))
    assert "columns that the spec does not have: spy" in refused(tmp_path, extra, PARQUET)
    assert "max_rows: 1" in refused(tmp_path, parquet(tmp_path, frame), {**PARQUET, "max_rows": 1})
    long = parquet(tmp_path, frame.with_columns(site=pl.lit("x" * 2_000_000)))
    assert len(long) < 20_000
    assert "bytes when decompressed" in refused(tmp_path, long, {**PARQUET, "max_bytes": 1_000_000})


# Properties

_CELL = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), _CELL), min_size=1, max_size=8))
def test_what_is_written_as_json_lines_is_what_is_read(tmp_path: Path, cells: list[tuple[int, str | None]]) -> None:
    objects = [{**OBJECT, "id": number, "site": text} for number, text in cells]
    landed = land(tmp_path, lines(*objects), JSONL)
    assert landed.problems == ()
    assert list(zip(landed.frame["id"], landed.frame["site"], strict=True)) == cells


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_at_all_are_read_or_refused_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    for table in ({}, {"path": "a/{partition}.csv.gz"}, JSONL, PARQUET):
        for start in (b"", HEADER.encode() + b"\n"):
            try:
                landed = land(tmp_path, start + data, table)
            except InputError:
                continue
            assert landed.frame.columns == list(TYPES)

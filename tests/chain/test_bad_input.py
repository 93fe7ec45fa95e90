"""Bad input of every kind: one clear verdict, and what was published stays byte for byte as it was."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import AuditError, MissingInput
from pipelines.runtime import Runtime
from tests.chain.conftest import NIGHTS, state

_NIGHT = NIGHTS[1]


def _lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def _write(path: Path, lines: list[str], encoding: str = "utf-8") -> None:
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(encoding), mtime=0))


def _field(path: Path, name: str, value: str, rows: slice) -> None:
    """Puts a value into a column of some rows."""
    head, *body = _lines(path)
    index = head.split(",").index(name)
    for row in range(*rows.indices(len(body))):
        cells = body[row].split(",")
        cells[index] = value
        body[row] = ",".join(cells)
    _write(path, [head, *body])


def _drop_column(path: Path) -> None:
    _write(path, [line.rsplit(",", 1)[0] for line in _lines(path)])


def _add_column(path: Path) -> None:
    head, *body = _lines(path)
    _write(path, [head + ",surprise", *(line + ",1" for line in body)])


def _truncate(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _repeat_rows(path: Path) -> None:
    head, *body = _lines(path)
    _write(path, [head, *body, *body[:3]])


def _latin1(path: Path) -> None:
    _field(path, "tailnum", "N\u00e91", slice(0, 1))
    _write(path, _lines(path), "latin-1")


def _another_day(path: Path) -> None:
    _field(path, "scheduled_departure", "2013-01-25T10:00:00Z", slice(0, 1))


#: What is done to the file, and a word that the verdict must hold.
_SPOILERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an empty file": (lambda path: path.write_bytes(b""), "empty"),
    "a header and no rows": (lambda path: _write(path, _lines(path)[:1]), "row"),
    "a tenth of the rows": (lambda path: _write(path, _lines(path)[:90]), "row"),
    "a truncated gzip": (_truncate, "gzip"),
    "text that is not gzip": (lambda path: path.write_bytes(b"flight_id,carrier\n"), "gzip"),
    "another delimiter": (lambda path: _write(path, [line.replace(",", ";") for line in _lines(path)]), ";"),
    "a missing column": (_drop_column, "distance"),
    "an extra column": (_add_column, "surprise"),
    "text in a number": (lambda path: _field(path, "distance", "far", slice(0, 1)), "distance"),
    "Latin-1 bytes": (_latin1, "UTF-8"),
    "a null in the key": (lambda path: _field(path, "flight_id", "", slice(0, 1)), "flight_id"),
    "repeated keys": (_repeat_rows, "flight_id"),
    "a row of another day": (_another_day, "scheduled_departure"),
    "a column all null": (lambda path: _field(path, "carrier", "", slice(None)), "carrier"),
}


@pytest.mark.parametrize("name", _SPOILERS)
def test_a_spoiled_file_is_quarantined_with_a_clear_reason_and_changes_nothing(runtime: Runtime, name: str) -> None:
    spoil, word = _SPOILERS[name]
    spoil(runtime.settings.landing_zone / f"flights/date={_NIGHT}/flights.csv.gz")
    before = state(runtime.settings.home)
    validated = runtime.validate(runtime.land("rows", [_NIGHT]))
    assert validated.staged == ()
    assert runtime.publish(validated) is None
    assert state(runtime.settings.home) == before
    (entry,) = runtime.store.quarantined("rows")
    said = " ".join(f"{check.name} {check.column} {check.observed} {check.allowed}" for check in entry.report.failed)
    assert word in said, said
    assert entry.report.html is not None
    assert Path(entry.report.html).exists()
    assert (Path(entry.folder) / "flights.csv.gz").exists()


def test_a_label_out_of_range_is_quarantined(runtime: Runtime) -> None:
    _field(
        runtime.settings.landing_zone / f"outcomes/date={NIGHTS[0]}/outcomes.csv.gz",
        "arrival_delay",
        "999999",
        slice(0, 1),
    )
    before = state(runtime.settings.home)
    validated = runtime.validate(runtime.land("labels", [_NIGHT]))
    assert [entry.partition for entry in validated.quarantined] == [NIGHTS[0]]
    assert any(check.column == "arrival_delay" for check in validated.quarantined[0].report.failed)
    assert runtime.publish(validated) is None
    assert state(runtime.settings.home) == before


def test_one_bad_partition_of_a_range_holds_up_no_other(runtime: Runtime) -> None:
    _truncate(runtime.settings.landing_zone / f"flights/date={_NIGHT}/flights.csv.gz")
    validated = runtime.validate(runtime.land("rows", list(NIGHTS[1:])))
    assert [entry.partition for entry in validated.quarantined] == [_NIGHT]
    publication = runtime.publish(validated)
    assert publication is not None
    assert [part.partition for part in publication.published] == list(NIGHTS[2:])


def test_a_missing_file_changes_nothing_and_says_where_it_should_be(runtime: Runtime) -> None:
    (runtime.settings.landing_zone / f"flights/date={_NIGHT}/flights.csv.gz").unlink()
    before = state(runtime.settings.home)
    with pytest.raises(MissingInput, match=r"flights/date=\{partition\}"):
        runtime.land("rows", [_NIGHT])
    assert state(runtime.settings.home) == before


def test_what_passed_before_its_expectations_were_changed_is_not_published(runtime: Runtime) -> None:
    validated = runtime.validate(runtime.land("rows", [_NIGHT]))
    assert validated.staged
    rows = runtime.spec.tables["rows"]
    stricter = rows.model_copy(update={"min_rows": rows.min_rows + 1})
    spec = runtime.spec.model_copy(update={"tables": {**runtime.spec.tables, "rows": stricter}})
    with pytest.raises(AuditError, match="another suite"):
        Runtime(spec, runtime.settings, runtime.run).publish(validated)
    assert _NIGHT not in runtime.store.partitions(runtime.store.head("rows"))

"""Erasure on the trained flights case: a plane and a single flight, out of everything but the sealed artifacts."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from pipelines.records import Erasure
from pipelines.runtime import Runtime
from tests.cases import Case
from tests.chain.conftest import HISTORY, NIGHTS, command_line, ingest, score
from tests.scan import holding

#: Artifacts are sealed, and the landing zone is the source system's.
_DOCUMENTED = ("mlflow",)


def _case(runtime: Runtime) -> Case:
    settings = runtime.settings
    return Case(
        project=settings.project, landing=settings.landing_zone, path=settings.project, spec=runtime.spec, keys=()
    )


def _erase(runtime: Runtime, key: str, *options: str) -> Erasure:
    arguments = ("erase", "--use-case", "flights", "--key", key, "--reason", "request 12", "--json", *options)
    done = command_line(_case(runtime), runtime.settings.home, *arguments)
    assert done.exit_code == 0, done.output
    return Erasure.model_validate_json(done.stdout)


def _seen(runtime: Runtime, table: str) -> pl.DataFrame:
    head = runtime.store.head(table)
    assert head is not None
    return runtime.store.scan(head).collect()


def _spread(runtime: Runtime) -> str:
    """Lays a plane out everywhere: history and a scored night, older bytes, staged, quarantine, a page. Its name."""
    landing = runtime.settings.landing_zone
    rows = _seen(runtime, "rows")
    planes = _seen(runtime, "planes").get_column("tailnum")
    early, late = rows.filter(pl.col("partition") < HISTORY[1]), rows.filter(pl.col("partition") == NIGHTS[0])
    both = set(early.get_column("tailnum")) & set(late.get_column("tailnum")) & set(planes)
    plane = sorted(name for name in both if name)[0]
    file = landing / "flights" / f"date={HISTORY[0]}" / "flights.csv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
    bad = landing / "flights" / f"date={NIGHTS[1]}" / "flights.csv.gz"
    # A night that no expectation can be tried on: its header is another. One line names the plane.
    bad.write_bytes(gzip.compress("".join(["id,plane\n", f"1,{plane}\n"]).encode()))
    runtime.validate(runtime.land("rows", [NIGHTS[1]]))
    # The first day is restated without its last flight, so that the first bytes are only in the history.
    file.write_bytes(gzip.compress("".join(lines[:-1]).encode()))
    runtime.publish(runtime.validate(runtime.land("rows", [HISTORY[0]])))
    runtime.land("rows", [NIGHTS[0]])
    page = runtime.settings.reports / "flights" / "validation" / "rows" / "looked-at.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"<td>2 keys occur twice: {plane}</td>")
    return plane


def test_a_plane_is_erased_from_everything_and_nothing_is_scored_anew(runtime: Runtime) -> None:
    plane, home = _spread(runtime), runtime.settings.home
    before = {table: _seen(runtime, table) for table in ("rows", "planes", "predictions", "labels")}
    its_rows = before["rows"].filter(pl.col("tailnum") == plane)
    flight = its_rows.filter(pl.col("partition") == NIGHTS[0]).get_column("flight_id")[0]
    there = holding(home, plane, but=_DOCUMENTED)
    for place in ("/rows/partition=", "/planes/partition=", "_staging", "_quarantine", "reports"):
        assert any(place in path for path in there), place
    assert any("sets" in path for path in holding(home, its_rows.get_column("flight_id")[0]))

    would = _erase(runtime, f"tailnum={plane}")
    assert not would.done
    assert holding(home, plane, but=_DOCUMENTED) == there

    done = _erase(runtime, f"tailnum={plane}", "--yes")
    assert done.model_copy(update={"done": False, "id": None}) == would
    assert holding(home, plane, but=_DOCUMENTED) == []
    assert holding(home, flight, but=_DOCUMENTED) == []
    assert holding(home, plane) == []  # nor do this model's artifacts hold it: it is no feature
    lost = {entry.table: entry.rows for entry in done.tables}
    assert lost == {
        "rows": its_rows.height,
        "labels": before["labels"].join(its_rows, on="flight_id", how="semi").height,
        "planes": 1,
        "predictions": its_rows.filter(pl.col("partition") == NIGHTS[0]).height,
    }
    assert _seen(runtime, "rows").equals(before["rows"].filter(pl.col("tailnum").ne_missing(plane)))
    assert [(entry.name, entry.parts, entry.holds_values) for entry in done.models] == [
        ("flights@1", ("train", "validation", "holdout", "unlabelled"), False)
    ]
    assert done.unreplayable == (NIGHTS[0],)
    assert runtime.replay(NIGHTS[0]).outcome == "erased"
    assert any(link.facts.get("erased") for link in runtime.trace("flights@1").all("training"))
    assert len(done.quarantined) == 1
    assert f"landing zone: flights/date={NIGHTS[1]}/flights.csv.gz" in done.remains

    scored = _seen(runtime, "predictions")
    assert sorted(scored.get_column("flight_id")) == sorted(
        _seen(runtime, "rows").filter(pl.col("partition") == NIGHTS[0]).get_column("flight_id")
    )
    assert score(runtime, [NIGHTS[0]]) == ("unchanged",)
    assert not _erase(runtime, f"tailnum={plane}", "--yes").found
    # Landed again, the flights are back, and are scored like any rows that are new.
    ingest(runtime, [NIGHTS[0]])
    assert score(runtime, [NIGHTS[0]]) == ("published",)
    assert _seen(runtime, "predictions").height == before["predictions"].height


def test_a_plane_that_only_a_context_table_knows_leaves_every_score_as_it_is(runtime: Runtime) -> None:
    rows = _seen(runtime, "rows")
    grounded = _seen(runtime, "planes").join(rows, on="tailnum", how="anti").get_column("tailnum")[0]
    done = _erase(runtime, f"tailnum={grounded}", "--yes")
    assert [(entry.table, entry.rows) for entry in done.tables] == [("planes", 1)]
    assert score(runtime, [NIGHTS[0]]) == ("unchanged",)
    assert done.unreplayable == (NIGHTS[0],)
    # The landing zone still names the plane, and brings it back: the inputs are those of the scores again.
    ingest(runtime, [NIGHTS[1]])
    assert score(runtime, [NIGHTS[0]]) == ("unchanged",)
    assert len(runtime.store.history("predictions")) == 1


def test_a_single_flight_is_erased_and_the_chain_goes_on(runtime: Runtime) -> None:
    home = runtime.settings.home
    flight = _seen(runtime, "predictions").get_column("flight_id")[0]
    assert holding(home, flight, but=_DOCUMENTED)
    done = command_line(
        _case(runtime), home, "erase", "--use-case", "flights", "--key", f"flight_id={flight}", "--reason", "x", "--yes"
    )
    assert done.exit_code == 0, done.output
    assert flight not in done.output
    assert "predictions" in done.output
    assert "can no longer be replayed" in done.output
    assert holding(home, flight) == []
    ingest(runtime, [NIGHTS[1]])
    assert score(runtime, [NIGHTS[0], NIGHTS[1]]) == ("unchanged", "published")
    assert runtime.observe(NIGHTS[1]).window


def test_a_value_that_models_have_learned_by_name_is_said_to_be_in_their_artifacts(runtime: Runtime) -> None:
    page = runtime.settings.reports / "flights" / "drift" / "2013-01-17-champion-1.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("pictures")
    rows = _seen(runtime, "rows").height
    would = _erase(runtime, "carrier=UA")
    assert [(entry.name, entry.holds_values) for entry in would.models] == [("flights@1", True)]
    assert str(page) in would.files
    assert any("artifacts" in path for path in would.files)
    assert _seen(runtime, "rows").height == rows


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("tailnum", "column=value"),
        ("wingspan=3", "no table has a column 'wingspan'"),
        ("flight=many", "Allowed: int"),
        ("distance=1400", "names nobody"),
    ],
)
def test_a_bad_key_is_one_line_and_exit_code_1(runtime: Runtime, key: str, what: str) -> None:
    done = command_line(
        _case(runtime), runtime.settings.home, "erase", "--use-case", "flights", "--key", key, "--reason", "x", "--yes"
    )
    assert done.exit_code == 1
    assert what in done.output
    assert "Traceback" not in done.output

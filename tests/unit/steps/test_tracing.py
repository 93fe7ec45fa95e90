"""Names of things, taken apart; anything else is refused with the forms that there are."""

from __future__ import annotations

import pytest

from pipelines.errors import NotFoundError
from pipelines.steps.tracing import Name, parse


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "flights/predictions/2013-09-03",
            {"form": "partition", "use_case": "flights", "table": "predictions", "partition": "2013-09-03"},
        ),
        (
            "readings/rows/2024-02-28T20#7|2024-02-28 20:07:00.000007",
            {
                "form": "partition",
                "use_case": "readings",
                "table": "rows",
                "partition": "2024-02-28T20",
                "key": "7|2024-02-28 20:07:00.000007",
            },
        ),
        (
            "flights/planes/static#a/b#c",
            {"form": "partition", "use_case": "flights", "table": "planes", "partition": "static", "key": "a/b#c"},
        ),
        ("flights@7", {"form": "model", "use_case": "flights", "model": "7"}),
        ("flights@previous", {"form": "model", "use_case": "flights", "model": "previous"}),
        ("scheduled__2013-09-03T02:00:00+00:00", {"form": "run", "run": "scheduled__2013-09-03T02:00:00+00:00"}),
        ("flights_ingest/manual__1", {"form": "run", "dag": "flights_ingest", "run": "manual__1"}),
        ("cli-4242", {"form": "run", "run": "cli-4242"}),
    ],
)
def test_each_form_of_name_is_recognised(text: str, name: dict[str, str]) -> None:
    assert parse(text) == Name(**name)  # type: ignore[arg-type]


def test_a_snapshot_is_named_by_its_id() -> None:
    name = parse("delta:flights/rows@12")
    assert name.form == "snapshot"
    assert name.snapshot is not None
    assert name.snapshot.id == "delta:flights/rows@12"
    assert name.use_case == "flights"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../flights/rows/2013-09-03",
        "flights/rows/..",
        "flights/../rows/2013-09-03",
        "flights/rows/2013-09-03/",
        "flights//2013-09-03",
        "/flights/rows/2013-09-03",
        "Flights/rows/2013-09-03",
        "flights/rows/2013-09-03#",
        "flights/rows/2013-09-03#a\nb",
        "flights/rows/2013-09-03#a\0",
        "flights@",
        "flights@-1",
        "flights@1x",
        "flights@production",
        "delta:flights/rows@../1",
        "iceberg:flights/rows@1",
        "a run with spaces",
        "%2e%2e/run",
        "x" * 300,
    ],
)
def test_other_names_are_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(NotFoundError, match="Allowed: "):
        parse(text)

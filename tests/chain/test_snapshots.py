"""Snapshots of a trained use case: what models and predictions need is kept, and people handle the rest by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from click.testing import Result  # noqa: TC002

from pipelines.errors import RemovedError
from pipelines.records import Collection, PublishedPartition, Replay, SnapshotDiff, SnapshotRef, Tombstone
from pipelines.runtime import Runtime
from pipelines.steps.snapshots import kept
from tests.cases import Case
from tests.chain.conftest import NIGHTS, command_line, ingest, score

NIGHT = NIGHTS[0]


def overnight(runtime: Runtime, *arguments: str) -> Result:
    """The command line on a runtime's folders."""
    settings = runtime.settings
    case = Case(
        project=settings.project,
        landing=settings.landing_zone,
        path=settings.spec_path(runtime.spec.name),
        spec=runtime.spec,
        keys=(),
    )
    return command_line(case, settings.home, *arguments)


def restate(runtime: Runtime, night: str, less: int) -> None:
    """The source sends the night again with fewer rows, and it is ingested."""
    from gzip import compress

    path = runtime.settings.landing_zone / f"flights/date={night}/flights.csv.gz"
    rows = pl.read_csv(path, infer_schema=False)
    path.write_bytes(compress(rows.head(rows.height - less).write_csv().encode(), mtime=0))
    ingest(runtime, [night])


def part(runtime: Runtime, table: str, partition: str) -> PublishedPartition:
    return runtime.store.partitions(head(runtime, table))[partition]


def head(runtime: Runtime, table: str) -> SnapshotRef:
    found = runtime.store.head(table)
    assert found is not None
    return found


def remove(runtime: Runtime, table: str, removed: PublishedPartition, kind: str) -> None:
    runtime.store.purge(
        Tombstone.model_validate(
            {
                "id": "stone",
                "kind": kind,
                "table": table,
                "parts": (removed,),
                "reason": "a request",
                "run": runtime.run,
                "at": datetime.now(UTC),
            }
        )
    )


def test_what_the_model_and_the_predictions_name_outlives_a_collection(runtime: Runtime) -> None:
    trained_on = runtime.registry.trainings()[0].tags["overnight.snapshots"].split()
    restate(runtime, NIGHT, 5)  # the predictions are still made from the first sending
    restate(runtime, NIGHT, 10)
    since = datetime.now(UTC)
    named = {entry.snapshot.id: entry.reasons for entry in kept(runtime.store, runtime.registry, ("rows",), since)}
    assert any("model flights@1" in reasons for name, reasons in named.items() if name in trained_on)
    assert any(f"predictions {NIGHT}" in reasons for reasons in named.values())

    done = runtime.collect(since, dry_run=False)
    (between,) = [found for table in done.tables for found in table.parts if table.table == "rows"]
    assert between.partition == NIGHT
    assert runtime.replay(NIGHT).outcome == "identical"
    for name in trained_on:
        runtime.store.scan(SnapshotRef.parse(name)).collect()
    assert runtime.collect(datetime.now(UTC)).tables == tuple(
        table.model_copy(update={"parts": ()}) for table in done.tables
    )


def test_superseded_predictions_are_collected_with_what_only_they_were_made_from(runtime: Runtime) -> None:
    first = part(runtime, "predictions", NIGHT)
    old = head(runtime, "predictions")
    restate(runtime, NIGHT, 5)
    assert score(runtime, [NIGHT]) == ("published",)
    done = overnight(runtime, "collect", "flights", "--older-than", "0d", "--json")
    dry = Collection.model_validate_json(done.stdout)
    assert (done.exit_code, dry.dry_run) == (0, True)
    assert runtime.store.tombstones() == []
    assert {table.table: table.parts for table in dry.tables}["predictions"] == (first,)
    done = overnight(runtime, "collect", "flights", "--older-than", "0d", "--yes")
    assert (done.exit_code, "predictions: 1 files" in done.output) == (0, True)
    with pytest.raises(RemovedError):
        runtime.store.scan(old).collect()
    assert "nothing to collect" in overnight(runtime, "collect", "flights", "--older-than", "0d").output
    found = runtime.trace(f"flights/predictions/{NIGHT}")
    assert found.root.facts["state"] == "current"
    again = runtime.trace(f"{runtime.run.dag_id}/{runtime.run.run_id}")
    states = {link.facts["state"] for link in again.all("partition") if link.id == f"flights/predictions/{NIGHT}"}
    assert states == {"current", "collected"}


@pytest.mark.parametrize("kind", ["erased", "collected"])
def test_predictions_whose_input_is_gone_cannot_be_replayed_and_say_so(runtime: Runtime, kind: str) -> None:
    remove(runtime, "rows", part(runtime, "rows", NIGHT), kind)
    done = overnight(runtime, "replay", f"flights/predictions/{NIGHT}", "--json")
    told = Replay.model_validate_json(done.stdout)
    assert (done.exit_code, told.outcome, told.replayed) == (1, kind, None)
    assert told.differences == (f"rows/{NIGHT} (tombstone stone)",)
    found = runtime.trace(f"flights/predictions/{NIGHT}")
    (stone,) = found.all("tombstone")
    assert (stone.id, stone.facts["kind"], stone.facts["reason"]) == ("stone", kind, "a request")
    key = runtime.store.scan(head(runtime, "predictions")).select("flight_id").head(1).collect().item()
    row = runtime.trace(f"flights/predictions/{NIGHT}#{key}").root
    assert 0 <= row.facts["score"] <= 1, "the prediction itself is still there"
    assert kind in row.links[0].facts["state"]
    assert any(link.id == "stone" for link in runtime.trace("test/test").all("tombstone"))


def test_people_handle_snapshots_by_name(runtime: Runtime) -> None:
    restate(runtime, NIGHT, 5)
    history = json.loads(overnight(runtime, "history", "flights", "rows", "--json").stdout)
    assert [list(entry["partitions"]) for entry in history[:2]] == [[NIGHT], [NIGHT]]
    assert len(json.loads(overnight(runtime, "history", "flights", "rows", "--last", "1", "--json").stdout)) == 1
    first = history[1]["snapshot"]["version"]
    pinned = overnight(runtime, "pin", "flights", "rows", first, "as-first-sent", "--reason", "a dispute")
    assert (pinned.exit_code, f"@{first} is kept" in pinned.output) == (0, True)
    assert "as-first-sent" in overnight(runtime, "pins", "flights").output
    assert overnight(runtime, "pin", "flights", "rows", "head", "as-first-sent", "--reason", "x").exit_code == 1

    said = overnight(runtime, "diff", "flights", "rows", "as-first-sent", "head", "--json")
    told = json.loads(said.stdout)
    assert told.pop("rows") == -5
    assert SnapshotDiff.model_validate(told).replaced[0][1] == part(runtime, "rows", NIGHT)
    assert (
        "0 added, 0 removed, 1 replaced, -5 rows"
        in overnight(runtime, "diff", "flights", "rows", "as-first-sent", "head").output
    )

    back = overnight(runtime, "revert", "flights", "rows", "--to", "as-first-sent", "--reason", "the source erred")
    assert back.exit_code == 0, back.output
    assert json.loads(overnight(runtime, "diff", "flights", "rows", first, "head", "--json").stdout)["rows"] == 0
    assert "revert" in overnight(runtime, "history", "flights", "rows").output
    assert overnight(runtime, "unpin", "flights", "as-first-sent").exit_code == 0
    assert json.loads(overnight(runtime, "pins", "flights", "--json").stdout) == []
    assert score(runtime, [NIGHT]) == ("unchanged",), "the predictions were made from these rows"

    refused = overnight(runtime, "revert", "flights", "promotions", "--to", "head", "--reason", "x")
    assert (refused.exit_code, "overnight rollback" in refused.output) == (1, True)
    unknown = overnight(runtime, "diff", "flights", "rows", "yesterday", "head")
    assert (unknown.exit_code, "as-first-sent" not in unknown.output) == (1, True)


def test_the_doctor_finds_a_damaged_file_and_says_what_to_do(runtime: Runtime) -> None:
    healthy = overnight(runtime, "doctor", "flights")
    assert (healthy.exit_code, healthy.output.strip()) == (0, "all is well")
    digest = part(runtime, "rows", NIGHT).digest
    (file,) = runtime.settings.home.rglob(f"snapshots/**/{digest}.parquet")
    file.unlink()
    ill = overnight(runtime, "doctor", "flights", "--repair")
    assert ill.exit_code == 1
    assert f"flights/rows/{NIGHT}" in ill.output
    assert "Remedy: " in ill.output
    assert json.loads(overnight(runtime, "doctor", "flights", "--json").stdout)[0]["name"] == "damaged_file"


def test_the_run_that_landed_a_snapshot_is_in_its_history(runtime: Runtime) -> None:
    ingest(runtime, [NIGHTS[1]])
    said = overnight(runtime, "history", "flights", "labels", "--last", "1").output
    assert NIGHT in said, "labels of a night land with the next"
    assert "[test/test]" in said

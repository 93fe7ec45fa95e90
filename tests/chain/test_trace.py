"""Provenance both ways: from any name everything else is found, and predictions are replayed byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from pipelines.errors import NotFoundError
from pipelines.records import Link, LinkKind, Trace
from pipelines.runtime import Runtime
from tests.cases import Case
from tests.chain.conftest import HISTORY, NIGHTS, command_line, ingest, runtime_of, score

NIGHT = NIGHTS[0]


@pytest.fixture(scope="module")
def told(trained_case: Case, trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The trained case, a second night by runs of its own, and a decision. Only read here."""
    home = tmp_path_factory.mktemp("told") / "var"
    shutil.copytree(trained_home, home)
    ingest(by(trained_case, home, "flights_ingest", "night"), [NIGHTS[1]])
    score(by(trained_case, home, "flights_score", "night"), [NIGHTS[1]])
    watch = by(trained_case, home, "flights_monitor", "watch")
    watch.decide(watch.observe(NIGHTS[1]))
    return runtime_of(trained_case, home)


def by(case: Case, home: Path, dag: str, run: str) -> Runtime:
    """The chain, acting for a run."""
    runtime = runtime_of(case, home, run)
    return Runtime(runtime.spec, runtime.settings, runtime.run.model_copy(update={"dag_id": dag}))


def ids(trace: Trace, kind: LinkKind) -> set[str]:
    return {link.id for link in trace.all(kind)}


def parts(trace: Trace, table: str) -> dict[str, str]:
    """Digest by partition of a table's partitions in a trace."""
    prefix = f"{trace.use_case}/{table}/"
    found = {link.id: link.facts.get("digest") for link in trace.all("partition") if link.id.startswith(prefix)}
    return {name.removeprefix(prefix): digest for name, digest in found.items()}


def published(runtime: Runtime, table: str) -> dict[str, str]:
    head = runtime.store.head(table)
    assert head is not None
    return {key: part.digest for key, part in runtime.store.partitions(head).items()}


def landed(runtime: Runtime, table: str, partition: str) -> tuple[str, str]:
    """Path and digest of a source file, from the landing zone itself."""
    path = runtime.spec.tables[table].path.replace("{partition}", partition)
    return path, hashlib.sha256((runtime.settings.landing_zone / path).read_bytes()).hexdigest()


def files(trace: Trace) -> set[tuple[str, str]]:
    return {(link.id, link.facts["sha256"]) for link in trace.all("file")}


def test_a_prediction_leads_to_its_inputs_their_files_their_audits_and_its_model(told: Runtime) -> None:
    found = told.trace(f"flights/predictions/{NIGHTS[1]}")
    assert found.root.facts["digest"] == published(told, "predictions")[NIGHTS[1]]
    assert found.root.facts["state"] == "current"
    read = [link for link in found.root.links if link.how == "read"]
    assert [link.id for link in read] == [
        f"flights/rows/{NIGHTS[1]}",
        f"flights/weather/{NIGHT}",  # the spec looks back one night
        f"flights/weather/{NIGHTS[1]}",
        "flights/planes/static",
    ]
    for link in read:
        _, table, partition = link.id.split("/")
        assert link.facts["digest"] == published(told, table)[partition]
        (file,) = [each for each in leaves(link) if each.kind == "file"]
        assert (file.id, file.facts["sha256"]) == landed(told, table, partition)
        (audit,) = [each for each in leaves(link) if each.kind == "audit"]
        (commit,) = [commit for commit in told.store.history(table) if partition in commit.partitions]
        assert audit.id == commit.audits[partition].digest
    assert ids(found, "run") >= {"flights_ingest/night", "flights_score/night", "test/test"}
    model = told.model()
    assert ids(found, "model") == {model.id}
    assert found.all("model")[0].facts["artifact"] == model.digest
    assert ids(found, "training") == {model.run_id}


def leaves(link: Link) -> list[Link]:
    """A link and everything below it."""
    return Trace(name="", use_case="", root=link).all()


def test_a_model_leads_to_all_that_it_learned_from_why_it_is_champion_and_all_that_it_scored(told: Runtime) -> None:
    model = told.model()
    for name in (model.id, "flights@champion"):
        found = told.trace(name)
        assert found.root.id == model.id
        assert found.root.facts["artifact"] == model.digest
        training = found.all("training")[0]
        assert training.id == model.run_id
        assert training.facts["parameters"]["seed"] == told.spec.training.seed
        assert training.facts["code_version"] == "test"
        assert [link.facts["verdict"] for link in found.all("gates")] == ["passed"]
        (promotion,) = found.all("promotion")
        assert (promotion.id, promotion.facts["reason"]) == ("flights/promotions/e000001", "test")
        learned = {link.id for link in training.links if link.how == "learned from"}
        # Labels of a night arrive with the next: the history's last night was not learned from.
        # Of its rows the student heard what the teacher says.
        nights = told.span(HISTORY[0], HISTORY[1])
        for table in ("rows", "labels", "weather"):
            known = nights[:-1] if table == "labels" else nights
            assert {name for name in learned if f"/{table}/" in name} == {f"flights/{table}/{key}" for key in known}
        nights = nights[:-1]
        assert landed(told, "labels", nights[0]) in files(found)
        scored = {link.id for link in found.root.links if link.how == "scored"}
        assert scored == {f"flights/predictions/{key}" for key in NIGHTS[:2]}
        assert parts(found, "predictions") == published(told, "predictions")


@pytest.mark.parametrize(
    ("name", "scored", "learned"),
    [
        (f"flights/rows/{NIGHTS[1]}", {NIGHTS[1]}, False),
        (f"flights/weather/{NIGHT}", {NIGHT, NIGHTS[1]}, False),
        (f"flights/labels/{HISTORY[0]}", {NIGHT, NIGHTS[1]}, True),  # by the model that learned from them
        ("flights/planes/static", {NIGHT, NIGHTS[1]}, True),
    ],
)
def test_data_leads_to_the_predictions_that_read_it_and_the_models_that_learned_from_it(
    told: Runtime, name: str, scored: set[str], learned: bool
) -> None:
    found = told.trace(name)
    _, table, partition = name.split("/")
    assert found.root.facts["digest"] == published(told, table)[partition]
    assert landed(told, table, partition) in files(found)
    assert parts(found, "predictions") == {key: published(told, "predictions")[key] for key in scored}
    assert ids(found, "model") == {told.model().id}
    assert ids(found, "training") == {told.model().run_id}
    assert any(link.how == "learned by" for link in found.root.links) == learned


def test_an_end_of_the_chain_is_found_from_the_other_end(told: Runtime) -> None:
    forwards = told.trace(f"flights/rows/{NIGHTS[1]}")
    back = told.trace(f"flights/predictions/{NIGHTS[1]}")
    assert parts(forwards, "rows") == {NIGHTS[1]: parts(back, "rows")[NIGHTS[1]]}
    assert parts(forwards, "predictions") == parts(back, "predictions")
    for kind in ("model", "training", "promotion"):
        assert ids(forwards, kind) == ids(back, kind)
    assert {"flights_ingest/night", "flights_score/night"} <= ids(forwards, "run") & ids(back, "run")
    assert files(forwards) <= files(back)


def test_a_snapshot_leads_to_its_run_and_to_all_that_name_it(told: Runtime) -> None:
    scored = told.store.history("predictions")[0]
    for name in scored.provenance["snapshots"]:
        found = told.trace(name)
        assert found.root.kind == "snapshot"
        assert NIGHTS[1] in parts(found, "predictions")
        assert ids(found, "run") >= {"flights_score/night"}
    trained_on = found_tag(told, "overnight.snapshots").split()
    for name in trained_on:
        assert ids(told.trace(name), "model") == {told.model().id}
    newest = told.store.head("rows")
    assert newest is not None
    found = told.trace(newest.id)
    assert "flights_ingest/night" in ids(found, "run")
    assert parts(found, "rows") == {NIGHTS[1]: published(told, "rows")[NIGHTS[1]]}


def found_tag(runtime: Runtime, name: str) -> str:
    (training,) = runtime.registry.trainings()
    return training.tags[name]


def test_a_run_leads_to_all_that_it_did(told: Runtime) -> None:
    found = told.trace("flights_ingest/night")
    assert {link.id.split("/")[1] for link in found.all("partition") if not link.how.startswith("read")} >= {
        "rows",
        "labels",
        "weather",
    }
    assert landed(told, "rows", NIGHTS[1]) in files(found)
    assert parts(found, "predictions") == {NIGHTS[1]: published(told, "predictions")[NIGHTS[1]]}
    both = told.trace("night")
    assert ids(both, "run") >= {"flights_ingest/night", "flights_score/night"}
    trained = told.trace("test/test")
    assert ids(trained, "model") == {told.model().id}
    assert ids(trained, "promotion") == {"flights/promotions/e000001"}
    decided = told.trace("flights_monitor/watch")
    (decision,) = told.decisions()
    assert ids(decided, "decision") == {decision.id}


def test_the_entries_of_the_logs_can_be_traced_too(told: Runtime) -> None:
    assert ids(told.trace("flights/promotions/e000001"), "model") == {told.model().id}
    (decision,) = told.decisions()
    found = told.trace(f"flights/decisions/{decision.id}")
    assert ids(found, "decision") == {decision.id}
    assert ids(found, "run") >= {"flights_monitor/watch"}
    assert ids(found, "model") == {told.model().id}


def test_a_training_that_a_decision_asked_for_leads_back_to_it(runtime: Runtime) -> None:
    ingest(runtime, [NIGHTS[1]])
    score(runtime, [NIGHTS[1]])
    decision = runtime.decide(runtime.observe(NIGHTS[1]))
    model = runtime.model()
    # The monitor starts the training under the decision's own id, which is then what the training's tag says.
    runtime.registry.annotate(model.run_id, {"overnight.dag_run": f"flights_train/{decision.id}"})
    found = runtime.trace(model.id)
    assert ids(found, "decision") == {decision.id}
    assert f"flights_train/{decision.id}" in ids(found, "run")
    forwards = runtime.trace(f"flights/decisions/{decision.id}")
    assert [link.id for link in forwards.root.links if link.how == "led to"] == [model.id]
    assert ids(runtime.trace(decision.id), "training") == {model.run_id}


def test_one_prediction_shows_its_score_and_the_row_that_was_scored(told: Runtime) -> None:
    head = told.store.head("predictions")
    assert head is not None
    row = told.store.scan(head, [NIGHT]).collect().row(3, named=True)
    key = row["flight_id"]
    found = told.trace(f"flights/predictions/{NIGHT}#{key}")
    assert found.root.kind == "row"
    assert found.root.facts["score"] == row["score"]
    (scored_from,) = [link for link in found.root.links if link.kind == "row"]
    assert scored_from.facts["flight_id"] == key
    assert "distance" in scored_from.facts
    assert ids(found, "model") == {told.model().id}
    assert parts(found, "rows").keys() >= {NIGHT}
    with pytest.raises(NotFoundError, match="flight_id of one row, such as"):
        told.trace(f"flights/predictions/{NIGHT}#nothing")


def test_a_key_of_several_columns_is_joined(told: Runtime) -> None:
    head = told.store.head("weather")
    assert head is not None
    row = told.store.scan(head, [NIGHT]).select("origin", pl.col("observed_at").cast(pl.String)).collect().row(0)
    found = told.trace(f"flights/weather/{NIGHT}#{'|'.join(row)}")
    assert found.root.facts["origin"] == row[0]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("flights/predictions/2099-01-01", "<use case>/<table>/<partition>"),
        ("flights/nothing/2013-01-17", "predictions"),
        ("flights@99", "versions 1"),
        ("flights@previous", "versions 1"),
        ("delta:flights/rows@9999", None),
        ("nobody-ran-this", "a DAG run's id"),
        ("arrival_delay@1", "<use case>@<version>"),
        ("../../etc/passwd", "<use case>/<table>/<partition>"),
        ("flights/rows/..", "a snapshot's id"),
        ("flights/rows/2013-01-17/x", "a snapshot's id"),
        ("flights@0", "delta:flights/rows@12"),
        ("", "a DAG run's id"),
    ],
)
def test_a_name_of_nothing_is_not_found_and_the_forms_are_named(told: Runtime, name: str, allowed: str | None) -> None:
    with pytest.raises(NotFoundError) as caught:
        told.trace(name)
    assert allowed is None or allowed in str(caught.value)


def test_a_quarantined_partition_says_why_and_from_which_file(runtime: Runtime) -> None:
    night = NIGHTS[1]
    path = runtime.settings.landing_zone / f"flights/date={night}/flights.csv.gz"
    path.write_bytes(b"not gzip")
    runtime.land("rows", [night])
    found = runtime.trace(f"flights/rows/{night}")
    assert found.root.facts["state"] == "never published"
    (why,) = found.root.links
    assert (why.how, why.facts["failed"]) == ("set aside by", ["readable"])
    assert files(found) == {landed(runtime, "rows", night)}


def test_predictions_are_replayed_byte_for_byte_after_their_input_was_restated_and_after_a_revert(
    runtime: Runtime,
) -> None:
    ingest(runtime, list(NIGHTS[1:]))
    score(runtime, list(NIGHTS[1:]))  # a range is scored in one go, a replay is not
    for night in NIGHTS:
        done = runtime.replay(night)
        assert (done.outcome, done.differences) == ("identical", ())
        assert done.replayed == published(runtime, "predictions")[night]
    night = NIGHTS[1]
    first = runtime.store.head("predictions")
    assert first is not None
    path = runtime.settings.landing_zone / f"flights/date={night}/flights.csv.gz"
    rows = pl.read_csv(path, infer_schema=False)
    path.write_bytes(_gzip(rows.head(rows.height - 5)))
    ingest(runtime, [night])
    assert runtime.replay(night).outcome == "identical", "from the recorded snapshot, not from the newest"
    assert score(runtime, [night]) == ("published",)
    assert runtime.replay(night).outcome == "identical"
    found = runtime.trace(f"flights/predictions/{night}")
    assert found.root.facts["rows"] == rows.height - 5
    assert [(link.facts["digest"], link.facts["state"]) for link in found.root.links if link.how == "before that"] == [
        (runtime.store.partitions(first)[night].digest, "superseded")
    ]
    (sent_first,) = [link for link in runtime.trace(f"flights/rows/{night}").root.links if link.how == "before that"]
    assert [link.facts["digest"] for link in leaves(sent_first) if link.how == "read by"] == [
        runtime.store.partitions(first)[night].digest
    ]
    runtime.revert("predictions", first.version, "the restated file was wrong")
    assert runtime.replay(night).outcome == "identical"
    assert runtime.trace(f"flights/predictions/{night}").root.facts["rows"] == rows.height
    assert score(runtime, [night]) == ("published",), "the rows are still the restated ones"


def test_a_replay_by_other_code_or_spec_says_what_differs(
    trained_case: Case, trained_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_home, tmp_path / "var")
    runtime = runtime_of(trained_case, tmp_path / "var")
    spec = runtime.spec.model_copy(update={"features": runtime.spec.features.model_copy(update={"lead_minutes": 600})})
    run = runtime.run.model_copy(update={"code_version": "other"})
    done = Runtime(spec, runtime.settings, run).replay(NIGHT)
    assert done.outcome == "different"
    assert done.replayed not in (None, done.published)
    assert done.max_score_difference is not None
    assert done.max_score_difference > 0
    assert any("differ, by at most" in each for each in done.differences)
    assert any("the spec changed since" in each for each in done.differences)
    assert "the code changed since: test then, other now" in done.differences


def test_the_command_line_traces_and_replays(trained_case: Case, told: Runtime) -> None:
    home = told.settings.home
    name = f"flights/predictions/{NIGHT}"
    said = command_line(trained_case, home, "trace", name)
    assert said.exit_code == 0
    assert f"read partition flights/rows/{NIGHT}" in said.output
    assert "scored by model flights@1" in said.output
    assert "(--all prints them)" in said.output
    printed = Trace.model_validate(json.loads(command_line(trained_case, home, "trace", name, "--json").stdout))
    assert printed == told.trace(name)
    run = command_line(trained_case, home, "trace", "night", "--json")
    assert json.loads(run.stdout)["root"]["kind"] == "run"
    replayed = command_line(trained_case, home, "replay", name)
    assert (replayed.exit_code, "identical" in replayed.output) == (0, True)
    for wrong, code in (("nobody-ran-this", 1), ("nothing/rows/2013-01-17", 1), ("../x", 1)):
        done = command_line(trained_case, home, "trace", wrong)
        assert done.exit_code == code
        assert "NotFoundError" in done.output
        assert "<use case>/<table>/<partition>" in done.output
    assert command_line(trained_case, home, "replay", f"flights/rows/{NIGHT}").exit_code == 2
    assert command_line(trained_case, home, "replay", "flights/predictions/2099-01-01").exit_code == 1


def _gzip(rows: pl.DataFrame) -> bytes:
    from gzip import compress

    return compress(rows.write_csv().encode(), mtime=0)

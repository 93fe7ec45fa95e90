"""The endpoint, asked over HTTP as Prometheus does, and a collector that is pushed to."""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from pipelines.errors import SpecError, UnavailableError
from pipelines.records import ColumnDrift
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.telemetry.catalogue import METRICS
from pipelines.telemetry.exporter import Exporter
from pipelines.telemetry.look import look
from pipelines.telemetry.readings import Look
from tests.cases.champions import NAME
from tests.scrapes import parsed, scrape, values
from tests.unit.telemetry.collector import collecting
from tests.unit.telemetry.conftest import AS_OF
from tests.unit.telemetry.serving import PATIENCE, fresh, serving, success, wait


def test_what_prometheus_is_answered_is_what_the_runtime_observes(watched: Runtime) -> None:
    with serving((NAME,), lambda _: fresh(watched)) as url:
        wait(lambda: success(url) == {NAME: 1})
        series = parsed(scrape(url))
    seen = watched.observe(AS_OF)
    newest = {"use_case": NAME, "kind": "input", "scope": "partition"}
    assert values(series, "overnight_drift_psi", by="column", where=newest) == pytest.approx(
        {each.column: each.psi for each in seen.window[-1].drift}, rel=0, abs=0
    )
    pooled = {"use_case": NAME, "kind": "input", "scope": "window"}
    assert values(series, "overnight_drift_psi", by="column", where=pooled) == {
        each.column: each.psi for each in seen.pooled
    }
    assert seen.live is not None
    assert values(series, "overnight_quality_measured_low", by="scope", where={"metric": "auc"})["window"] == (
        seen.live.low
    )
    assert values(series, "overnight_decided_share", by="decision") == seen.window[-1].decisions
    assert values(series, "overnight_champion_version", by="use_case") == {NAME: 1}
    assert 0 <= values(series, "overnight_read_age_seconds", by="use_case")[NAME] < PATIENCE
    names = {name for name, _ in series if name != "target_info"}
    assert names <= {metric.prometheus for metric in METRICS.values()}, "names are as the catalogue says"
    for metric in METRICS.values():
        found = [dict(labels) for name, labels in series if name == metric.prometheus]
        assert all(set(labels) == {"use_case", *metric.attributes} for labels in found), metric.name


def test_series_that_are_gone_vanish_from_the_answer(watched: Runtime) -> None:
    found = fresh(watched)
    assert found.evidence is not None
    without = found.evidence.model_copy(
        update={
            "window": tuple(
                each.model_copy(update={"drift": tuple(one for one in each.drift if one.column != "wear")})
                for each in found.evidence.window
            ),
            "pooled": tuple(one for one in found.evidence.pooled if one.column != "wear"),
        }
    )
    shown = [found]
    with serving((NAME,), lambda _: shown[-1]) as url:

        def columns() -> set[str]:
            where = {"kind": "input", "scope": "partition"}
            return set(values(parsed(scrape(url)), "overnight_drift_psi", by="column", where=where))

        wait(lambda: columns() == {"pressure", "wear", "site"})
        shown.append(dataclasses.replace(found, evidence=without))
        wait(lambda: columns() == {"pressure", "site"})
        assert "wear" not in scrape(url)


def test_a_store_that_stops_answering_is_told_and_its_last_figures_stay_and_other_use_cases_go_on(
    watched: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = Path(watched.settings.snapshots)
    away = snapshots.with_name("unmounted")
    other = fresh(watched)
    looks: list[float] = []

    def looking(name: str) -> Look:
        if name == "other":
            looks.append(time.monotonic())
            return dataclasses.replace(other, use_case="other")
        return fresh(watched)

    with serving((NAME, "other"), looking) as url, caplog.at_level(logging.WARNING):
        wait(lambda: success(url) == {NAME: 1, "other": 1})
        before = parsed(scrape(url))
        snapshots.rename(away)
        try:
            wait(lambda: success(url) == {NAME: 0, "other": 1})
            seen, since = len(looks), values(parsed(scrape(url)), "overnight_read_age_seconds", by="use_case")[NAME]
            wait(lambda: len(looks) > seen + 2)
            held = parsed(scrape(url))
        finally:
            away.rename(snapshots)
        changing = {"overnight_read_success", "overnight_read_age_seconds"}
        assert {key: value for key, value in held.items() if key[0] not in changing} == {
            key: value for key, value in before.items() if key[0] not in changing
        }
        age = values(held, "overnight_read_age_seconds", by="use_case")
        assert age[NAME] > since
        assert age["other"] < age[NAME]
        wait(lambda: success(url) == {NAME: 1, "other": 1})
    assert "the promotion log has 0 entries and had 1" in caplog.text


def test_a_registry_that_does_not_answer_is_told_from_the_start(watched: Runtime) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        settings = watched.settings
        told = Settings(project=settings.project, home=settings.home, code_version="test", mlflow_uri=dead)
        exporter = Exporter([NAME], lambda _: look(Runtime(watched.spec, told, watched.run)))
        assert not exporter.read(NAME)
        page = parsed(exporter.page())
        exporter.stop()
    assert values(page, "overnight_read_success", by="use_case") == {NAME: 0}
    assert {name for name, _ in page} == {"overnight_read_success", "overnight_read_age_seconds", "target_info"}


def test_what_an_unknown_error_says_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def looking(_: str) -> Look:
        raise ValueError("postgresql://user:word@host/name")

    exporter = Exporter(["any"], looking)
    with caplog.at_level(logging.WARNING):
        assert not exporter.read("any")
    exporter.stop()
    assert "ValueError" in caplog.text
    assert "word@host" not in caplog.text


def test_a_reading_that_hangs_holds_up_no_other(watched: Runtime) -> None:
    found, go = fresh(watched), threading.Event()
    begun = {"quick": 0, "hangs": 0}

    def looking(name: str) -> Look:
        begun[name] += 1
        if name == "hangs" and begun[name] > 1:
            go.wait(PATIENCE)
        return dataclasses.replace(found, use_case=name)

    with serving(("hangs", "quick"), looking) as url:
        wait(lambda: begun["hangs"] == 2)
        now = begun["quick"]
        wait(lambda: begun["quick"] > now + 3)
        age = values(parsed(scrape(url)), "overnight_read_age_seconds", by="use_case")
        assert age["hangs"] > age["quick"]
        go.set()


def test_more_series_than_the_library_keeps_by_itself_are_all_there(watched: Runtime) -> None:
    found = fresh(watched)
    assert found.evidence is not None
    many = tuple(ColumnDrift(column=f"c{n}", psi=n / 1000, null_share=0.0) for n in range(2500))
    wide = dataclasses.replace(found, evidence=found.evidence.model_copy(update={"pooled": many}))
    exporter = Exporter([NAME], lambda _: wide)
    assert exporter.read(NAME)
    page = parsed(exporter.page())
    exporter.stop()
    shown = values(page, "overnight_drift_psi", by="column", where={"scope": "window", "kind": "input"})
    assert shown == {each.column: each.psi for each in many}


def test_a_collector_is_pushed_the_same_figures(watched: Runtime) -> None:
    with collecting() as collector:
        exporter = Exporter([NAME], lambda _: fresh(watched), every=3600, otlp=collector.url)
        assert exporter.read(NAME)
        exporter.stop()  # what is owed is pushed
    assert {path for path, _ in collector.requests} == {"/v1/metrics"}
    sent = {metric.name: metric for service, metric in collector.metrics() if service == "overnight"}
    (psi,) = [
        point.as_double
        for point in sent["overnight.drift.psi"].gauge.data_points
        if {(each.key, each.value.string_value) for each in point.attributes}
        == {("use_case", NAME), ("kind", "input"), ("scope", "partition"), ("column", "pressure")}
    ]
    (drift,) = [each.psi for each in watched.observe(AS_OF).window[-1].drift if each.column == "pressure"]
    assert psi == drift
    assert sent["overnight.read.age"].unit == "s"
    with pytest.raises(SpecError, match="no address of a collector"):
        Exporter([NAME], lambda _: fresh(watched), otlp="collector:4317")


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port} cannot be listened on .*--listen"):
            Exporter([], lambda _: pytest.fail("nothing is read")).start("127.0.0.1", port)

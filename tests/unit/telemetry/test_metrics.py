"""What is watched, as Prometheus sees it: the numbers of the decision log, and none that has gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipelines.errors import UnavailableError
from pipelines.runtime import Runtime
from pipelines.telemetry.exporter import Exporter, read, serve
from pipelines.telemetry.readings import METRICS, Reading
from tests.cases import REPOSITORY
from tests.cases.champions import DAYS, NAME, Champions
from tests.unit.steps.test_watching import champion

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_DASHBOARDS = REPOSITORY / "include" / "dashboards"


def scraped(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    with _DIRECT.open(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(name: str) -> str:
    """How Prometheus calls a metric."""
    return name.replace(".", "_") + ("_seconds" if METRICS[name][0] == "s" else "")


@pytest.fixture
def watched(registered: Champions, tmp_path: Path) -> Runtime:
    """A champion whose last night was looked at and decided on."""
    made = champion(registered, tmp_path, drift={"min_rows": 100, "window": 3}, features={"slices": ["site"]})
    seen = made.observe(DAYS[11])
    made.alert(seen, made.decide(seen))
    return made


@pytest.fixture
def served(watched: Runtime) -> Iterator[tuple[Exporter, str]]:
    exporter = Exporter({NAME: lambda: watched}, every=600)
    exporter.refresh()
    found: list[int] = []
    ready = threading.Event()

    def told(port: int) -> None:
        found.append(port)
        ready.set()

    thread = threading.Thread(target=serve, args=(exporter, "127.0.0.1", 0, None, told), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield exporter, f"http://127.0.0.1:{found[0]}/metrics"
    exporter.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_prometheus_sees_the_numbers_of_the_newest_decision(watched: Runtime, served: tuple[Exporter, str]) -> None:
    samples = scraped(served[1])

    def of(name: str, **about: str) -> float:
        return samples[(shown(f"overnight.{name}"), frozenset({"use_case": NAME, **about}.items()))]

    (decision,) = watched.decisions()
    seen = watched.observe(DAYS[11])
    assert {name for name, _ in samples} <= set(map(shown, METRICS))
    for drift in seen.window[-1].drift:
        about = {"column": drift.column, "kind": "feature", "scope": "newest"}
        assert of("drift.psi", **about) == drift.psi
        assert of("drift.alarm_at", **about) == drift.alarm_at
    assert seen.live is not None
    for end in ("value", "low", "high"):
        assert of("quality.measured", metric="auc", end=end) == getattr(seen.live, end)
    assert of("quality.champion", metric="auc") == seen.champion_metric
    assert of("labels.matured") == seen.live_labels
    for part in seen.slices:
        assert of("slice.labels", column=part.column, value=part.value) == part.labels
    for one in decision.signals:
        assert of("signal.level", signal=str(one.name)) == ["unknown", "calm", "warning", "alarm"].index(one.level)
    assert of("retrain.decided") == decision.retrain
    assert of("champion.version") == 1
    assert of("nights", state="ingested") == len(DAYS)
    assert of("alerts.open", kind="late") == 0
    assert of("read.success") == 1


def test_a_column_that_is_gone_is_gone_and_a_reading_that_fails_keeps_the_older_numbers(
    watched: Runtime, served: tuple[Exporter, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, url = served
    exporter._readings[NAME].append(Reading(name="overnight.skew.rows", value=3, attributes={"column": "old"}))
    gone = (shown("overnight.skew.rows"), frozenset({("use_case", NAME), ("column", "old")}))
    assert scraped(url)[gone] == 3
    exporter.refresh()
    assert gone not in scraped(url)

    def broken(*_: Any) -> None:
        raise UnavailableError("the store does not answer")

    before = scraped(url)
    monkeypatch.setattr(type(watched), "promotions", broken)
    assert not exporter.refresh()
    after = scraped(url)
    bad = {key[0] for key in before if before[key] != after[key]}
    assert bad <= {"overnight_read_success", "overnight_read_duration_seconds"}
    assert after[("overnight_read_success", frozenset({("use_case", NAME)}))] == 0


def test_a_use_case_that_has_not_begun_is_read_too(registered: Champions, tmp_path: Path) -> None:
    names = {each.name for each in read(registered.copy(tmp_path).runtime())}
    assert names == {"overnight.alerts.open"}


def test_every_metric_is_on_the_dashboard_and_what_boards_and_rules_ask_for_is_there() -> None:
    board = (_DASHBOARDS / "overnight.json").read_text()
    rules = (_DASHBOARDS / "alerts.yaml").read_text()
    there = set(map(shown, METRICS))
    expressions = [target["expr"] for panel in json.loads(board)["panels"] for target in panel.get("targets", [])]
    expressions += [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    asked = set(re.findall(r"overnight_[a-z_]+", " ".join(expressions)))
    assert asked - there == set(), "asked for, and nobody shows it"
    assert there - set(re.findall(r"overnight_[a-z_]+", board)) == set(), "shown, and on no panel"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH: it comes with Prometheus")
def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    about = '{use_case="flights"}'
    series = [
        {"series": f"overnight_read_success{about}", "values": "0x60"},
        {"series": f"overnight_retrain_escalated{about}", "values": "1x60"},
        {"series": f"overnight_scored_time_seconds{about}", "values": "0x6000"},
        {"series": 'overnight_signal_level{use_case="flights", signal="decay"}', "values": "3x60"},
        {"series": 'overnight_signal_level{use_case="flights", signal="inputs"}', "values": "2x60"},
    ]

    def fires(name: str, at: str, *labels: dict[str, str]) -> dict[str, Any]:
        return {"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": each} for each in labels]}

    flights = {"use_case": "flights"}
    rules = tmp_path / "rules.yaml"
    bare = yaml.safe_load((_DASHBOARDS / "alerts.yaml").read_text())
    for rule in bare["groups"][0]["rules"]:
        assert set(rule["annotations"]) == {"summary", "description"}
        rule["annotations"] = {}
    rules.write_text(yaml.safe_dump(bare))
    case = {
        "rule_files": [str(rules)],
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [
                    fires("OvernightCannotBeRead", "5m"),
                    fires("OvernightCannotBeRead", "15m", {**flights, "severity": "warning"}),
                    fires("OvernightPersonHasToLook", "5m", {**flights, "severity": "critical"}),
                    fires("OvernightScoresAreOld", "59h"),
                    fires("OvernightScoresAreOld", "61h", {**flights, "severity": "critical"}),
                    fires("OvernightSignalInAlarm", "5m", {**flights, "signal": "decay", "severity": "warning"}),
                    fires("OvernightExporterIsGone", "5m"),
                ],
            }
        ],
    }
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(case))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class _Otlp(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_the_command_shows_and_sends_and_ends_on_a_signal(watched: Runtime) -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    with ThreadingHTTPServer(("127.0.0.1", 0), _Otlp) as collector:
        collector.got = []  # type: ignore[attr-defined]
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        told = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "OVERNIGHT_PROJECT": str(watched.settings.project),
            "OVERNIGHT_HOME": str(watched.settings.home),
        }
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", "metrics", NAME]
        command += ["--listen", "127.0.0.1:0", "--otlp", f"http://127.0.0.1:{collector.server_address[1]}/v1/metrics"]
        with subprocess.Popen(command, cwd=REPOSITORY, env=told, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert scraped(url)[("overnight_read_success", frozenset({("use_case", NAME)}))] == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        collector.shutdown()
        sent = ExportMetricsServiceRequest.FromString(collector.got[-1])  # type: ignore[attr-defined]
    names = {metric.name for each in sent.resource_metrics for scope in each.scope_metrics for metric in scope.metrics}
    assert "overnight.drift.psi" in names


def test_a_port_that_is_taken_and_an_address_that_is_none_are_told(watched: Runtime) -> None:
    from click.testing import CliRunner

    from pipelines.cli import main

    settings = watched.settings
    env = {"OVERNIGHT_PROJECT": str(settings.project), "OVERNIGHT_HOME": str(settings.home)}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = CliRunner(env=env).invoke(main, ["metrics", NAME, "--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert (done.exit_code, "choose another --listen" in done.output) == (1, True)
    done = CliRunner(env=env).invoke(main, ["metrics", NAME, "--listen", "nowhere"])
    assert (done.exit_code, "give HOST:PORT" in done.output) == (2, True)
    done = CliRunner(env=env).invoke(main, ["metrics", "nothing", "--listen", "127.0.0.1:0"])
    assert done.exit_code == 1

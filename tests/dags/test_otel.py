"""Airflow's own metrics go where docker-compose.yaml sends them: its variables, a real process of Airflow."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cases import REPOSITORY
from tests.unit.production import fresh_environment, load


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_airflow_sends_its_metrics_by_the_variables_of_the_compose_file(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    compose = load(fresh_environment())
    told = compose["services"]["scheduler"]["environment"]
    chosen = {name: value for name, value in told.items() if name.startswith(("OTEL_", "AIRFLOW__METRICS__"))}
    endpoint = urlsplit(chosen["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"])
    (tmp_path / "dags").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as sink:
        sink.got = []  # type: ignore[attr-defined]
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        env = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **chosen,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{sink.server_address[1]}{endpoint.path}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        }
        for command in (["db", "migrate"], ["dag-processor", "--num-runs", "1"]):
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *command],
                cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
        sink.shutdown()
        got = [(path, ExportMetricsServiceRequest.FromString(body)) for path, body in sink.got]  # type: ignore[attr-defined]
    names, services = set(), set()
    for path, request in got:
        assert path == endpoint.path
        for each in request.resource_metrics:
            services |= {one.value.string_value for one in each.resource.attributes if one.key == "service.name"}
            names |= {metric.name for scope in each.scope_metrics for metric in scope.metrics}
    assert services == {"airflow"}
    assert {"airflow.job_end", "airflow.dag_processing.file_path_queue_size"} <= names

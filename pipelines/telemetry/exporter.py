"""Shows readings to Prometheus, and sends them to an OTLP endpoint where one is given.

Tasks of a night live for seconds, and a scrape would miss them. So nothing is pushed from a task: this process reads
what they published, again and again, and shows the newest. It may be stopped and started at any time.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pipelines import __version__, partitions
from pipelines.errors import NotFoundError, OvernightError, UnavailableError, explain
from pipelines.spec import AlertKind
from pipelines.telemetry.readings import (
    METRICS,
    Reading,
    of_alerts,
    of_decisions,
    of_nights,
    of_promotions,
    of_reading,
)

if TYPE_CHECKING:
    from pipelines.runtime import Runtime

_log = logging.getLogger("overnight.metrics")
#: Nights whose state is looked at.
_NIGHTS = 62


def read(runtime: Runtime) -> list[Reading]:
    """Everything that there is to tell of a use case now.

    Raises:
        UnavailableError: store or registry did not answer.
    """
    from pipelines.steps.decisions import entries

    step = runtime.spec.granularity
    log = [(entry.decision, entry.evidence) for entry in entries(runtime.store) if not entry.decision.backfill]
    found = of_decisions(log, step)
    found += of_promotions(runtime.promotions())
    try:
        newest = runtime.newest_prediction()
    except NotFoundError:  # a use case that has not begun
        newest = None
    if newest is not None:
        first = partitions.shift(newest, 1 - _NIGHTS, step)
        found += of_nights(runtime.nights(runtime.span(first, partitions.shift(newest, 2, step))), step)
    return found + of_alerts(runtime.alerts.open(), get_args(AlertKind))


class Exporter:
    """The newest readings of some use cases, behind observable gauges."""

    def __init__(self, open_: Mapping[str, Callable[[], Runtime]], every: float) -> None:
        """Reads nothing yet.

        Args:
            open_: by use case, what opens it; called at each reading, so that an edited spec is seen.
            every: seconds between two readings.
        """
        self._open, self.every = open_, every
        self._readings: dict[str, list[Reading]] = {name: [] for name in open_}
        self._stopped = threading.Event()

    def refresh(self) -> bool:
        """Reads every use case once; one that fails keeps its older numbers. Gives whether all succeeded."""
        good = [self._refresh(name) for name in self._open]
        return all(good)

    def _refresh(self, name: str) -> bool:
        begun = time.perf_counter()
        kept = [each for each in self._readings[name] if not each.name.startswith("overnight.read.")]
        good = True
        try:
            kept = read(self._open[name]())
        except (OvernightError, OSError) as error:
            good = False
            _log.warning("%s: could not be read: %s", name, error)
        self._readings[name] = [*kept, *of_reading(time.perf_counter() - begun, good=good)]
        return good

    def newest(self, metric: str) -> list[tuple[float, dict[str, str]]]:
        """Values and attributes of a metric; a number that is none (a PSI of nothing) is left out."""
        return [
            (each.value, {"use_case": name, **each.attributes})
            for name, readings in self._readings.items()
            for each in readings
            if each.name == metric and math.isfinite(each.value)
        ]

    def run(self) -> None:
        """Reads until `stop`."""
        while not self._stopped.wait(self.every):
            self.refresh()

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped.set()


def provider(exporter: Exporter, readers: Sequence[Any]) -> Any:
    """A meter provider that asks the exporter; `readers` are OpenTelemetry's.

    Returns:
        opentelemetry.sdk.metrics.MeterProvider, which is not made the process's own.
    """
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    def callback(metric: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(value, about) for value, about in exporter.newest(metric)]

    made = MeterProvider(
        metric_readers=readers,
        resource=Resource.create({"service.name": "overnight", "service.version": __version__}),
        shutdown_on_exit=False,
    )
    meter = made.get_meter("overnight", __version__)
    for name, (unit, told) in METRICS.items():
        meter.create_observable_gauge(name, callbacks=[callback(name)], unit=unit, description=told)
    return made


def serve(exporter: Exporter, host: str, port: int, otlp: str | None, ready: Callable[[int], None]) -> None:
    """Shows the readings at http://host:port/metrics until `Exporter.stop`.

    Args:
        port: 0 takes any that is free.
        otlp: URL of an OTLP/HTTP endpoint for metrics, such as http://127.0.0.1:4318/v1/metrics.
        ready: told the port, when it is served.

    Raises:
        UnavailableError: the port is taken.
    """
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    readers: list[Any] = [PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)]
    if otlp is not None:
        readers.append(_sender(otlp, exporter))
    made = provider(exporter, readers)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        made.shutdown()
        where = f"metrics: {host}:{port}"
        raise UnavailableError(explain(where, str(error), remedy="choose another --listen")) from error
    try:
        ready(server.server_port)
        exporter.run()
    finally:
        server.shutdown()
        server.server_close()
        made.shutdown()


def _sender(url: str, exporter: Exporter) -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=url, timeout=10), export_interval_millis=exporter.every * 1000
    )

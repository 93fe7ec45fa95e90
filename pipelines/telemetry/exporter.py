"""Shows the newest readings: a Prometheus endpoint, and on request an OTLP/HTTP collector.

Each use case is read in a thread of its own, so that one whose store does not answer holds up no other. What a reading
no longer has is no longer shown; while reading fails, the last values stay, and `overnight.read.success` says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import __version__
from pipelines.errors import OvernightError, SpecError, UnavailableError, explain
from pipelines.telemetry import catalogue
from pipelines.telemetry.readings import Look, Reading, readings

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

_log = logging.getLogger(__name__)

#: Series of one metric. The SDK's own limit, 2000, is fifty columns of twenty use cases, and folds the rest into one.
_MOST_SERIES = 1_000_000
#: Seconds that the first reading of a use case waits for that of another: their imports are not to meet.
_IMPORTS = 60.0
#: Seconds that a reading may go on after the exporter was stopped.
_STOP = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What is known of one use case."""

    readings: tuple[Reading, ...] = ()
    success: bool = False
    since: float
    """When that was read, or begun to be (monotonic, seconds)."""
    promotions: int = 0
    """Entries of the promotion log at that time."""


class Exporter:
    """Reads use cases again and again, and answers whoever collects."""

    def __init__(
        self,
        use_cases: Sequence[str],
        look: Callable[[str], Look],
        *,
        every: float = 30.0,
        otlp: str | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            use_cases: their names.
            look: looks at a use case by name; called in several threads at once. What it raises is a failed reading.
            every: seconds between two readings, and between two pushes.
            otlp: URL to which metrics are pushed by OTLP over HTTP, such as http://127.0.0.1:4318/v1/metrics.

        Raises:
            SpecError: `otlp` is no URL of HTTP.
        """
        from opentelemetry.sdk.metrics import MeterProvider, ObservableGauge
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from prometheus_client import CollectorRegistry

        self._look = look
        self._every = every
        self._states = {name: _State(since=time.monotonic()) for name in use_cases}
        self._stopping = threading.Event()
        self._importing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._server: Any = None
        self._registry = CollectorRegistry()
        limits = {ObservableGauge: _MOST_SERIES}
        self._provider = MeterProvider(
            metric_readers=self._readers(otlp, limits),
            resource=Resource.create({SERVICE_NAME: "overnight", SERVICE_VERSION: __version__}),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter("overnight", __version__)
        for metric in catalogue.METRICS.values():
            meter.create_observable_gauge(
                metric.name, [self._callback(metric.name)], unit=metric.unit, description=metric.description
            )

    def _readers(self, otlp: str | None, limits: Any) -> list[Any]:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader

        # No labels of the library that made the figures: all series are this program's.
        scrape = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry, cardinality_limits=limits)
        if otlp is None:
            return [scrape]
        if not otlp.startswith(("http://", "https://")):
            allowed = "http://host:port/v1/metrics, or https"
            raise SpecError(explain("metrics", f"--otlp {otlp!r} is no address of a collector", allowed=allowed))
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        push = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=otlp), export_interval_millis=self._every * 1000, cardinality_limits=limits
        )
        return [scrape, push]

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        def observed(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(each.value, each.attributes) for each in self.readings(name)]

        return observed

    @property
    def use_cases(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._states)

    # -- what is shown -------------------------------------------------------------------------------------------------

    def readings(self, name: str | None = None) -> list[Reading]:
        """What is shown at this moment, of one metric or of all."""
        found: list[Reading] = []
        for use_case, state in self._states.items():
            own = (
                (catalogue.READ_SUCCESS, float(state.success)),
                (catalogue.READ_AGE, time.monotonic() - state.since),
            )
            found += [
                Reading(
                    name=metric.name,
                    unit=metric.unit,
                    description=metric.description,
                    value=value,
                    attributes={"use_case": use_case},
                )
                for metric, value in own
            ]
            found += state.readings
        return [each for each in found if name is None or each.name == name]

    def page(self) -> str:
        """What the Prometheus endpoint answers, in the text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry).decode()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, use_case: str) -> bool:
        """Reads a use case once; gives whether that succeeded."""
        former = self._states[use_case]
        try:
            found = self._look(use_case)
            if len(found.promotions) < former.promotions:
                # The log is append-only. A disk that is not mounted looks like a store that holds nothing.
                what = f"the promotion log has {len(found.promotions)} entries and had {former.promotions}"
                raise UnavailableError(explain(use_case, what, remedy="look whether the store is the same as before"))
            fresh = _State(
                readings=readings(found), success=True, since=time.monotonic(), promotions=len(found.promotions)
            )
        except Exception as error:  # nothing that one use case raises may end the others
            self._states[use_case] = _State(readings=former.readings, since=former.since, promotions=former.promotions)
            # An unknown error's text may hold an address with a password in it.
            told = str(error) if isinstance(error, OvernightError) else type(error).__name__
            _log.warning("%s was not read, its last figures stay: %s", use_case, told)
            _log.debug("the error", exc_info=True)
            return False
        self._states[use_case] = fresh
        return True

    def _keep_reading(self, use_case: str) -> None:
        held = self._importing.acquire(timeout=_IMPORTS)
        try:
            self.read(use_case)
        finally:
            if held:
                self._importing.release()
        while not self._stopping.wait(self._every):
            self.read(use_case)

    # -- serving -------------------------------------------------------------------------------------------------------

    def start(self, host: str, port: int) -> str:
        """Listens, and begins to read; gives the URL.

        Args:
            port: 0 takes one that is free.

        Raises:
            UnavailableError: the address cannot be had.
        """
        from prometheus_client import start_http_server

        try:
            self._server, _ = start_http_server(port, host, registry=self._registry)
        except OSError as error:
            self._provider.shutdown()
            what = f"{host}:{port} cannot be listened on ({error.strerror or error})"
            remedy = "end what listens there, or give another address with --listen"
            raise UnavailableError(explain("metrics", what, remedy=remedy)) from None
        for use_case in self._states:
            thread = threading.Thread(target=self._keep_reading, args=(use_case,), name=use_case, daemon=True)
            thread.start()
            self._threads.append(thread)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._server.server_port}/metrics"

    def stop(self) -> None:
        """Ends: what is being read may finish within seconds, what a collector is owed is pushed."""
        self._stopping.set()
        until = time.monotonic() + _STOP
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._provider.shutdown()

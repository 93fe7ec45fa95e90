"""`overnight metrics`: what is watched, for Prometheus and OpenTelemetry."""

from __future__ import annotations

import signal
from functools import partial

import click

from pipelines.runtime import Runtime
from pipelines.settings import Settings


@click.command()
@click.argument("use_cases", nargs=-1)
@click.option("--listen", default="127.0.0.1:9464", show_default=True, help="HOST:PORT of /metrics; port 0: any.")
@click.option("--every", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds between readings.")
@click.option("--otlp", metavar="URL", help="Also send them here, such as http://127.0.0.1:4318/v1/metrics.")
def metrics(use_cases: tuple[str, ...], listen: str, every: float, otlp: str | None) -> None:
    """Show what is watched of the USE_CASES, all by default, to Prometheus, until stopped.

    It reads what the nights published and writes nothing: stop and start it at any time.
    """
    from pipelines.telemetry.exporter import Exporter, serve

    host, _, number = listen.rpartition(":")
    if not host or not number.isdigit() or int(number) > 65535:
        raise click.UsageError(f"--listen {listen!r}: give HOST:PORT, such as 127.0.0.1:9464")
    names = use_cases or tuple(sorted(path.stem for path in Settings().spec_path("x").parent.glob("*.yaml")))
    for name in use_cases:
        Runtime.open(name)  # a wrong name is told now
    exporter = Exporter({name: partial(Runtime.open, name) for name in names}, every)
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: exporter.stop())
    exporter.refresh()
    serve(exporter, host, int(number), otlp, lambda port: click.echo(f"http://{host}:{port}/metrics"))


COMMANDS: tuple[click.Command, ...] = (metrics,)

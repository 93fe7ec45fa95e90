"""`overnight metrics`: what is watched, for Prometheus and OTLP collectors."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from pipelines.errors import NotFoundError, explain
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.telemetry.readings import Look


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an IPv6 address is in brackets."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Both parts; anything else is misuse."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9464", param, ctx)
        return host, int(port)


@click.command()
@click.argument("use_cases", nargs=-1, metavar="[USE_CASE]...")
@click.option("--listen", type=Address(), default="127.0.0.1:9464", show_default=True, help="Where Prometheus asks.")
@click.option("--every", type=click.FloatRange(min=1), default=30, show_default=True, help="Seconds between readings.")
@click.option("--otlp", metavar="URL", help="Push to a collector too, such as http://127.0.0.1:4318/v1/metrics.")
@click.option("--once", is_flag=True, help="Read once, print what Prometheus would be answered, and end.")
def metrics(use_cases: tuple[str, ...], listen: tuple[str, int], every: float, otlp: str | None, once: bool) -> None:
    """Serve drift, quality, health, decisions, nights and alerts as metrics, of all use cases by default.

    Reads what is published and changes nothing. Whoever reaches the port may read; it is loopback by default. Ends on
    SIGTERM or SIGINT with exit code 0.
    """
    settings = Settings()
    for name in use_cases:  # a name that is wrong now will not come right: the reading of one that is known may
        Runtime.open(name, _run(), settings)
    chosen = list(dict.fromkeys(use_cases)) or _all(settings)
    if once:
        _print_once(chosen, every, otlp)
    else:
        _serve(chosen, listen, every, otlp)


def _print_once(chosen: list[str], every: float, otlp: str | None) -> None:
    from pipelines.telemetry.exporter import Exporter

    exporter = Exporter(chosen, _look, every=every, otlp=otlp)
    done = [exporter.read(name) for name in chosen]
    click.echo(exporter.page(), nl=False)
    exporter.stop()
    if not all(done):
        raise click.exceptions.Exit(1)


def _serve(chosen: list[str], listen: tuple[str, int], every: float, otlp: str | None) -> None:
    from pipelines.telemetry.exporter import Exporter

    # Waited for, not handled: what reads the snapshots puts a handler of its own in the place of SIGINT's, and ends
    # nothing. Threads inherit what is blocked, so it comes before them.
    ends = {signal.SIGTERM, signal.SIGINT}
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        exporter = Exporter(chosen, _look, every=every, otlp=otlp)
        click.echo(f"{', '.join(chosen)}: {exporter.start(*listen)}")
        signal.sigwait(ends)
        exporter.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _run() -> RunInfo:
    # Nothing is written, so nobody asks which code did it: git is not started at each reading.
    return RunInfo(run_id="metrics")


def _look(use_case: str) -> Look:
    from pipelines.telemetry.look import look

    return look(Runtime.open(use_case, _run()))


def _all(settings: Settings) -> list[str]:
    """The names of the project's specs.

    Raises:
        NotFoundError: there is none.
    """
    folder = settings.spec_path("any").parent
    found = sorted(path.stem for path in folder.glob("*.yaml"))
    if not found:
        raise NotFoundError(explain("metrics", f"no use case in {folder}", remedy="set OVERNIGHT_PROJECT"))
    return found


COMMANDS: tuple[click.Command, ...] = (metrics,)

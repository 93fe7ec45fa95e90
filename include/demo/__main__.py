"""`python -m include.demo [--short]`: plays the story; exits 0 only if every promise held."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from include.demo.airflow_api import Airflow, ApiError
from include.demo.plan import FULL, SHORT, Plan
from include.demo.promises import Verdict, check
from include.demo.record import Record, published
from include.demo.story import USE_CASE, Story
from include.demo.summary import summarize
from include.local import servers
from pipelines.runtime import Runtime, code_version
from pipelines.settings import Settings

#: What an earlier demo left below var/; nothing else is touched.
_LEFTOVERS = ("airflow", "mlflow", "snapshots", "reports", "work", "landing", "demo", "log")


def _clear(home: Path) -> None:
    for name in _LEFTOVERS:
        shutil.rmtree(home / name, ignore_errors=True)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: the servers are on their way down
    raise KeyboardInterrupt


def _lay_out(plan: Plan, landing: Path) -> subprocess.Popen[bytes]:
    """Lays out the landing zone in a process of its own, while the servers start."""
    first, last = plan.history[0], plan.drifted[1]
    overnight = Path(sys.executable).with_name("overnight")
    command = [str(overnight), "data", USE_CASE, "--from", first, "--to", last]
    env = {**os.environ, "OVERNIGHT_LANDING": str(landing)}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=servers.PROJECT, env=env, **quiet)


class Teller:
    """Says what is going on: lines, and on a terminal one line that keeps changing."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.begun = time.monotonic()
        self._status = self.console.status("") if self.console.is_terminal else None

    def __call__(self, line: str, passing: bool = False) -> None:
        """Says one line; a passing one is not kept."""
        if not passing:
            self.console.print(f"[dim]{time.monotonic() - self.begun:5.0f} s[/dim]  {line}", soft_wrap=True)
        elif self._status:
            self._status.update(line)
            self._status.start()

    def close(self) -> None:
        """Takes the changing line away."""
        if self._status:
            self._status.stop()


def main(arguments: list[str]) -> int:
    """Plays; returns the exit code."""
    if set(arguments) - {"--short"}:
        print(__doc__, file=sys.stderr)
        return 2
    plan = SHORT if "--short" in arguments else FULL
    where = servers.places()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    tell = Teller()
    try:
        return _play(plan, where, tell)
    except KeyboardInterrupt:
        tell.close()
        tell("interrupted; everything that was started is stopped")
        return 130
    except (ApiError, servers.ServerError) as error:
        tell.close()
        tell(f"stopped: {error}")
        tell(f"logs: {where.logs}; `make up` shows what Airflow knows")
        return 1


def _play(plan: Plan, where: servers.Places, tell: Teller) -> int:
    if servers.stop(where):
        tell("stopped the servers that `make up` had started")
    _clear(where.home)
    os.environ["OVERNIGHT_HOME"] = str(where.home)
    os.environ |= servers.direct_loopback()
    landing = Settings().landing_zone
    tell(f"the {plan.name} story; everything is written below {where.home}")
    data = _lay_out(plan, landing)
    try:
        with servers.running(
            where, lambda waited: tell(f"starting Airflow and MLflow ({waited:.0f} s)", True)
        ) as state:
            begun = time.monotonic()
            tell(f"Airflow at {state.airflow_url}, MLflow at {state.mlflow_url}")
            if data.wait() != 0:
                raise ApiError(
                    f"the data could not be laid out: {(data.stderr.read() if data.stderr else b'').decode()}"
                )
            tell("a landing zone of daily files, as a source system would drop them")
            settings = Settings(project=servers.PROJECT, mlflow_uri=state.mlflow_url)
            runtime = Runtime.open(USE_CASE, settings=settings)
            airflow = Airflow(state.airflow_url, servers.USER, servers.password(where))
            story = Story(plan, airflow, landing, lambda: published(runtime), tell)
            played = story.play()
            ended = time.monotonic()
            tell("reading back what is left", True)
            record = Record(runtime, airflow, played)
            verdicts = check(plan, record)
            seconds = {"servers": begun - tell.begun, "story": ended - begun, "total": time.monotonic() - tell.begun}
            summary = summarize(
                plan,
                record,
                verdicts,
                seconds=seconds,
                warm=settings.warm,
                code_version=code_version(settings),
            )
    finally:
        tell.close()
        if data.poll() is None:
            data.kill()
            data.wait()
    out = where.home / "demo" / "summary.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary, indent=1) + "\n")
    _close(tell, summary, verdicts, out)
    return 0 if summary["ok"] else 1


def _close(tell: Teller, summary: dict[str, object], verdicts: list[Verdict], out: Path) -> None:
    console = tell.console
    promises = Table(title="Promises", show_edge=False, title_justify="left")
    for column in ("", "promise", "evidence"):
        promises.add_column(column, overflow="fold")
    for verdict in verdicts:
        promises.add_row(
            "[green]held[/green]" if verdict.held else "[red]BROKEN[/red]", verdict.promise, verdict.evidence
        )
    console.print()
    console.print(_champions(summary))
    console.print()
    console.print(promises)
    console.print()
    held = sum(verdict.held for verdict in verdicts)
    tell(f"{held} of {len(verdicts)} promises held")
    console.print(f"Summary  {out}")
    console.print("Look     `make up`, then Airflow: flights_ingest, flights_score, flights_monitor, flights_train")
    console.print(f"         and the HTML reports below {out.parents[1] / 'reports'}")


def _champions(summary: dict[str, object]) -> Table:
    table = Table(title="Trainings, on each one's own holdout", show_edge=False, title_justify="left")
    for column in ("training", "outcome", "model", "auc", "log loss", "rows/s"):
        table.add_column(column, justify="right" if column in ("auc", "log loss", "rows/s") else "left")
    trainings = summary["trainings"]
    assert isinstance(trainings, list)
    for training in trainings:
        first = True
        for model, card in training["metrics"].items():
            speed = card["rows_per_second"]
            table.add_row(
                f"as of {training['as_of']}" if first else "",
                str(training["outcome"]) if first else "",
                model,
                f"{card['auc']:.4f}",
                f"{card['log_loss']:.4f}",
                f"{speed:,.0f}" if speed else "",
            )
            first = False
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A night under the scheduler: every task of one partition's ingest and score, with warm workers and without.

From the trigger of the ingest run to the end of the score run that its asset event starts. Prediction, written before
measuring: 16 tasks whose work is about 2 s in all; warm, Airflow's own 0.2-0.3 s a task on two cores: 4-5 s. Cold, each
task imports what it needs: five times that and more.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Result
from include.demo.airflow_api import Airflow
from include.landing import flights
from include.local import servers
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings

_HISTORY, _NIGHTS = ("2013-06-01", "2013-08-10"), ("2013-08-11", "2013-08-12", "2013-08-13", "2013-08-14")
_LIMIT = 600.0


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _champion(home: Path, mlflow_url: str) -> None:
    """History and a champion, made without Airflow: nights are measured, not history."""
    settings = Settings(project=servers.PROJECT, home=home, mlflow_uri=mlflow_url, code_version="bench")
    runtime = Runtime.open("flights", run=RunInfo(run_id="bench"), settings=settings)
    for table in runtime.tables():
        runtime.publish(runtime.validate(runtime.land(table, runtime.span(*_HISTORY))))
    trained = runtime.train(runtime.build_training_set(_HISTORY[1]))
    evaluation = runtime.evaluate(trained)
    report = runtime.gate(trained, evaluation)
    model = runtime.register(trained, evaluation, report)
    runtime.promote(model, evaluation, report, "bench", _HISTORY[1])


def _night(airflow: Airflow, partition: str) -> float:
    begun = time.monotonic()
    ingest = airflow.wait(airflow.trigger("flights_ingest", partition=partition), _LIMIT, lambda _: None, pause=0.1)
    score = airflow.wait_for_run("flights_score", lambda run: run.partition == partition, 60, pause=0.1)
    assert score is not None, f"{partition}: no score run; ingest {ingest.state}"
    ended = airflow.wait(score, _LIMIT, lambda _: None, pause=0.1)
    assert (ingest.state, ended.state) == ("success", "success"), f"{ingest.state}, {ended.state}"
    return time.monotonic() - begun


def _nights(home: Path, nights: tuple[str, ...], *, warm: bool) -> list[float]:
    values = {"OVERNIGHT_HOME": str(home), "OVERNIGHT_WARM": str(int(warm)), **servers.direct_loopback()}
    with _environment(**values), servers.running(servers.places()) as state:
        if not (home / "snapshots" / "flights" / "promotions").exists():
            _champion(home, state.mlflow_url)
        airflow = Airflow(state.airflow_url, servers.USER, servers.password(servers.places()))
        airflow.wait_for_dags({"flights_ingest", "flights_score"}, _LIMIT)
        return [_night(airflow, night) for night in nights]


def measure() -> list[Result]:
    """The median night of each kind; the first one is left out, because it also starts the workers."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        flights.lay_out(home / "landing", _HISTORY[0], "2013-08-16")
        warm = sorted(_nights(home, _NIGHTS, warm=True)[1:])
        cold = sorted(_nights(home, ("2013-08-15", "2013-08-16"), warm=False)[1:])
    middle = warm[len(warm) // 2]
    return [
        Result(
            name="night_warm_vs_cold",
            ours=middle,
            peer=cold[0],
            unit="s",
            goal=5,
            note="ingest and score of one partition through the scheduler; peer: the same with OVERNIGHT_WARM=0",
        ),
        Result(
            name="night_warm_vs_six_seconds",
            ours=middle,
            peer=6.0,
            unit="s",
            goal=1,
            note="the same warm night against the target of 6 s",
        ),
    ]

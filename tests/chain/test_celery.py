"""A night on Celery: PostgreSQL, Redis and a worker with a prefork pool, all real, driven through the REST API."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.demo.airflow_api import Airflow, Run
from include.local import processes, servers
from include.local.environment import Backing, environment
from tests.cases import REPOSITORY, Case
from tests.chain.conftest import NIGHTS, state
from tests.servers.celery_backing import broker, needs_celery_backing, postgres

_SECONDS = 120.0
_POOL = 3


@dataclass(frozen=True)
class _Worker:
    pid: int
    """Of the main process, which the pool is forked from."""
    log: Path

    def pool(self) -> list[int]:
        """The processes of the prefork pool."""
        below = processes.descendants(self.pid)
        return [pid for pid in below if b"ForkPoolWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def wait_until_ready(self) -> None:
        """Waits until it takes tasks."""
        deadline = time.monotonic() + _SECONDS
        while " ready." not in self.log.read_text() or len(self.pool()) < _POOL:
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.2)


def _has_loaded(pid: int, library: str) -> bool:
    """Whether a shared library of that name is in the process's memory."""
    return library in Path(f"/proc/{pid}/maps").read_text()


@contextmanager
def _worker(where: servers.Places, env: dict[str, str], name: str) -> Iterator[_Worker]:
    """`airflow celery worker` for as long as the block runs."""
    log = where.logs / f"{name}.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow", "celery", "worker", "--concurrency", str(_POOL)),
                *("--skip-serve-logs", "--without-mingle", "--without-gossip"),
            ],
            cwd=where.home,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.die_with_parent,  # noqa: PLW1509 (short, and before any thread of the child)
        )
    try:
        yield _Worker(pid=worker.pid, log=log)
        assert worker.poll() is None, log.read_text()[-3000:]
    finally:
        below = processes.descendants(worker.pid)
        worker.terminate()
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            processes.signal_all([*below, worker.pid], signal.SIGKILL)
            worker.wait()


def _wait(airflow: Airflow, run: Run) -> Run:
    return airflow.wait(run, _SECONDS, lambda _: None, pause=0.5)


def _imported(airflow: Airflow, *runs: Run) -> dict[str, int]:
    """How many modules each task of the runs still had to import."""
    results: dict[str, Any] = {
        f"{run.dag_id}.{task}": airflow.step(run, task)
        for run in runs
        for task, state in airflow.states(run).items()
        if state != "skipped"  # no shards
    }
    return {task: result["imported"] for task, result in results.items()}


@needs_celery_backing
@pytest.mark.timeout(400)
def test_a_night_on_celery_is_warm_because_its_pool_is_forked_from_a_warm_worker(
    trained_case: Case, trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(trained_home, tmp_path / "var")
    # The DAGs of the small case: dags/ finds its project by where it lies.
    shutil.copytree(REPOSITORY / "plugins", trained_case.project / "plugins", dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "dags" / "usecase_dags", trained_case.project / "dags" / "usecase_dags")
    shutil.copy(REPOSITORY / "dags" / "flights.py", trained_case.project / "dags")
    with postgres() as database, broker() as redis_url:
        backing = Backing(database=database, broker=redis_url)
        for name, value in {
            "OVERNIGHT_PROJECT": str(trained_case.project),
            "OVERNIGHT_LANDING": str(trained_case.landing),
            "OVERNIGHT_AIRFLOW_DATABASE": database,
            "OVERNIGHT_CELERY_BROKER": redis_url,
            **servers.direct_loopback(),
        }.items():
            monkeypatch.setenv(name, value)
        where = servers.Places(home=home)
        with servers.running(where) as running:
            ports = [int(url.rpartition(":")[2]) for url in (running.airflow_url, running.mlflow_url)]
            env = environment(where, *ports, backing)
            airflow = Airflow(running.airflow_url, servers.USER, servers.password(where))
            airflow.wait_for_dags({"flights_ingest", "flights_score"}, _SECONDS)

            with _worker(where, env, "worker-warm") as worker:
                worker.wait_until_ready()
                before = [_has_loaded(pid, "onnxruntime") for pid in worker.pool()]
                assert before == [True] * _POOL, "loaded before any task ran: inherited from the main process"
                ingest = _wait(airflow, airflow.trigger("flights_ingest", partition=NIGHTS[1]))
                assert ingest.state == "success", airflow.states(ingest)
                score = airflow.wait_for_run("flights_score", lambda run: run.partition == NIGHTS[1], _SECONDS)
                assert score is not None
                score = _wait(airflow, score)
                assert score.state == "success", airflow.states(score)
            said = worker.log.read_text()
            assert said.index("imported once for every task") < said.index(" ready.")
            warm = _imported(airflow, ingest, score)
            assert len(warm) == 16
            assert warm == dict.fromkeys(warm, 0)

            published = state(home)
            with _worker(where, {**env, "OVERNIGHT_WARM": "0"}, "worker-cold") as worker:
                worker.wait_until_ready()
                assert not any(_has_loaded(pid, "onnxruntime") for pid in worker.pool())
                again = _wait(airflow, airflow.trigger("flights_score", partition=NIGHTS[1]))
                assert again.state == "success", airflow.states(again)
            assert "turned off" in worker.log.read_text()
            cold = _imported(airflow, again)
            assert len(cold) == 3
            assert min(cold.values()) > 100, (
                "each task imports for itself: a pool's process learns nothing from its tasks"
            )
            assert state(home) == published, "the same scores: nothing changes"

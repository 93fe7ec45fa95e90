"""Airflow (API server, scheduler, DAG processor, triggerer) and MLflow, on loopback, below one supervisor.

`airflow standalone` starts the same four components; they are started one by one here so that each has its log,
its flags and an end that leaves nothing behind. Everything that is written lies under `var/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from include.local import processes
from include.local.environment import PROJECT, USER, Backing, Places, direct_loopback, environment, password, places

__all__ = [
    "PROJECT",
    "USER",
    "Places",
    "ServerError",
    "State",
    "direct_loopback",
    "environment",
    "password",
    "places",
    "read_state",
    "running",
    "start",
    "stop",
    "supervise",
    "wait_until_ready",
]

_STARTUP_SECONDS = 420
_STOP_SECONDS = 6


class ServerError(RuntimeError):
    """A server did not start, or ended by itself."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What `var/run/servers.json` says about running servers."""

    pid: int
    since: str
    """When the supervisor began (see `processes.started`)."""
    airflow_url: str
    mlflow_url: str
    children: dict[str, tuple[int, str]]
    ready: bool


def _commands(where: Places, mlflow_port: int) -> dict[str, list[str]]:
    airflow = [sys.executable, "-m", "airflow"]
    (where.home / "mlflow").mkdir(parents=True, exist_ok=True)
    return {
        "mlflow": [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{where.home / 'mlflow' / 'mlflow.db'}"),
            *("--artifacts-destination", str(where.home / "mlflow" / "artifacts")),
        ],
        "api-server": [*airflow, "api-server"],
        # Logs are read from disk on the same machine: nothing needs to serve them.
        "scheduler": [*airflow, "scheduler", "--skip-serve-logs"],
        "dag-processor": [*airflow, "dag-processor"],
        "triggerer": [*airflow, "triggerer", "--skip-serve-logs"],
    }


def _write_state(where: Places, state: State) -> None:
    where.state.parent.mkdir(parents=True, exist_ok=True)
    fresh = where.state.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(state), indent=1))
    fresh.replace(where.state)


def read_state(where: Places) -> State | None:
    """The running servers, or None; what a crash left behind counts as none."""
    try:
        raw: dict[str, Any] = json.loads(where.state.read_text())
        children = {name: (int(pid), str(since)) for name, (pid, since) in raw.pop("children").items()}
        state = State(**raw, children=children)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return state if processes.is_running(state.pid, state.since) else None


def get_json(url: str, timeout: float = 5) -> Any:
    """Reads JSON from a loopback server."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
        return json.load(answer)


def healthy(airflow_url: str, mlflow_url: str) -> bool:
    """Whether every component reports in."""
    try:
        # The server builds its API for tasks at their first request, which takes seconds: that is not to be a task's.
        get_json(f"{airflow_url}/execution/health", timeout=60)
        health = get_json(f"{airflow_url}/api/v2/monitor/health")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{mlflow_url}/health", timeout=5) as answer:
            answer.read()
    except (OSError, ValueError, urllib.error.URLError):
        return False
    return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def supervise(where: Places) -> int:
    """Starts the servers and stays until a signal or the end of one of them; then ends every process below."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    processes.adopt_orphans()
    where.logs.mkdir(parents=True, exist_ok=True)
    # The claims are held for as long as this process lives.
    airflow_port, _airflow = processes.claim_port(int(os.environ.get("OVERNIGHT_AIRFLOW_PORT", "8080")))
    mlflow_port, _mlflow = processes.claim_port(int(os.environ.get("OVERNIGHT_MLFLOW_PORT", "5000")))
    env = environment(where, airflow_port, mlflow_port, Backing.given())
    urls = {"airflow_url": f"http://127.0.0.1:{airflow_port}", "mlflow_url": f"http://127.0.0.1:{mlflow_port}"}
    own = {"pid": os.getpid(), "since": processes.started(os.getpid()) or "", **urls}
    children: dict[str, subprocess.Popen[bytes]] = {}

    def record(ready: bool) -> None:
        known = {name: (child.pid, processes.started(child.pid) or "") for name, child in children.items()}
        _write_state(where, State(**own, children=known, ready=ready))  # type: ignore[arg-type]

    try:
        record(False)
        commands = _commands(where, mlflow_port)
        children["mlflow"] = _start("mlflow", commands.pop("mlflow"), env, where)
        children["migrate"] = _start("migrate", [sys.executable, "-m", "airflow", "db", "migrate"], env, where)
        record(False)
        while children["migrate"].poll() is None and not stopping:
            time.sleep(0.05)
        if not stopping and children.pop("migrate").returncode != 0:
            raise ServerError(f"airflow db migrate failed; see {where.logs / 'migrate.log'}")
        for name, command in commands.items():
            if not stopping:
                children[name] = _start(name, command, env, where)
        ready = False
        while not stopping:
            for name, child in children.items():
                if child.poll() is not None:
                    raise ServerError(f"{name} ended with exit code {child.returncode}; see {where.logs / name}.log")
            if not ready and (ready := healthy(**urls)):
                record(True)
            time.sleep(0.5 if ready else 0.2)
    except ServerError as error:
        (where.logs / "supervisor.log").write_text(f"{error}\n")
        return 1
    finally:
        processes.stop_descendants(os.getpid(), _STOP_SECONDS)
        where.state.unlink(missing_ok=True)
    return 0


def _start(name: str, command: list[str], env: Mapping[str, str], where: Places) -> subprocess.Popen[bytes]:
    with (where.logs / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=where.home,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.die_with_parent,  # noqa: PLW1509 (the supervisor has one thread)
        )


def wait_until_ready(
    where: Places, on_wait: Callable[[float], None] = lambda _seconds: None, ended: Callable[[], bool] = lambda: False
) -> State:
    """Waits until every server answers.

    Args:
        on_wait: called about four times a second with the seconds waited so far.
        ended: asked whether the supervisor has ended, when the caller knows.

    Raises:
        ServerError: they ended, or did not answer in time.
    """
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < _STARTUP_SECONDS:
        state = read_state(where)
        if state and state.ready:
            return state
        if ended():
            said = where.logs / "supervisor.log"
            raise ServerError((said.read_text().strip() if said.exists() else "") or "the supervisor ended")
        on_wait(waited)
        time.sleep(0.25)
    raise ServerError(f"the servers did not answer within {_STARTUP_SECONDS} s; see {where.logs}")


def start(where: Places, *, tied: bool, on_wait: Callable[[float], None] = lambda _seconds: None) -> State:
    """Starts the supervisor in the background and waits until every server answers.

    Args:
        tied: the servers end when this process ends, however it ends.
        on_wait: as in `wait_until_ready`.

    Raises:
        ServerError: servers of this checkout are running already, or one did not start.
    """
    if read_state(where):
        raise ServerError("the servers are running already; `make down` stops them")
    where.logs.mkdir(parents=True, exist_ok=True)
    (where.logs / "supervisor.log").unlink(missing_ok=True)
    with (where.logs / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "include.local", "supervise", *(["--tied"] if tied else [])],
            cwd=PROJECT,
            env={**os.environ, "OVERNIGHT_HOME": str(where.home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.die_with_parent if tied else None,  # noqa: PLW1509 (as above)
        )
    try:
        return wait_until_ready(where, on_wait, lambda: child.poll() is not None)
    except BaseException:
        if child.poll() is None:
            child.terminate()
            child.wait(_STOP_SECONDS + 10)
        raise


def stop(where: Places) -> bool:
    """Stops the servers of this checkout, and nothing else; False when none were running."""
    state = read_state(where)
    if state is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS + 10
    while processes.is_running(state.pid, state.since) and time.monotonic() < deadline:
        processes.reap()
        time.sleep(0.05)
    if processes.is_running(state.pid, state.since):
        processes.signal_all([*processes.descendants(state.pid), state.pid], signal.SIGKILL)
        where.state.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def running(where: Places, on_wait: Callable[[float], None] = lambda _seconds: None) -> Iterator[State]:
    """The servers for as long as the block runs."""
    state = start(where, tied=True, on_wait=on_wait)
    try:
        yield state
    finally:
        stop(where)

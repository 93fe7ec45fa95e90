"""Where the local servers keep their files, what Airflow stands on, and the environment that every server gets."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.runtime import code_version
from pipelines.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
USER = "admin"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The files of the servers, all below one folder."""

    home: Path

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def state(self) -> Path:
        """The supervisor's pid, the URLs and the children's pids."""
        return self.home / "run" / "servers.json"

    @property
    def logs(self) -> Path:
        """One log a server."""
        return self.home / "log"

    @property
    def passwords(self) -> Path:
        """The simple auth manager's users and their generated passwords."""
        return self.home / "run" / "passwords.json"

    @property
    def keys(self) -> Path:
        """Secrets with which Airflow signs tokens and encrypts connections."""
        return self.home / "run" / "keys.json"


@dataclass(frozen=True, kw_only=True)
class Backing:
    """What Airflow stands on. Nothing given: SQLite, and workers forked from the scheduler.

    With a broker, tasks go to Celery workers, which whoever gave the broker starts (`airflow celery worker`).
    """

    database: str | None = None
    """SQLAlchemy URL of Airflow's records; OVERNIGHT_AIRFLOW_DATABASE."""
    broker: str | None = None
    """URL of Celery's broker; OVERNIGHT_CELERY_BROKER. It needs a database that is not SQLite."""

    @classmethod
    def given(cls) -> Backing:
        """As the environment says. Airflow's own variables are not asked: they may name somebody's production."""
        return cls(
            database=os.environ.get("OVERNIGHT_AIRFLOW_DATABASE"), broker=os.environ.get("OVERNIGHT_CELERY_BROKER")
        )

    def settings(self, where: Places) -> dict[str, str]:
        """Airflow's settings for it."""
        database = self.database or f"sqlite:///{where.airflow / 'airflow.db'}"
        if self.broker is None:
            return {"CORE__EXECUTOR": "LocalExecutor", "DATABASE__SQL_ALCHEMY_CONN": database}
        return {
            "CORE__EXECUTOR": "CeleryExecutor",
            "DATABASE__SQL_ALCHEMY_CONN": database,
            "CELERY__BROKER_URL": self.broker,
            "CELERY__RESULT_BACKEND": f"db+{database}",
        }


def places() -> Places:
    """Where the servers of this checkout keep their files: OVERNIGHT_HOME, or `var/`."""
    return Places(home=Path(os.environ.get("OVERNIGHT_HOME") or PROJECT / "var").resolve())


def _private(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Reads a file of secrets; makes it, for this user's eyes only, when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(make(), file)
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


def password(where: Places) -> str:
    """The generated password of `admin`."""
    return _private(where.passwords, lambda: {USER: secrets.token_urlsafe(12)})[USER]


def direct_loopback() -> dict[str, str]:
    """Environment that keeps plain HTTP on loopback away from a proxy that the machine may have."""
    direct = "127.0.0.1,localhost"
    return {name: ",".join(filter(None, [os.environ.get(name), direct])) for name in ("NO_PROXY", "no_proxy")}


def environment(where: Places, airflow_port: int, mlflow_port: int, backing: Backing = Backing()) -> dict[str, str]:
    """The environment of every server and of every task."""
    keys = _private(
        where.keys,
        lambda: {
            "jwt": secrets.token_urlsafe(48),
            "api": secrets.token_urlsafe(48),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        },
    )
    password(where)
    project = Settings().project
    url = f"http://127.0.0.1:{airflow_port}"
    airflow = {
        **backing.settings(where),
        "CORE__DAGS_FOLDER": project / "dags",
        "CORE__PLUGINS_FOLDER": project / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        # Workers are forked at the start and share their memory; a finished task may hold its worker a little longer.
        "CORE__PARALLELISM": 8,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "CORE__FERNET_KEY": keys["fernet"],
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": where.passwords,
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": False,
        "API__HOST": "127.0.0.1",
        "API__PORT": airflow_port,
        "API__BASE_URL": url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": keys["api"],
        "API_AUTH__JWT_SECRET": keys["jwt"],
        # The scheduler sleeps this long when a loop found nothing to do, so a chain of short tasks waits for it at
        # every link: a warm chain of ten tasks took 11.7 s at the default of 1 s and 2.9 s at 0.1 s.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.1,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        # A supervisor that misses the end of its task looks again after this many seconds (default 5).
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 30,
        "USAGE_DATA_COLLECTION__ENABLED": False,
        "LOGGING__BASE_LOG_FOLDER": where.airflow / "logs",
    }
    return {
        **os.environ,
        **{f"AIRFLOW__{name}": str(value) for name, value in airflow.items()},
        "AIRFLOW_HOME": str(where.airflow),
        "OVERNIGHT_HOME": str(where.home),
        "OVERNIGHT_MLFLOW_URI": f"http://127.0.0.1:{mlflow_port}",
        "OVERNIGHT_CODE_VERSION": code_version(Settings(project=PROJECT)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        # Threads that wait must not spin: trainings beside other work on two cores took several times as long.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Seven idle processes otherwise.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **direct_loopback(),
    }

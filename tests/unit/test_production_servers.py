"""PostgreSQL, SeaweedFS and lakeFS, run here as docker-compose.yaml runs them: its commands, its environment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from pipelines.backends.lakefs import open_store
from pipelines.settings import Settings
from tests.cases import REPOSITORY
from tests.contracts.stores import put
from tests.servers.folders import open_to_all
from tests.unit.production import Compose, fresh_environment, load

_FILES = REPOSITORY / "include" / "production"
_PATIENCE = 60.0
_NAMES = ("airflow", "mlflow", "lakefs")


def _program(name: str) -> str:
    """A server's program; the test is skipped where it is not installed."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path(sys.executable).parent]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, all held at once so that they differ."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def _running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A server for as long as the block runs. What it holds is not worth a gentle end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(asked: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until `asked()` is true."""
    deadline = time.monotonic() + _PATIENCE
    while not asked():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{log.stem} is not healthy: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    """Whether a URL answers 200."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return True
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A cluster as the image of PostgreSQL makes it: one superuser, passwords over TCP."""

    port: int
    secrets: dict[str, str]

    def psql(self, sql: list[str], user: str, password: str, database: str = "postgres") -> str:
        """What psql prints.

        Raises:
            PermissionError: the server refused, with its words.
        """
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGDATABASE": database}
        who = {"PGUSER": user, "PGPASSWORD": password, "PATH": os.environ["PATH"]}
        command = [_program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", *sql]
        done = subprocess.run(
            command, env={**self.secrets, **where, **who}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()

    def ask(self, sql: str, name: str, database: str | None = None) -> str:
        """Asks as the owner of a database."""
        return self.psql(["--command", sql], name, self.secrets[f"{name.upper()}_DB_PASSWORD"], database or name)

    def make_databases(self, compose: Compose, secrets: dict[str, str]) -> None:
        """What the service `databases` does."""
        command = [word.replace("/databases.sql", str(_FILES / "databases.sql")) for word in _command(compose)]
        Postgres(port=self.port, secrets=secrets).psql(command, "postgres", self.secrets["POSTGRES_PASSWORD"])


def _command(compose: Compose) -> list[str]:
    program, *arguments = compose["services"]["databases"]["command"]
    assert program == "psql"
    return [str(word) for word in arguments]


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """A freshly written .env."""
    return fresh_environment()


@pytest.fixture(scope="module")
def compose(secrets: dict[str, str]) -> Compose:
    """The compose file with these secrets."""
    return load(secrets)


@pytest.fixture(scope="module")
def postgres(secrets: dict[str, str], compose: Compose) -> Iterator[Postgres]:
    """A server whose databases have been made twice."""
    initdb, server, ready = _program("initdb"), _program("postgres"), _program("pg_isready")
    # PostgreSQL refuses to run as root, and its account may not enter the folders of pytest.
    account = {"user": "postgres"} if os.geteuid() == 0 else {}
    options = {"prefix": "overnight-postgres-", "dir": open_to_all(), "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**options) as name:
        folder = Path(name)
        if account:
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(secrets["POSTGRES_PASSWORD"])
        how = ["--username", "postgres", "--pwfile", str(folder / "password"), "--auth", "scram-sha-256", "--no-sync"]
        made = compose["services"]["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
        (folder / "password").chmod(0o644)
        subprocess.run(
            [initdb, "-D", str(folder / "data"), *how, *made], check=True, capture_output=True, cwd="/", **account
        )
        (port,) = _free_ports(1)
        run = [server, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", name, "-F"]
        log = folder / "postgres.log"
        with _running(run, log, cwd="/", **account) as process:
            test = compose["services"]["postgres"]["healthcheck"]["test"]
            probe = [ready, "--port", str(port), *test[2:]]
            _wait(lambda: subprocess.run(probe, check=False).returncode == 0, process, log)
            found = Postgres(port=port, secrets=secrets)
            for _ in range(2):
                found.make_databases(compose, secrets)
            yield found


@pytest.mark.parametrize("name", _NAMES)
def test_each_service_owns_a_database_that_no_other_may_enter(postgres: Postgres, name: str) -> None:
    postgres.ask("CREATE TABLE mine (secret text); INSERT INTO mine VALUES ('kept')", name)
    assert postgres.ask("SELECT secret FROM mine", name) == "kept"
    for other in (*(set(_NAMES) - {name}), "postgres", "template1"):
        with pytest.raises(PermissionError, match="permission denied for database"):
            postgres.ask("SELECT 1", name, other)
    powers = (
        "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = current_user"
    )
    assert postgres.ask(powers, name) == "f"


def test_a_changed_password_holds_from_the_next_start_on(postgres: Postgres, compose: Compose) -> None:
    changed = Postgres(port=postgres.port, secrets={**postgres.secrets, "MLFLOW_DB_PASSWORD": "another'one"})
    postgres.make_databases(compose, changed.secrets)
    assert changed.ask("SELECT 1", "mlflow") == "1"
    with pytest.raises(PermissionError, match="password authentication failed"):
        postgres.ask("SELECT 1", "mlflow")
    postgres.make_databases(compose, postgres.secrets)
    assert postgres.ask("SELECT 1", "mlflow") == "1"


@dataclass(frozen=True, kw_only=True)
class Store:
    """SeaweedFS as compose runs it."""

    endpoint: str
    compose: Compose

    def client(self, user: str) -> Any:
        """S3 as one of the users."""
        (secret,) = re.findall(
            rf'"accessKey": "{user}", "secretKey": "(.*?)"', self.compose["configs"]["s3"]["content"]
        )
        keys = {"aws_access_key_id": user, "aws_secret_access_key": secret}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)


@pytest.fixture(scope="module")
def store(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store whose buckets have been made twice."""
    weed, folder = _program("weed"), tmp_path_factory.mktemp("s3")
    service = compose["services"]["s3"]
    (folder / "s3.json").write_text(compose["configs"]["s3"]["content"])
    moved = {"-dir=/data": f"-dir={folder}", "-s3.config=/etc/seaweedfs/s3.json": f"-s3.config={folder / 's3.json'}"}
    moved["-s3.ip.bind=0.0.0.0"] = "-s3.ip.bind=127.0.0.1"
    assert moved.keys() <= set(service["command"])
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    here = [f"-{name}={port}" for name, port in ports.items()]
    # Small volumes and enough of them: a bucket's first write makes seven, whatever room this machine has.
    here += ["-volume.max=100", "-master.volumeSizeLimitMB=64"]
    here += [f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")]
    command = [weed, *service["entrypoint"][1:], *(moved.get(word, word) for word in service["command"]), *here]
    log = folder / "s3.log"
    with _running(command, log, cwd=folder) as process:
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        health = service["healthcheck"]["test"][-1].replace("http://127.0.0.1:8333", endpoint)
        _wait(lambda: _answers(health), process, log)
        buckets = compose["services"]["buckets"]
        told = {"PATH": f"{Path(weed).parent}:{os.environ['PATH']}", "HOME": str(folder)}
        told["SEAWEEDFS_MASTER"] = f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}"
        for _ in range(2):
            run = ["/bin/sh", str(_FILES / "buckets.sh"), *buckets["command"]]
            subprocess.run(run, check=True, env=told, capture_output=True)
        yield Store(endpoint=endpoint, compose=compose)


@pytest.mark.parametrize(
    ("user", "own"), [("lakefs", {"lakefs"}), ("mlflow", {"mlflow"}), ("tasks", {"snapshots", "lakefs"})]
)
def test_each_user_of_the_store_reaches_its_own_buckets_only(store: Store, user: str, own: set[str]) -> None:
    client = store.client(user)
    for bucket in ("lakefs", "mlflow", "snapshots"):
        if bucket in own:
            client.put_object(Bucket=bucket, Key=f"{user}/here", Body=b"1")
            assert client.get_object(Bucket=bucket, Key=f"{user}/here")["Body"].read() == b"1"
        else:
            with pytest.raises(ClientError, match="AccessDenied"):
                client.list_objects_v2(Bucket=bucket)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.create_bucket(Bucket=f"of-{user}")


@pytest.fixture(scope="module")
def lakefs_url(
    postgres: Postgres, store: Store, compose: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """lakeFS on that PostgreSQL and that store, set up twice."""
    program, folder = _program("lakefs"), tmp_path_factory.mktemp("lakefs")
    (port,) = _free_ports(1)
    url = f"http://127.0.0.1:{port}"
    setup = compose["services"]["lakefs-setup"]
    told = {name: str(value) for name, value in setup["environment"].items()}
    for name, value in told.items():
        here = value.replace("@postgres:5432", f"@127.0.0.1:{postgres.port}").replace("http://s3:8333", store.endpoint)
        told[name] = here.replace("0.0.0.0:8000", f"127.0.0.1:{port}")
    told |= {"HOME": str(folder), "PATH": f"{Path(program).parent}:{os.environ['PATH']}"}
    for said in ("made the user overnight", "lakeFS is set up already"):
        run = ["/bin/sh", str(_FILES / "lakefs_setup.sh")]
        done = subprocess.run(run, check=True, env=told, capture_output=True, text=True, cwd=folder)
        assert done.stdout.strip() == said
    log = folder / "lakefs.log"
    service = compose["services"]["lakefs"]
    with _running([program, *service["command"]], log, env=told, cwd=folder) as process:
        health = service["healthcheck"]["test"][-1].replace("http://127.0.0.1:8000", url)
        _wait(lambda: _answers(health), process, log)
        yield url


def test_a_notebook_reads_a_commit_as_the_readme_shows(
    lakefs_url: str, compose: Compose, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = secrets["LAKEFS_SECRET_ACCESS_KEY"]
    told = compose["services"]["worker"]["environment"]
    settings = Settings(
        home=tmp_path,
        lakefs_endpoint=lakefs_url,
        lakefs_access_key_id="overnight",
        lakefs_secret_access_key=SecretStr(secret),
        lakefs_storage=told["OVERNIGHT_LAKEFS_STORAGE"],
    )
    store = open_store("flights", settings)
    put(store, "2013-09-01", 0.5)
    commit = put(store, "2013-09-02", -1.0).snapshot.version
    last = put(store, "2013-09-02", 7.0).snapshot.version
    blocks = re.findall(r"```python\n(.*?)```", (_FILES / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.setenv("LAKEFS_SECRET_ACCESS_KEY", secret)
    found: dict[str, Any] = {}
    for block in blocks[:3]:
        here = block.replace("http://localhost:8000", lakefs_url).replace(
            "localhost:8000", lakefs_url.removeprefix("http://")
        )
        exec(compile(here, "README.md", "exec"), found)
        if "rows" not in found:  # the first block: which commits there are
            assert found["commit"] == last
            found["commit"] = commit
        else:
            assert sorted(found.pop("rows")["value"].to_list()) == [-1.0, 0.5]

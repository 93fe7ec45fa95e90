"""lakeFS: a real server for the session, on local blocks or on SeaweedFS; or the one that the environment names."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pipelines.settings import Settings
from tests.servers.seaweed import Seaweed

#: In the environment of tests and of their subprocesses: the server of a backend, as JSON.
VARIABLE = "OVERNIGHT_TEST_{}"
SKIPPED = "lakeFS contract tests skipped: no lakefs program on PATH; get a release from lakefs.io or set {}".format(
    "OVERNIGHT_LAKEFS_ENDPOINT"
)
#: Made up, for servers that only this machine reaches and that end with the tests.
_KEY, _SECRET = "AKIAOVERNIGHTTESTSQ", "only-for-a-test-server"
_PATIENCE = 60.0
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class LakeFS:
    """A running server, and where tests may keep repositories on it."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    storage: str
    """Storage namespace below which repositories are made."""
    blocks: str | None
    """The folder of its local blocks, where this machine sees it."""
    session: str
    """Keeps the repositories of sessions apart that use one server."""


def server_of(backend: str) -> LakeFS:
    """The server of a backend, in the tests' process or in one that they started."""
    return LakeFS(**json.loads(os.environ[VARIABLE.format(backend)]))


@pytest.fixture(scope="session")
def lakefs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeFS]:
    """The server that OVERNIGHT_LAKEFS_ENDPOINT names, or one on local blocks."""
    given = Settings()
    if given.lakefs_endpoint is not None:
        assert given.lakefs_access_key_id is not None
        assert given.lakefs_secret_access_key is not None
        blocks = given.lakefs_blockstore
        server = LakeFS(
            endpoint=given.lakefs_endpoint,
            access_key_id=given.lakefs_access_key_id,
            secret_access_key=given.lakefs_secret_access_key.get_secret_value(),
            storage=given.lakefs_storage,
            blocks=None if blocks is None else str(blocks),
            session=secrets.token_hex(4),
        )
        with _told("lakefs", server):
            yield server
        return
    folder = tmp_path_factory.mktemp("lakefs")
    blocks = folder / "blocks"
    environment = {"LAKEFS_BLOCKSTORE_TYPE": "local", "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(blocks)}
    with _serving(folder, environment, "local://overnight", str(blocks)) as server, _told("lakefs", server):
        yield server


@pytest.fixture(scope="session")
def lakefs_on_s3(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed) -> Iterator[LakeFS]:
    """A server that keeps its blocks on SeaweedFS."""
    aws = seaweed.environment
    environment = {
        "LAKEFS_BLOCKSTORE_TYPE": "s3",
        "LAKEFS_BLOCKSTORE_S3_ENDPOINT": seaweed.endpoint,
        "LAKEFS_BLOCKSTORE_S3_FORCE_PATH_STYLE": "true",
        "LAKEFS_BLOCKSTORE_S3_DISCOVER_BUCKET_REGION": "false",
        "LAKEFS_BLOCKSTORE_S3_REGION": aws["AWS_REGION"],
        "LAKEFS_BLOCKSTORE_S3_CREDENTIALS_ACCESS_KEY_ID": aws["AWS_ACCESS_KEY_ID"],
        "LAKEFS_BLOCKSTORE_S3_CREDENTIALS_SECRET_ACCESS_KEY": aws["AWS_SECRET_ACCESS_KEY"],
    }
    folder = tmp_path_factory.mktemp("lakefs-s3")
    storage = f"s3://{seaweed.bucket}/{folder.name}"
    with _serving(folder, environment, storage, None) as server, _told("lakefs-s3", server):
        yield server


@contextlib.contextmanager
def _told(backend: str, server: LakeFS) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE.format(backend), json.dumps(asdict(server)))
        yield


@contextlib.contextmanager
def _serving(folder: Path, environment: Mapping[str, str], storage: str, blocks: str | None) -> Iterator[LakeFS]:
    """Runs a server whose records lie in `folder`. Another process may take a port first: then it is tried again."""
    program = shutil.which("lakefs")
    if program is None:
        pytest.skip(SKIPPED)
    for attempt in range(_ATTEMPTS):
        home = folder / str(attempt)
        home.mkdir(parents=True)
        with (home / "log.txt").open("wb") as log, socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
            probe.close()
            own = {name: value for name, value in os.environ.items() if not name.startswith("LAKEFS_")}
            own |= {
                "HOME": str(home),
                "LAKEFS_DATABASE_TYPE": "local",
                "LAKEFS_DATABASE_LOCAL_PATH": str(home / "records"),
                "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": secrets.token_hex(16),
                "LAKEFS_LISTEN_ADDRESS": address,
                "LAKEFS_STATS_ENABLED": "false",
                "LAKEFS_LOGGING_LEVEL": "ERROR",
                "LAKEFS_INSTALLATION_USER_NAME": "tests",
                "LAKEFS_INSTALLATION_ACCESS_KEY_ID": _KEY,
                "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": _SECRET,
                **environment,
            }
            process = subprocess.Popen([program, "run"], cwd=home, stdout=log, stderr=log, env=own)
            try:
                if _ready(f"http://{address}/_health", process):
                    yield LakeFS(
                        endpoint=f"http://{address}",
                        access_key_id=_KEY,
                        secret_access_key=_SECRET,
                        storage=storage,
                        blocks=blocks,
                        session=secrets.token_hex(4),
                    )
                    return
            finally:
                process.kill()  # nothing here is worth keeping
                process.wait()
    raise RuntimeError(f"lakeFS does not start; its last words: {(home / 'log.txt').read_text()[-2000:]}")


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    return False

"""SeaweedFS: a real S3 server, one process, for the session."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "overnight"
#: Made up, for a server that only this machine reaches and that ends with the tests.
_KEY, _SECRET = "overnight-tests", "only-for-a-test-server"
_PATIENCE = 60.0
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Seaweed:
    """A running server. What clients need to know is in `environment`."""

    endpoint: str
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """The AWS_ variables that every S3 client understands."""
        return {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """The server with an empty bucket; the AWS_ variables point to it until the session ends."""
    with serving(tmp_path_factory.mktemp("seaweed")) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Seaweed]:
    """Runs a server whose data lie in `folder`. Another process may take a port first: then it is tried again."""
    for attempt in range(_ATTEMPTS):
        home = folder / str(attempt)
        home.mkdir(parents=True)
        with (home / "log.txt").open("wb") as log:
            endpoint, process = _start(home, log.fileno())
            try:
                if _ready(endpoint, process):
                    yield Seaweed(endpoint=endpoint)
                    return
            finally:
                process.kill()  # asked politely it takes ten seconds, and nothing here is worth keeping
                process.wait()
    raise RuntimeError(f"SeaweedFS does not start; its last words: {(home / 'log.txt').read_text()[-2000:]}")


def _start(home: Path, log: int) -> tuple[str, subprocess.Popen[bytes]]:
    access = {"credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "name": "tests", "actions": ["Admin"]}
    config = home / "s3.json"
    config.write_text(json.dumps({"identities": [access]}))
    data = home / "data"
    data.mkdir()
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # A bucket's first write makes seven volumes: small ones, and enough of them.
        "-volume.max=100",
        "-master.volumeSizeLimitMB=256",
        "-volume.preStopSeconds=0",
        "-volume.minFreeSpace=100MiB",
        "-master.telemetry=false",
        f"-filer.localSocket={home / 'filer.sock'}",
        f"-s3.localSocket={home / 's3.sock'}",
    ]
    environment = {**os.environ, "HOME": str(home)}
    process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, env=environment)
    return f"http://127.0.0.1:{ports['s3.port']}", process


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, all held at once so that they differ."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _ready(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    """Makes the bucket and writes into it, as soon as the server lets it; False when the process ended."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=_KEY,
        aws_secret_access_key=_SECRET,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )
    made, deadline = False, time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if not made:
                client.create_bucket(Bucket=BUCKET)
                made = True
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
        else:
            return True
    return False

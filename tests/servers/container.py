"""A training container without Docker: a folder laid out as /opt/ml, and the job's own entry point run on it.

What SageMaker does for a job is done here for one that a test submitted to moto: channels are downloaded, the entry
point of the request is started with the platform's files and variables, its output goes to CloudWatch, checkpoints are
copied to S3 and back, the model folder becomes model.tar.gz, and the job's status follows. Only the root differs:
/opt/ml in the entry point stands for the chosen folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.sagemaker import Aws

GROUP = "/aws/sagemaker/TrainingJobs"
_PATIENCE = 120.0


class Container:
    """One job's machine. `run` may be called again: that is what a spot job's restart is."""

    def __init__(self, aws: Aws, name: str, root: Path, *, toolkit: bool = False) -> None:
        """Takes a job that was submitted.

        Args:
            toolkit: whether the SM_ variables are set, as in an image with Amazon's start script.
        """
        self.aws, self.name, self.root = aws, name, root
        self.request = next(sent for sent in aws.requests if sent["TrainingJobName"] == name)
        self.toolkit = toolkit
        self.output = ""
        self._events = 0

    def run(self, *, until: Callable[[str], bool] | None = None, grace: float = 60.0) -> int:
        """Runs the entry point to its end.

        Args:
            until: spot: SIGTERM is sent after the first line of output for which this is true, SIGKILL `grace` later.

        Returns:
            The exit code; negative for a signal.
        """
        self._lay_out()
        self.aws.put(self.name, "InProgress", "Training")
        process = subprocess.Popen(
            self._command(),
            cwd=self.root,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killer = threading.Timer(_PATIENCE, process.kill)
        killer.start()
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if until is not None and until(line):
                process.send_signal(signal.SIGTERM)
                killer.cancel()
                killer = threading.Timer(grace, process.kill)
                killer.start()
                until = None
        code = process.wait()
        killer.cancel()
        self.output += "\n".join(lines) + "\n"
        self._log(lines)
        self._sync_checkpoints()
        return code

    def finish(self, code: int) -> None:
        """What the platform does when the entry point has ended: the archive, and the job's status."""
        if code == 0:
            self.upload_model(self._add_all)
            self.aws.put(self.name, "Completed", "Completed")
            return
        failure = self.root / "output" / "failure"
        said = failure.read_text("utf-8")[:1024] if failure.exists() else ""
        self.aws.put(self.name, "Failed", "Failed", f"AlgorithmError: {said}, exit code: {code}")

    def upload_model(self, fill: Callable[[tarfile.TarFile], object]) -> None:
        """Stores model.tar.gz where the job says."""
        archive = self.root.parent / f"{self.root.name}.model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            fill(tar)
        bucket, key = _split(self.aws.jobs[self.name].model_artifacts["S3ModelArtifacts"])
        self.aws.client("s3").upload_file(str(archive), bucket, key)

    def _add_all(self, tar: tarfile.TarFile) -> None:
        for path in sorted((self.root / "model").rglob("*")):
            tar.add(path, path.relative_to(self.root / "model").as_posix(), recursive=False)

    # -- the platform's side ---------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """A new machine: nothing of the last one but the checkpoints, which come from S3."""
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in ("input/config", "model", "output", "checkpoints"):
            (self.root / folder).mkdir(parents=True)
        for channel in self.request["InputDataConfig"]:
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._download(source, self.root / "input" / "data" / channel["ChannelName"])
        self._download(self.request["CheckpointConfig"]["S3Uri"], self.root / "checkpoints")
        hosts = [f"algo-{i + 1}" for i in range(self.request["ResourceConfig"]["InstanceCount"])]
        resources = {"current_host": hosts[0], "hosts": hosts, "network_interface_name": "eth0"}
        config = self.root / "input" / "config"
        (config / "resourceconfig.json").write_text(json.dumps(resources))
        (config / "hyperparameters.json").write_text(json.dumps(self.request.get("HyperParameters", {})))

    def _command(self) -> list[str]:
        algorithm = self.request["AlgorithmSpecification"]
        words = [*algorithm["ContainerEntrypoint"], *algorithm.get("ContainerArguments", [])]
        return [sys.executable if word == "python" else word.replace("/opt/ml", str(self.root)) for word in words]

    def _environment(self) -> dict[str, str]:
        """Only what a container has: nothing of this process but where its programs are."""
        found = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        found |= {"OVERNIGHT_CONTAINER_ROOT": str(self.root), "TRAINING_JOB_NAME": self.name}
        found |= self.request.get("Environment", {})
        if self.toolkit:
            found |= {
                "SM_MODEL_DIR": str(self.root / "model"),
                "SM_CHANNEL_TRAINING": str(self.root / "input" / "data" / "training"),
                "SM_CHANNEL_CONFIG": str(self.root / "input" / "data" / "config"),
                "SM_OUTPUT_DIR": str(self.root / "output"),
                "SM_OUTPUT_DATA_DIR": str(self.root / "output" / "data"),
                "SM_HOSTS": '["algo-1"]',
                "SM_CURRENT_HOST": "algo-1",
                "SM_NUM_GPUS": "0",
                "SM_NUM_CPUS": "1",
            }
        return found

    def _download(self, uri: str, folder: Path) -> None:
        bucket, prefix = _split(uri)
        folder.mkdir(parents=True, exist_ok=True)
        client = self.aws.client("s3")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                target = folder / entry["Key"].removeprefix(prefix).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, entry["Key"], str(target))

    def _sync_checkpoints(self) -> None:
        bucket, prefix = _split(self.request["CheckpointConfig"]["S3Uri"])
        folder, client = self.root / "checkpoints", self.aws.client("s3")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), bucket, f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}")

    def _log(self, lines: list[str]) -> None:
        logs: Any = self.aws.client("logs")
        stream = f"{self.name}/algo-1-0"
        for make, names in ((logs.create_log_group, [GROUP]), (logs.create_log_stream, [GROUP, stream])):
            try:
                make(**dict(zip(("logGroupName", "logStreamName"), names, strict=False)))
            except logs.exceptions.ResourceAlreadyExistsException:
                continue
        now = int(time.time() * 1000)
        events = [{"timestamp": now + self._events + i, "message": line} for i, line in enumerate(lines) if line]
        self._events += len(lines)
        if events:
            logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key

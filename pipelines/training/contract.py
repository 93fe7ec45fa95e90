"""The container's side of a training job: from what the platform lays out to a `Job`, and back to its failure file.

    /opt/ml/input/data/code       overnight.zip, on PYTHONPATH
    /opt/ml/input/data/config     spec.json
    /opt/ml/input/data/training   train.parquet, validation.parquet, holdout.parquet, perhaps unlabelled.parquet
    /opt/ml/input/config          resourceconfig.json: the hosts
    /opt/ml/checkpoints           outlives an interruption: copied to S3 while the job runs, and back before it goes on
    /opt/ml/model                 the artifact; becomes model.tar.gz
    /opt/ml/output/failure        why it failed; the platform shows the first 1024 characters

`run` supervises: it starts the same command line that a person would use here (under torchrun when there are several
processes), passes SIGTERM on, and says in a file why it failed, also when the training was killed or crashed. The
SM_ variables win where they are set; they come from Amazon's own start script, which images of others lack, so the
files are read otherwise. Sources: "How Amazon SageMaker provides training information", "Environment variables" of
sagemaker-training-toolkit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from pipelines.errors import TrainingError, explain
from pipelines.spec import UseCase
from pipelines.training.job import Job

#: Another root than /opt/ml, for a container that is only a folder.
ROOT = "OVERNIGHT_CONTAINER_ROOT"
SPEC = "spec.json"
#: What the platform shows of a failure.
FAILURE_CHARACTERS = 1024
#: Lines of the training's stderr that are kept for the failure.
_KEPT = 200
_PORT = 29500
_SAID = re.compile(r"(TrainingError|SpecError|InputError|IntegrityError|UnavailableError|InterruptedTraining): .+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """One host of a training job."""

    root: Path
    data: Path
    """The channel `training`."""
    config: Path
    """The channel `config`."""
    model: Path
    checkpoints: Path
    failure: Path
    """A file, not yet there."""
    hosts: tuple[str, ...]
    host: str
    gpus: int
    cpus: int

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> Container:
        """What the platform laid out, by its variables and files."""
        root = Path(environment.get(ROOT, "/opt/ml"))
        resources = _resources(root / "input" / "config" / "resourceconfig.json")
        named = environment.get("SM_HOSTS")
        hosts = tuple(sorted(json.loads(named) if named else resources.get("hosts", ["algo-1"])))
        output = Path(environment.get("SM_OUTPUT_DIR", str(root / "output")))
        return cls(
            root=root,
            data=Path(environment.get("SM_CHANNEL_TRAINING", str(root / "input" / "data" / "training"))),
            config=Path(environment.get("SM_CHANNEL_CONFIG", str(root / "input" / "data" / "config"))),
            model=Path(environment.get("SM_MODEL_DIR", str(root / "model"))),
            checkpoints=Path(environment.get("SM_CHECKPOINT", str(root / "checkpoints"))),
            failure=output / "failure",
            hosts=hosts,
            host=environment.get("SM_CURRENT_HOST") or resources.get("current_host", hosts[0]),
            gpus=int(environment.get("SM_NUM_GPUS") or _gpus()),
            cpus=int(environment.get("SM_NUM_CPUS") or len(os.sched_getaffinity(0))),
        )

    def job(self) -> Job:
        """The training that this container is asked for.

        Raises:
            TrainingError: there is no spec, or it is not one.
        """
        path = self.config / SPEC
        try:
            spec = UseCase.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingError(
                explain(str(path), f"no spec can be read: {error}", remedy="give the channel config a spec.json")
            ) from error
        threads = max(1, self.cpus // self.processes(spec))
        return Job(spec=spec, data=self.data, out=self.model, checkpoints=self.checkpoints, threads=threads)

    def processes(self, spec: UseCase) -> int:
        """Training processes on each host: what the spec says, or one a GPU."""
        asked = spec.training.processes
        return asked if isinstance(asked, int) else max(1, self.gpus)

    def command(self, job: Job) -> list[str]:
        """The command line of the training on this host."""
        each = self.processes(job.spec)
        arguments = ["--spec", str(self.config / SPEC), "--data", str(job.data), "--out", str(job.out)]
        arguments += ["--checkpoints", str(job.checkpoints), "--threads", str(job.threads)]
        if each * len(self.hosts) == 1:
            return [sys.executable, "-m", "pipelines.training", *arguments]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(each)]
        launcher += ["--nnodes", str(len(self.hosts)), "--node-rank", str(self.hosts.index(self.host))]
        launcher += ["--master-addr", self.hosts[0] if len(self.hosts) > 1 else "127.0.0.1"]
        return [*launcher, "--master-port", str(_PORT), "-m", "pipelines.training", *arguments]


def run(environment: Mapping[str, str] | None = None) -> int:
    """Trains in this container, and writes the failure file when that fails.

    Returns:
        The training's own exit code; 128 + n when signal n killed it; 1 when there is no spec.
    """
    container = Container.find(os.environ if environment is None else environment)
    try:
        job = container.job()
    except TrainingError as error:
        sys.stderr.write(f"TrainingError: {error}\n")
        _write(container.failure, f"TrainingError: {error}")
        return 1
    code, last = _supervise(container.command(job))
    if code != 0:
        _write(container.failure, failure_text(code, last))
    return code


def failure_text(code: int, lines: list[str]) -> str:
    """Why a training failed, as `<kind>: <what>`: what it said itself, or its last words.

    >>> failure_text(1, ["loading", "TrainingError: train.parquet: every label is 1.", "exit"])
    'TrainingError: train.parquet: every label is 1.'
    >>> failure_text(137, ["epoch 3"])
    'Crash: exit code 137 (killed by signal 9); last words: epoch 3'
    """
    for line in reversed(lines):
        if found := _SAID.search(line):
            return found.group()[:FAILURE_CHARACTERS]
    how = f"exit code {code}" + (f" (killed by signal {code - 128})" if code > 128 else "")
    head = f"Crash: {how}; last words: "
    return head + " | ".join(lines)[-(FAILURE_CHARACTERS - len(head)) :]


def _supervise(command: list[str]) -> tuple[int, list[str]]:
    """Runs the training to its end; SIGTERM and SIGINT are passed on to it."""
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", bufsize=1)

    def pass_on(number: int, _: Any) -> None:
        if child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert child.stderr is not None
        last = _relay(child.stderr)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (128 - code if code < 0 else code), last


def _relay(stream: IO[str]) -> list[str]:
    """Copies the training's stderr to ours and keeps the end of it."""
    last: deque[str] = deque(maxlen=_KEPT)
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        if text := line.strip():
            last.append(text)
    return list(last)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:FAILURE_CHARACTERS], "utf-8")


def _resources(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _gpus() -> int:
    """NVIDIA devices that the container was given; torch is not asked, its import takes seconds."""
    return sum(1 for path in Path("/dev").glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit())

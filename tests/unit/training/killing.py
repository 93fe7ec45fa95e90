"""Real training processes that do something to themselves after a step, forked from a server that imported torch once.

How: kill (SIGKILL), term (SIGTERM), memory (torch.OutOfMemoryError in that step, once a folder), exit (a crash of rank
1), rows (writes which rows each process learned from), or none.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.spec import UseCase
from pipelines.training import loop
from pipelines.training.__main__ import main
from pipelines.training.feed import Batch
from tests.unit.training.conftest import write

STEP = loop.Step
_PROCESSES = multiprocessing.get_context("forkserver")
# An optimizer's first step would import torch._dynamo in every child.
_PROCESSES.set_forkserver_preload(
    ["tests.unit.training.killing", "pipelines.training.entry", "tabm", "lightgbm", "torch._dynamo", "onnxruntime"]
)


def prepare(root: Path, spec: UseCase) -> Path:
    """A folder with the data and the spec of a toy."""
    write(root / "data", "binary")
    (root / "spec.json").write_text(spec.model_dump_json(), "utf-8")
    return root


def fork(target: Callable[..., None], *arguments: Any) -> int:
    """The exit code of a function in a process of its own."""
    child = _PROCESSES.Process(target=target, args=arguments)
    child.start()
    child.join(120)
    return child.exitcode or 0


def launch(
    root: Path, network: str = "-", step: int = 0, how: str = "none", processes: int = 1
) -> tuple[list[int], str]:
    """Trains in so many processes; gives their exit codes (-9: killed) and all that they said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said, children = root / "said", []
    said.write_text("", "utf-8")
    for rank in range(processes):
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
        environment = {name: str(value) for name, value in (here | {"MASTER_PORT": port}).items()}
        child = _PROCESSES.Process(target=_train, args=(root, network, step, how, environment, said))
        child.start()
        children.append(child)
    for child in children:
        child.join(120)
        if child.is_alive():
            child.kill()
            raise AssertionError(f"a training hangs: {said.read_text('utf-8')}")
    return [child.exitcode or 0 for child in children], said.read_text("utf-8")


def _train(root: Path, network: str, step: int, how: str, environment: dict[str, str], said: Path) -> None:
    os.environ.update(environment)
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    loop.Step = _harmful(network, step, how, root)  # type: ignore[misc]
    folders = [part for name in ("data", "out", "checkpoints") for part in (f"--{name}", str(root / name))]
    sys.exit(main(["--spec", str(root / "spec.json"), *folders, "--threads", "1"]))


def _harmful(network: str, at: int, how: str, root: Path) -> type[loop.Step]:
    """A step that does what it is told to after the `at`-th of a network, counted in its process."""
    rank = int(os.environ["RANK"])

    class Harmful(STEP):  # type: ignore[misc, valid-type]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            net = getattr(given[2], "module", given[2])
            self._name, self._calls = type(net).__name__.lower(), 0

        def __call__(self, batch: Batch) -> torch.Tensor:
            self._calls += 1
            now = self._name == network and self._calls == at
            if now and how == "memory" and not (root / "short").exists():
                (root / "short").touch()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            loss: torch.Tensor = super().__call__(batch)
            if how == "rows" and batch.numbers is not None:
                with (root / f"rows-{self._name}-{rank}.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(batch.numbers.tolist()) + "\n")
            if now and how in ("kill", "term") and rank == 0:
                os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
            if now and how == "exit" and rank == 1:
                os._exit(9)
            return loss

    return Harmful

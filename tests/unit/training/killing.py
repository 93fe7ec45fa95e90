"""`python -m tests.unit.training.killing ROOT NETWORK STEP HOW`: trains a toy and does HOW to itself after a step.

HOW: kill (SIGKILL), term (SIGTERM), memory (torch.OutOfMemoryError in that step, once), exit (a crash of rank 1), rows
(writes which rows each process learned from), or none. Checkpoints are written at every step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from pipelines.training import loop
from pipelines.training.__main__ import main
from pipelines.training.feed import Batch

STEP = loop.Step


def arguments(root: Path) -> list[str]:
    """What the command line of the toy says."""
    folders = [part for name in ("data", "out", "checkpoints") for part in (f"--{name}", str(root / name))]
    return ["--spec", str(root / "spec.json"), *folders, "--threads", "1"]


def harm(network: str, at: int, how: str, root: Path) -> type:
    """A step that does what it is told to after the `at`-th of a network."""
    rank = int(os.environ.get("RANK", "0"))

    class Harmful(STEP):  # type: ignore[misc, valid-type]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            net = given[2].module if hasattr(given[2], "module") else given[2]
            self._name, self._calls = type(net).__name__.lower(), 0

        def __call__(self, batch: Batch) -> torch.Tensor:
            self._calls += 1
            now = self._name == network and self._calls == at
            if now and how == "memory" and not (root / "short").exists():
                (root / "short").touch()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            loss: torch.Tensor = super().__call__(batch)
            if how == "rows" and batch.numbers is not None:
                with (root / f"rows-{self._name}-{rank}.jsonl").open("a") as file:
                    file.write(json.dumps(batch.numbers.tolist()) + "\n")
            if now and how in ("kill", "term") and rank == 0:
                os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
            if now and how == "exit" and rank == 1:
                os._exit(9)
            return loss

    return Harmful


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    loop.Step = harm(sys.argv[2], int(sys.argv[3]), sys.argv[4], folder)  # type: ignore[misc]
    sys.exit(main(arguments(folder)))

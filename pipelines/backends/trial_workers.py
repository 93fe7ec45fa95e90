"""Worker processes of a search. Each reads the data once and runs trials one after another.

Plain programs that talk JSON lines, not forks: torch's threads do not survive a fork, and what started the search may
be a task of a scheduler that has imported half the world. What kills a worker, a lack of memory say, ends one trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from pipelines.spec import Teacher, UseCase

#: What a worker runs; its options are added.
PROGRAM = (sys.executable, "-m", "pipelines.training.trial_worker")
_TAIL = 400


class Worker:
    """One process."""

    def __init__(
        self, command: Sequence[str], threads: int, log: Path, heard: SimpleQueue[tuple[Worker, dict[str, Any] | None]]
    ) -> None:
        """Starts it; what it says is put in `heard`, and None when it is gone."""
        self.ready = False
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
                # A signal to this process's group is this process's to answer.
                start_new_session=True,
            )
        self._heard = heard
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._heard.put((self, json.loads(line)))
            except ValueError:
                break  # It died in the middle of a line.
        self._process.wait()
        self._heard.put((self, None))

    def begin(self, settings: Teacher) -> None:
        """Begins a trial."""
        self._say({"teacher": settings.model_dump(mode="json")})

    def go_on(self, answer: bool) -> None:
        """Answers an epoch."""
        self._say({"go": answer})

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # It is gone: the listener says so.
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    @property
    def alive(self) -> bool:
        """Whether it can be given a trial."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # What was never sent cannot be sent any more.
                pipe.close()

    def epitaph(self) -> str:
        """How it ended, with its last words."""
        said = self._log.read_text("utf-8", errors="replace").strip()[-_TAIL:]
        return f"the worker process ended with code {self._process.returncode}" + (f": {said}" if said else "")


class Crew:
    """The workers of one search; a worker is started when there is a trial for it."""

    def __init__(self, spec: UseCase, data: Path, size: int, threads: int, program: Sequence[str] = PROGRAM) -> None:
        """Sets what workers are started with.

        Args:
            threads: processor threads of each.
        """
        self._spec, self._data, self._program = spec, data, program
        self._share = threads
        self._heard: SimpleQueue[tuple[Worker, dict[str, Any] | None]] = SimpleQueue()
        self._places: list[Worker | None] = [None] * size
        self._folder = tempfile.TemporaryDirectory(prefix="overnight-search-")

    def __enter__(self) -> Self:
        root = Path(self._folder.name)
        (root / "spec.json").write_text(self._spec.model_dump_json(), "utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._places:
            if worker is not None:
                worker.end()
        self._folder.cleanup()

    def idle(self, busy: Sequence[Worker]) -> Worker:
        """A worker that has nothing to do; started when there is room for it, and there must be."""
        for place, worker in enumerate(self._places):
            if worker is None or not (worker in busy or worker.alive):
                root = Path(self._folder.name)
                options = {
                    "--spec": root / "spec.json",
                    "--data": self._data,
                    "--threads": self._share,
                    "--worker": place,
                }
                command = [*self._program, *(str(part) for option in options.items() for part in option)]
                started = Worker(command, self._share, root / f"worker-{place}.log", self._heard)
                self._places[place] = started
                if worker is not None:
                    worker.end()
                return started
            if worker not in busy:
                return worker
        raise AssertionError("every worker is busy")

    def hear(self) -> tuple[Worker, dict[str, Any] | None]:
        """Waits until a worker says something, or is gone (None): then its place is free."""
        worker, message = self._heard.get()
        if message is None and worker in self._places:
            worker.end()
            self._places[self._places.index(worker)] = None
        return worker, message

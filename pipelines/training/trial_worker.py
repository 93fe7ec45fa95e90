"""`python -m pipelines.training.trial_worker --spec FILE --data DIR --threads N --worker I`: trials, one after another.

Talks JSON lines with the search that started it. In: `{"teacher": {...}}` begins a trial, `{"go": true}` or `false`
answers an epoch. Out: `{"ready": true}` or `{"unfit": why}` once; then of each trial `{"epoch": n, "validation": x}`
and at the end `{"value": x, "epoch": n, "pruned": false}` or `{"failed": why}`. Ends when its input ends: a worker does
not outlive its search.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO


class Channel:
    """The two ends of the talk. Whatever else prints does so on the error stream."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._in: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._in.put(json.loads(line))
        os._exit(0)  # The search is gone: an epoch that nobody waits for is not finished.

    def say(self, **values: Any) -> None:
        """Sends one message."""
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()

    def hear(self) -> dict[str, Any]:
        """Waits for one message."""
        return self._in.get()


def main() -> None:
    """Reads the data, then does as it is told until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.training.trial_worker")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--worker", type=int, required=True)
    chosen = parser.parse_args()
    channel = Channel()

    import torch

    from pipelines.errors import TrainingError
    from pipelines.spec import Teacher, UseCase
    from pipelines.training.job import Job
    from pipelines.training.trial import Trials

    spec = UseCase.model_validate_json(chosen.spec.read_bytes())
    job = Job(spec=spec, data=chosen.data, out=chosen.data, threads=chosen.threads)
    try:
        trials = Trials(job, chosen.worker)
    except TrainingError as error:
        channel.say(unfit=str(error))
        return
    channel.say(ready=True)

    def after_epoch(epoch: int, validation: float) -> bool:
        channel.say(epoch=epoch, validation=validation)
        return bool(channel.hear()["go"])

    while True:
        settings = Teacher.model_validate(channel.hear()["teacher"])
        try:
            judged = trials.run(settings, after_epoch)
        except (TrainingError, torch.OutOfMemoryError) as error:
            channel.say(failed=str(error))
        else:
            channel.say(value=judged.value, epoch=judged.epoch, pruned=judged.pruned)


if __name__ == "__main__":
    main()

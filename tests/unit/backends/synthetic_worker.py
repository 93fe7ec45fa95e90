"""A trial worker without torch: it keeps to `pipelines.training.trial_worker`'s protocol, and its losses are a formula.

So what a search does with its trials can be tested by the dozen. A depth of 7 is a loss that is not finite, a depth of
8 a worker that is killed in the middle of a trial. SYNTHETIC_SECONDS is how long an epoch takes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from typing import Any


def losses(settings: dict[str, Any]) -> list[float]:
    """After each epoch: a valley at a learning rate of 0.003 and a width of 128, and it falls from epoch to epoch."""
    miss = abs(math.log10(settings["learning_rate"] / 0.003)) + abs(settings["width"] - 128) / 128
    return [miss + 1.0 / epoch for epoch in range(1, settings["epochs"] + 1)]


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main() -> None:
    pause = float(os.environ.get("SYNTHETIC_SECONDS", "0"))
    say(ready=True)
    for line in sys.stdin:
        settings = json.loads(line)["teacher"]
        if settings["depth"] == 7:
            say(failed="teacher epoch 1 step 2: the loss is nan.")
            continue
        curve: list[float] = []
        pruned = False
        for epoch, loss in enumerate(losses(settings), 1):
            time.sleep(pause)
            if settings["depth"] == 8 and epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            curve.append(loss)
            say(epoch=epoch, validation=loss)
            if not json.loads(sys.stdin.readline())["go"] and epoch < settings["epochs"]:
                pruned = True
                break
        say(value=min(curve), epoch=curve.index(min(curve)) + 1, pruned=pruned)


if __name__ == "__main__":
    main()

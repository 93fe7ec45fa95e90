"""Named places where a test may kill the process, to show what survives there.

`OVERNIGHT_FAILPOINT=publish.linked overnight run ...` dies by SIGKILL at that place: no cleanup, no exception handler.
Without the variable a failpoint does nothing.
"""

from __future__ import annotations

import os
import signal

#: Every name, so that a test can kill at each of them.
NAMES = (
    "stage.scratched",
    "stage.written",
    "publish.verified",
    "publish.linked",
    "publish.committed",
    "score.batch",
    "shard.written",
    "revert.prepared",
    "revert.committed",
    "purge.told",
    "purge.removed",
    "quarantine.written",
    "expunge.told",
    "erase.rewritten",
    "erase.cleaned",
    "erase.purged",
    "artifact.uploaded",
    "train.logged",
    "gate.told",
    "register.marked",
    "register.opened",
    "register.uploaded",
    "register.signed",
    "register.made",
    "register.tidied",
    "release.copied",
    "promote.appended",
    "follow.read",
    "follow.champion",
    "follow.previous",
    "follow.challenger",
    "follow.noted",
    "deliver.written",
    "deliver.listed",
    "deliver.marked",
    "deliver.copied",
    "deliver.committed",
    "deliver.answered",
    "deliver.handed",
)


def failpoint(name: str) -> None:
    """Dies here by SIGKILL when the environment asks for it."""
    if os.environ.get("OVERNIGHT_FAILPOINT") == name:
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

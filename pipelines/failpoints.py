"""Named places where a test may kill the process, to show what survives there.

`OVERNIGHT_FAILPOINT=publish.linked overnight run ...` dies by SIGKILL at that place: no cleanup, no exception handler.
Without the variable a failpoint does nothing.
"""

from __future__ import annotations

import os
import signal

#: Every name, so that a test can kill at each of them.
NAMES = (
    "stage.written",
    "publish.verified",
    "publish.linked",
    "publish.committed",
    "quarantine.written",
    "erase.rewritten",
    "erase.cleaned",
    "erase.purged",
    "train.logged",
    "promote.appended",
)


def failpoint(name: str) -> None:
    """Dies here by SIGKILL when the environment asks for it."""
    if os.environ.get("OVERNIGHT_FAILPOINT") == name:
        os.kill(os.getpid(), signal.SIGKILL)

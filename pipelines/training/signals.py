"""Being told to stop: SIGTERM sets a flag that the training looks at after a step."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Stop = Callable[[], bool]
_PR_SET_PDEATHSIG = 1


def never() -> bool:
    """Nobody will ask this training to stop."""
    return False


def end_with_parent() -> None:
    """Asks the kernel for SIGTERM to this process when its parent ends, however it ends. Linux alone can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextmanager
def stopping() -> Iterator[Stop]:
    """What says whether SIGTERM came since the block began.

    The handler that was there before is put back at the end, whatever ends the block, and hears then of a signal that
    came meanwhile: what the caller does on SIGTERM is done, only later. Outside of the main thread, which alone may
    handle signals, nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    told = threading.Event()

    def hear(_number: int, _frame: FrameType | None) -> None:
        told.set()

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield told.is_set
    finally:
        # None: a handler that was not set from Python, and cannot be set from it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if told.is_set() and callable(before):
            before(signal.SIGTERM, None)

"""SIGTERM: heard by the training, and afterwards by whoever heard it before."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import pytest

from pipelines.errors import InterruptedTraining
from pipelines.training import loop
from pipelines.training.signals import never, stopping
from tests.unit.training.test_loop import Line, rows, schedule, session


def interrupted(heard: list[int]) -> None:
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert heard == []
        raise InterruptedTraining("stopped")


def test_the_handler_from_before_is_put_back_and_hears_of_the_signal() -> None:
    heard: list[int] = []

    def mine(number: int, _frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with stopping() as stop:
            assert not stop()
        assert heard == []
        with pytest.raises(InterruptedTraining):
            interrupted(heard)
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_no_signal_is_handled() -> None:
    found: list[object] = []

    def work() -> None:
        with stopping() as stop:
            found.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [never]


def test_without_checkpoints_a_stopped_training_says_that_it_begins_again() -> None:
    told = dataclasses.replace(session("binary"), stop=lambda: True)
    with pytest.raises(InterruptedTraining, match=r"line epoch 1 step 1: training was told to stop.*begins again"):
        loop.train(told, Line(), rows(100), rows(50), schedule())

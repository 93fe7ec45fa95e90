"""The progress line and its figures, on a clock that the test moves."""

from __future__ import annotations

import pytest

from pipelines.training import loop
from pipelines.training.progress import Meter, line
from tests.unit.training.test_loop import Line, rows, schedule, session


def test_speed_is_since_the_last_word_and_the_time_left_is_at_the_mean_speed() -> None:
    now = [0.0]
    meter = Meter(1000, lambda: now[0])
    now[0] = 1.0
    meter.passed(100, loss=2.0)
    assert not meter.due
    now[0] = 2.0
    meter.passed(100, loss=1.0)
    assert meter.due
    assert meter.loss == pytest.approx(1.5)
    assert meter.speed() == {"rows_per_second": 100.0, "eta_seconds": 8.0}
    now[0] = 4.0
    meter.passed(600, loss=1.0)
    assert meter.speed() == {"rows_per_second": 300.0, "eta_seconds": 1.0}


def test_a_long_epoch_is_told_of_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr(loop, "Meter", lambda count: Meter(count, tick))
    heard: list[dict[str, float]] = []
    loop.train(session("binary", lambda values: heard.append(dict(values))), Line(), rows(640), rows(50), schedule())
    within = [row for row in heard if "line_recent_loss" in row]
    assert within
    assert all(row.keys() >= {"epoch", "step", "rows_per_second", "eta_seconds"} for row in heard)
    assert not any("line_loss" in row for row in within), "an epoch's loss is told once"
    steps = [row["step"] for row in heard]
    assert steps == sorted(set(steps)), "the x axis only grows"
    assert [row["step"] for row in heard if "line_validation" in row] == [20, 40, 60]


def test_a_line_shows_what_there_is() -> None:
    told = {"epoch": 1, "step": 3, "rows_per_second": 1000, "eta_seconds": 3725, "student_recent_loss": 0.25}
    assert line(told) == "student epoch 1, step 3: recent loss 0.2500, 1,000 rows/s, 1:02:05 left"
    assert line({"epoch": 2, "other": 1}) == "epoch 2: other 1.0000"

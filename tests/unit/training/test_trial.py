"""Trials: the teacher alone, ended when it is told to, its rows read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import TrainingError
from pipelines.spec import Teacher
from pipelines.training import learnable, step, trial
from pipelines.training.job import Job

from .conftest import Trained, make_spec, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trial") / "data", "binary")


def trials_on(data: Path) -> trial.Trials:
    return trial.Trials(Job(spec=make_spec("binary"), data=data, out=data / "nowhere", threads=1))


def settings(**changed: object) -> Teacher:
    return make_spec("binary").training.teacher.model_copy(update=changed)


def test_a_trial_of_the_specs_own_settings_has_the_curve_of_the_training_itself(
    train_once: Callable[[str], Trained],
) -> None:
    trained = train_once("binary")
    told: list[float] = []
    judged = trials_on(trained.data).run(settings(), lambda _, value: not told.append(value))  # type: ignore[func-returns-value]
    itself = [values["teacher_validation"] for values in trained.progress if "teacher_validation" in values]
    assert told == itself, "bit for bit"
    assert judged == trial.Judged(min(itself), itself.index(min(itself)) + 1, pruned=False)


def test_the_rows_are_read_once_and_trials_do_not_touch_one_another(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = learnable.read
    monkeypatch.setattr(learnable, "read", lambda spec, path, **how: reads.append(path.name) or read(spec, path, **how))
    trials = trials_on(data)
    first = trials.run(settings(), lambda *_: True)
    trials.run(settings(width=16, depth=2, learning_rate=0.05), lambda *_: True)
    assert trials.run(settings(), lambda *_: True) == first
    assert sorted(reads) == ["train.parquet", "validation.parquet"]
    assert not (data / "nowhere").exists()


def test_a_trial_ends_when_it_is_told_to(data: Path) -> None:
    epochs: list[int] = []
    judged = trials_on(data).run(settings(), lambda epoch, _: epochs.append(epoch) or epoch < 2)  # type: ignore[func-returns-value]
    assert epochs == [1, 2]
    assert judged.pruned
    assert judged.epoch in (1, 2)


def test_after_the_last_epoch_there_is_nothing_to_save(data: Path) -> None:
    assert not trials_on(data).run(settings(epochs=1), lambda *_: False).pruned


def test_a_loss_that_is_not_finite_is_a_training_error_and_the_next_trial_is_unharmed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_on(data)
    first = trials.run(settings(), lambda *_: True)
    with monkeypatch.context() as patched:
        losses = step.losses
        patched.setattr(step, "losses", lambda *values: losses(*values) * float("nan"))
        with pytest.raises(TrainingError, match="epoch 1 step 1"):
            trials.run(settings(), lambda *_: True)
    assert trials.run(settings(), lambda *_: True) == first

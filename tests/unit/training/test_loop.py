"""The loop: what it does when the loss is no number, when it stops, and what it leaves behind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import TrainingError
from pipelines.ports import OnProgress
from pipelines.training import calibrate, loop
from pipelines.training.feed import Batch, Resident
from pipelines.training.job import Job
from pipelines.training.session import Session
from tests.unit.training.conftest import make_spec


class Line(nn.Module):
    """One weight a column; may be told to give NaN or infinity from a call on."""

    def __init__(self, broken_from: int | None = None, value: float = math.nan) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 2))
        self.calls, self.broken_from, self.value = 0, broken_from, value

    def forward(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:  # noqa: ARG002 (the loop's call)
        if self.training:
            self.calls += 1
        logits = nn.functional.linear(numeric, self.weight)[:, None, :]
        return logits * self.value if self.broken_from and self.calls >= self.broken_from else logits


def session(task: str, listen: OnProgress = lambda _: None) -> Session:
    job = Job(spec=make_spec(task), data=Path("unused"), out=Path("unused"))
    return Session(job=job, device=torch.device("cpu"), threads=1, progress=listen)


def rows(count: int, noise: float = 0.0, seed: int = 0) -> Resident:
    draw = torch.Generator().manual_seed(seed)
    numeric = torch.randn(count, 2, generator=draw)
    target = (numeric[:, 0] + noise * torch.randn(count, generator=draw) > 0).float()
    return Resident(Batch(numeric, torch.zeros(count, 0), torch.zeros(count, 0, dtype=torch.long), target))


def schedule(**changed: float) -> loop.Schedule:
    usual = {"epochs": 3, "patience": 3, "batch_rows": 32, "learning_rate": 0.05, "weight_decay": 0.0, "seed": 1}
    return loop.Schedule(name="line", **(usual | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_epoch_and_step(value: float) -> None:
    # 100 rows in batches of 32 are 4 steps an epoch: the 6th call is the second step of the second epoch.
    net, heard = Line(broken_from=6, value=value), []
    with pytest.raises(TrainingError, match=r"line epoch 2 step 2: the loss is (nan|inf)"):
        loop.train(session("binary", heard.append), net, rows(100), rows(50), schedule())
    assert [row["epoch"] for row in heard] == [1]


def test_a_loss_that_is_no_number_names_the_rows_of_its_batch() -> None:
    broken = rows(100)
    broken.rows.numeric[17, 1] = math.inf
    with pytest.raises(TrainingError, match=r"line epoch 1 step (\d): .*that is not finite lie at 17 \(from 0\)"):
        loop.train(session("binary"), Line(), broken, rows(50), schedule())
    with pytest.raises(TrainingError) as caught:
        loop.train(session("binary"), Line(broken_from=2), rows(100), rows(50), schedule())
    first = next(rows(100).batches(32, 1, 1, start=1)).numbers
    assert first is not None
    assert "rows 33 to 64 of the epoch's order (seed 1), which lie at " + str(first[0].item()) in str(caught.value)


def test_a_validation_loss_that_is_never_a_number_is_an_error() -> None:
    judged = rows(50)
    judged.rows.numeric[0] = math.nan
    with pytest.raises(TrainingError, match="line validation: the loss is nan"):
        loop.train(session("regression"), Line(), rows(100), judged, schedule())


def test_training_stops_without_progress_and_keeps_the_best_epoch() -> None:
    heard: list[dict[str, float]] = []
    net, judged = Line(), rows(60, seed=5)
    wrong = judged.taught(1 - judged.target, None)
    listening = session("binary", lambda values: heard.append(dict(values)))
    loop.train(listening, net, rows(200), wrong, schedule(epochs=50, patience=2))
    assert len(heard) == 3, "each epoch is worse than the first: two more, then it stops"
    best = min(row["line_validation"] for row in heard)
    assert loop.validation_loss("binary", loop.predict("binary", net, wrong), wrong.target) == pytest.approx(best)
    assert not net.training


def test_ensemble_members_are_judged_one_by_one() -> None:
    logits = torch.tensor([[[2.0], [-2.0]]])
    alone = [nn.functional.binary_cross_entropy_with_logits(logits[:, i, 0], torch.ones(1)) for i in range(2)]
    assert loop.losses("binary", logits, torch.ones(1)) == pytest.approx(float(sum(alone) / 2))
    shares = torch.tensor([[0.2, 0.8]])
    wide = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    each = [-(shares * wide[:, i].log_softmax(-1)).sum() for i in range(2)]
    assert loop.losses("multiclass", wide, shares) == pytest.approx(float(sum(each) / 2))


def test_the_temperature_undoes_overconfidence() -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(4000, generator=draw) * 2
    target = (torch.rand(4000, generator=draw) < logits.sigmoid()).float()
    assert calibrate.temperature("binary", 3 * logits[:, None], target) == pytest.approx(3, rel=0.1)
    two = torch.stack([torch.zeros(4000), 3 * logits], dim=1)
    shares = torch.stack([1 - target, target], dim=1)
    assert calibrate.temperature("multiclass", two, shares) == pytest.approx(3, rel=0.1)
    assert calibrate.temperature("regression", logits[:, None], target) == 1.0

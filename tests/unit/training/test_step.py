"""One step: its arithmetic, its precision and compilation, its state, and its place among several processes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.spec import Training
from pipelines.training.feed import Batch
from pipelines.training.prepare import MISSING, UNKNOWN
from pipelines.training.step import Step, compiles, hide, losses, precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Net(nn.Module):
    """Two members over two numbers and one category of eight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.words, self.first, self.second = nn.Embedding(8, 3), nn.Linear(5, 16), nn.Linear(16, 2)

    def forward(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:  # noqa: ARG002 (the step's call)
        hidden = self.first(torch.cat([numeric, self.words(codes[:, 0])], dim=1))
        logits: Tensor = self.second(torch.relu(hidden))[:, :, None]
        return logits


def batches(count: int, rows: int = 32) -> list[Batch]:
    draw = torch.Generator().manual_seed(2)
    made = []
    for _ in range(count):
        numeric = torch.randn(rows, 2, generator=draw)
        codes = torch.randint(2, 8, (rows, 1), generator=draw)
        target = (numeric.sum(1) + codes[:, 0] > 5).float()
        made.append(Batch(numeric, torch.zeros(rows, 0), codes, target, torch.rand(rows, generator=draw)))
    return made


def step(net: nn.Module, rows: int = 32, **training: Any) -> Step:
    return Step(
        Training(**training),
        "binary",
        net,
        device=CPU,
        batch_rows=rows,
        learning_rate=0.01,
        weight_decay=0.1,
        pace=lambda at: 1 / (1 + at),
        seed=3,
    )


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_on_a_processor_a_step_is_the_plain_arithmetic_bit_for_bit() -> None:
    mine, plain = Net(), Net()
    improve = step(mine)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: 1 / (1 + at))
    draw = torch.Generator().manual_seed(3)
    for batch in batches(20):
        hidden = torch.rand(batch.codes.shape, generator=draw)
        codes = torch.where(hidden < 0.01, MISSING, batch.codes)
        codes = torch.where(hidden < 0.005, UNKNOWN, codes)
        loss = losses("binary", plain(batch.numeric, batch.missing, codes), batch.target, batch.weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        pace.step()
        assert torch.equal(improve(batch), loss.detach())
    assert torch.equal(weights(mine), weights(plain))


@pytest.mark.parametrize("halved", [False, True])
def test_a_step_that_is_loaded_goes_on_bit_for_bit(halved: bool) -> None:
    net, seen = Net(), batches(8)
    improve = step(net)
    for batch in seen[:4]:
        improve(batch)
    kept, state = {name: tensor.clone() for name, tensor in net.state_dict().items()}, improve.state_dict()
    state = torch.load(_saved(state), weights_only=True)
    for batch in seen[4:]:
        improve(batch)
    other = Net()
    other.load_state_dict(kept)
    again = step(other, rows=16 if halved else 32)
    again.load_state_dict(state)
    for batch in seen[4:]:
        again(batch)
    assert torch.equal(weights(other), weights(net))


def _saved(state: dict[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_bf16_is_for_the_forward_and_backward_pass_and_weights_stay_float32() -> None:
    exact, rounded = Net(), Net()
    first, second = step(exact), step(rounded, precision="bf16")
    differ = []
    for batch in batches(40):
        one, other = first(batch), second(batch)
        assert other.dtype is torch.float32
        differ.append(abs(float(one - other)))
    assert 0 < max(differ) < 0.02
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.float32}
    assert torch.allclose(weights(exact), weights(rounded), atol=0.02)


def test_the_spec_or_the_device_decides_precision_and_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision(Training(), CPU) is torch.float32
    assert precision(Training(precision="bf16"), CPU) is torch.bfloat16
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert precision(Training(), CUDA) is expected
    assert precision(Training(precision="fp32"), CUDA) is torch.float32
    assert [compiles(Training(compile=how), CPU) for how in ("auto", "on", "off")] == [False, True, False]
    assert [compiles(Training(compile=how), CUDA) for how in ("auto", "on", "off")] == [True, True, False]


def test_compiled_steps_learn_the_same_and_a_smaller_last_batch_is_taken_as_well() -> None:
    plain, compiled = Net(), Net()
    first, second = step(plain), step(compiled, compile="on")
    for batch in [*batches(3), *batches(1, rows=9), *batches(2)]:
        assert second(batch).item() == pytest.approx(first(batch).item(), abs=1e-5)
    assert torch.allclose(weights(plain), weights(compiled), atol=1e-5)


def test_hiding_spares_most_codes_and_is_the_same_for_the_same_seed() -> None:
    codes = torch.full((40_000, 3), 7)
    one, again = (hide(codes, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(one, again)
    shares = [float((one == code).float().mean()) for code in (UNKNOWN, MISSING, 7)]
    assert shares == pytest.approx([0.005, 0.005, 0.99], abs=0.001)


def test_a_shard_without_rows_changes_nothing_by_itself() -> None:
    net = Net()
    improve = Step(
        Training(),
        "binary",
        net,
        device=CPU,
        batch_rows=32,
        learning_rate=0.1,
        weight_decay=0.0,
        pace=lambda _: 1,
        seed=1,
    )
    before = weights(net)
    assert improve(batches(1)[0][:0]).item() == 0
    assert torch.equal(weights(net), before)


_PROCESS = """
import sys, torch
from dataclasses import replace
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from pipelines.training.feed import shard
from tests.unit.training.test_step import Net, batches, step, weights
rank, file = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
net = Net()
improve = step(DistributedDataParallel(net), rows=shard(0, 32, rank, 2)[1] - shard(0, 32, rank, 2)[0])
# The hiding is drawn in each process: none here, so that one process has the same codes.
for batch in [*batches(4), *batches(1, rows=9), *batches(1, rows=1)]:
    first, last = shard(0, len(batch), rank, 2)
    part = replace(batch[first:last], share=2 * (last - first) / len(batch))
    improve.improve(part, part.codes)
distributed.destroy_process_group()
torch.save(weights(net), f"{file}.{rank}")
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    file = tmp_path / "meet"
    running = [
        subprocess.Popen([sys.executable, "-c", _PROCESS, str(rank), str(file)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told.decode()
    alone = Net()
    improve = step(alone)
    for batch in [*batches(4), *batches(1, rows=9), *batches(1, rows=1)]:
        improve.improve(batch, batch.codes)
    found = [torch.load(f"{file}.{rank}", weights_only=True) for rank in range(2)]
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], weights(alone), atol=1e-6)

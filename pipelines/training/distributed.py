"""Several processes train one network: a gradient each, then the mean. One process is a team of one, and costs nothing.

A team forms by the usual variables, which torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. It
speaks NCCL between GPUs and gloo between processors. What every process must decide alike (to stop, to keep a
checkpoint, that an epoch was the best) is decided on numbers that all of them hold alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor, nn

from pipelines.errors import TrainingError, explain

#: A process that has not answered for so long is lost: the others fail instead of waiting on.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """The processes of one training, seen from one of them."""

    rank: int = 0
    """Which process this is, from 0."""
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes files: one does."""
        return self.rank == 0

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network whose backward pass leaves the mean of the processes' gradients in every one of them."""
        if self.size == 1:
            return net
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same bits in each."""
        if self.size > 1:
            values = values.to(self.device)
            torch.distributed.all_reduce(values)
            # A reduction may add in another order on each process.
            torch.distributed.broadcast(values, 0)
        return values

    def gather(self, row: Tensor) -> list[Tensor]:
        """Every process's row of bytes ([n] uint8, the same n), in the order of ranks."""
        if self.size == 1:
            return [row]
        rows = [torch.empty_like(row, device=self.device) for _ in range(self.size)]
        torch.distributed.all_gather(rows, row.to(self.device))
        return [other.cpu() for other in rows]

    def share(self, message: bytes | None) -> bytes:
        """What the leader says, in every process. The others' own `message` is not looked at."""
        if self.size == 1:
            return message or b""
        said = message or b""
        length = torch.tensor([len(said)], device=self.device)
        torch.distributed.broadcast(length, 0)
        if self.leads:
            content = torch.frombuffer(bytearray(said or b"\0"), dtype=torch.uint8)[: len(said)].to(self.device)
        else:
            content = torch.empty(int(length.item()), dtype=torch.uint8, device=self.device)
        if len(content):
            torch.distributed.broadcast(content, 0)
        return content.cpu().numpy().tobytes()


@contextmanager
def team(environment: dict[str, str] | None = None) -> Iterator[Team]:
    """The team that this process belongs to, for as long as the block runs.

    Raises:
        TrainingError: the variables of a rendezvous are there in part.
    """
    given = os.environ if environment is None else environment
    size, local = int(given.get("WORLD_SIZE", "1")), int(given.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if size == 1 or torch.distributed.is_initialized():
        # An embedding program's own process group is not ours to train in.
        yield Team(device=device)
        return
    _check(given, ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    if cuda:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Team(rank=torch.distributed.get_rank(), size=size, device=device)
    finally:
        torch.distributed.destroy_process_group()


def _check(given: os._Environ[str] | dict[str, str], names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in given]:
        raise TrainingError(
            explain(
                "several training processes",
                f"WORLD_SIZE is {given['WORLD_SIZE']}, but {', '.join(missing)} are not set",
                remedy="start them with torchrun",
            )
        )

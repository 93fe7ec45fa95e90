"""How rows reach the loop. A feed gives mini-batches in an order of its own for each epoch, each row once, and tiles
in the rows' own order for prediction. Shapes: b rows, v numeric, u indicators, c categorical.

With several processes a mini-batch is cut into one shard a process: their rows together are the mini-batch of one
process, none twice, none left out. A shard of the last, small batch may have no rows: it is given all the same, for
every process must take every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pipelines.training.prepare import Encoded


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded rows on the device, with what the network is to say about them."""

    numeric: Tensor
    """[b, v]"""
    missing: Tensor
    """[b, u]"""
    codes: Tensor
    """[b, c]"""
    target: Tensor
    """Binary [b] in 0..1; multiclass [b, classes] shares; regression [b], standardised."""
    weight: Tensor | None = None
    """[b], mean 1 over the training rows; None where every row weighs the same."""
    share: float = 1.0
    """Factor of this shard's mean loss: processes * rows of the shard / rows of the whole batch. The gradients' mean
    over the processes is then the gradient of the whole batch's mean loss."""
    numbers: Tensor | None = None
    """[b] int64, where the rows lie in the table; None in tiles."""

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        def chosen(column: Tensor) -> Tensor:
            # A third of the time of column[rows] for a mini-batch of a thousand rows.
            return column[rows] if isinstance(rows, slice) else column.index_select(0, rows)

        weight, numbers = (None if column is None else chosen(column) for column in (self.weight, self.numbers))
        return Batch(
            chosen(self.numeric),
            chosen(self.missing),
            chosen(self.codes),
            chosen(self.target),
            weight,
            self.share,
            numbers,
        )


class Feed(Protocol):
    """A table of training or validation rows."""

    def __len__(self) -> int:
        """Rows."""
        ...

    @property
    def target(self) -> Tensor:
        """Every row's target, in the rows' own order."""
        ...

    @property
    def weight(self) -> Tensor | None:
        """Every row's weight, in the rows' own order; None where every row weighs the same."""
        ...

    def batches(
        self, batch_rows: int, seed: int, epoch: int, start: int = 0, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """The mini-batches of an epoch (from 1), from the `start`-th (from 0) on: this process's shard of each.

        The same arguments give the same batches; every batch but the last has `batch_rows` rows over all processes,
        whatever their number, and the shards are those of `shard`.

        Args:
            rank: which process this is, from 0.
            size: how many processes there are.
        """
        ...

    def tiles(self, rows: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Every row, in the rows' own order, by tiles of `rows`; with several processes every `size`-th tile."""
        ...

    def taught(self, target: Tensor, weight: Tensor | None) -> Feed:
        """The same rows with another target and weight."""
        ...


def shard(begin: int, end: int, rank: int, size: int) -> tuple[int, int]:
    """This process's part of the rows from `begin` to `end` of an epoch's order: even to within one row.

    >>> [shard(10, 15, rank, 2) for rank in range(2)]
    [(10, 12), (12, 15)]
    """
    rows = end - begin
    return begin + rows * rank // size, begin + rows * (rank + 1) // size


@dataclass(frozen=True, slots=True)
class Resident:
    """The whole table on the device, once; a batch is a slice of a permutation."""

    rows: Batch

    @classmethod
    def of(cls, encoded: Encoded, target: Tensor, weight: Tensor | None, device: torch.device) -> Resident:
        """Puts encoded rows on the device."""
        return cls(
            Batch(
                torch.from_numpy(encoded.numeric).to(device),
                torch.from_numpy(encoded.missing).to(device),
                torch.from_numpy(encoded.codes).to(device),
                target.to(device, torch.float32),
                None if weight is None else weight.to(device, torch.float32),
            )
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def target(self) -> Tensor:
        """See `Feed.target`."""
        return self.rows.target

    @property
    def weight(self) -> Tensor | None:
        """See `Feed.weight`."""
        return self.rows.weight

    def batches(
        self, batch_rows: int, seed: int, epoch: int, start: int = 0, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """See `Feed.batches`. The permutation is drawn on the processor: it is the same on every device."""
        shuffle = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=shuffle).to(self.rows.target.device)
        for begin in range(start * batch_rows, len(self), batch_rows):
            end = min(begin + batch_rows, len(self))
            first, last = shard(begin, end, rank, size)
            mine = order[first:last]
            yield replace(self.rows[mine], share=size * (last - first) / (end - begin), numbers=mine)

    def tiles(self, rows: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """See `Feed.tiles`."""
        for begin in range(rank * rows, len(self), size * rows):
            yield self.rows[begin : begin + rows]

    def taught(self, target: Tensor, weight: Tensor | None) -> Resident:
        """See `Feed.taught`."""
        return Resident(replace(self.rows, target=target, weight=weight))

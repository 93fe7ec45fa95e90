"""How rows reach the loop. A feed gives mini-batches in an order of its own for each epoch, each row once, and tiles
in the rows' own order for prediction. Shapes: b rows, v numeric, u indicators, c categorical.
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

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        weight = None if self.weight is None else self.weight[rows]
        return Batch(self.numeric[rows], self.missing[rows], self.codes[rows], self.target[rows], weight)


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

    def batches(self, batch_rows: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The mini-batches of an epoch (from 1), from the `start`-th on. The same arguments give the same batches."""
        ...

    def tiles(self, rows: int) -> Iterator[Batch]:
        """Every row, in the rows' own order."""
        ...

    def taught(self, target: Tensor, weight: Tensor | None) -> Feed:
        """The same rows with another target and weight."""
        ...


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

    def batches(self, batch_rows: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See `Feed.batches`."""
        shuffle = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=shuffle).to(self.rows.target.device)
        for begin in range(start * batch_rows, len(self), batch_rows):
            yield self.rows[order[begin : begin + batch_rows]]

    def tiles(self, rows: int) -> Iterator[Batch]:
        """See `Feed.tiles`."""
        for begin in range(0, len(self), rows):
            yield self.rows[begin : begin + rows]

    def taught(self, target: Tensor, weight: Tensor | None) -> Resident:
        """See `Feed.taught`."""
        return Resident(replace(self.rows, target=target, weight=weight))

"""Categories looked up two at a time: one gather of twice the width, where the table of a pair's embeddings is small.

A gather's cost is its calls to copy a few bytes, not the bytes. Of 8 features of 30 words two at a time took half as
long. f features, d numbers an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows of a pair's table at most: in int8 64 KiB, which a core keeps at hand.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which features are looked up together, by their place among the categorical ones."""

    pairs: tuple[tuple[int, int], ...]
    alone: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Every feature once, as their embeddings come out: the pairs', then the others'."""
        return (*(place for pair in self.pairs for place in pair), *self.alone)


def group(cardinalities: Sequence[int]) -> Grouping:
    """As many pairs as there can be, each of at most `_ROWS` combinations: the fewest codes go with the most."""
    waiting = sorted(range(len(cardinalities)), key=lambda place: (cardinalities[place], place))
    pairs, alone = [], []
    while waiting:
        most = waiting.pop()
        if waiting and cardinalities[waiting[0]] * cardinalities[most] <= _ROWS:
            pairs.append((waiting.pop(0), most))
        else:
            alone.append(most)
    return Grouping(tuple(sorted(pairs)), tuple(sorted(alone)))


def pair_table(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two features' embeddings, [a, d] and [b, d], by both codes: row i * b + j of [a * b, 2 d] is i's beside j's."""
    return np.concatenate([np.repeat(first, len(second), axis=0), np.tile(second, (len(first), 1))], axis=1)

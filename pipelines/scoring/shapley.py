"""Shapley values by walks: a feature's value is the mean change of the score when it is put in, over orders of all of
them (Strumbelj and Kononenko, Knowledge and Information Systems 41, 2014). Walked forwards and backwards, an order
gives what two features do together to either in equal parts (antithetic). Whatever the orders, the values sum to the
last score less the first.

Shapes: m features, whatever rows and outputs a score has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Place = TypeVar("Place")


def walked(
    order: Iterable[Place], first: Matrix, last: Matrix, put: Callable[[Place], Matrix]
) -> Iterator[tuple[Place, Matrix]]:
    """How much each feature of an order changes the score.

    Args:
        order: [m], which feature is put in next.
        first: the score before any of them.
        last: the score once all of them are in: it is known, the model is not asked.
        put: puts in one more feature, and gives the score then.
    """
    before, places = first, list(order)
    for position, place in enumerate(places):
        after = put(place) if position < len(places) - 1 else last
        yield place, after - before
        before = after

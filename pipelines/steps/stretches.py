"""Which partitions were read, told by their ends: a year of nights is two keys, not 365."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence


def stretches(held: Sequence[str], used: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The ends, both included, of each unbroken stretch of used keys.

    Args:
        held: every key there is, in order.
        used: some of them.

    >>> stretches(["a", "b", "c", "d"], {"a", "b", "d"})
    (('a', 'b'), ('d', 'd'))
    """
    found: list[tuple[str, str]] = []
    begun = last = None
    for key in held:
        if key in used:
            begun, last = begun or key, key
        elif begun is not None and last is not None:
            found.append((begun, last))
            begun = None
    if begun is not None and last is not None:
        found.append((begun, last))
    return tuple(found)


def within(held: Sequence[str], ends: Iterable[Sequence[str]]) -> list[str]:
    """The keys that lie in any of the stretches, in order; the inverse of `stretches`.

    >>> within(["a", "b", "c", "d"], [("a", "b"), ("d", "d")])
    ['a', 'b', 'd']
    """
    wanted: set[str] = set()
    for first, last in ends:
        wanted.update(held[bisect_left(held, first) : bisect_right(held, last)])
    return [key for key in held if key in wanted]

"""What is frozen of a reference period beside its counts: its days of the week, and how calm its partitions are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines import partitions as keys
from pipelines.backends.psi_calibration import Night, freedom, unrest
from pipelines.backends.psi_distances import psi
from pipelines.counts import added
from pipelines.records import CategoricalReference, ColumnCounts, Counts, NumericReference, Reference, Unrest
from pipelines.spec import UseCase

#: Partitions of a day of the week that are enough to compare with.
_FEWEST_DAYS = 4

_Columns = Mapping[str, ColumnCounts]


def bins(counts: ColumnCounts) -> list[int]:
    """Every bin: of values, of nulls, and of what the reference does not hold."""
    return [*counts.bins, counts.nulls, counts.unseen]


def before(reference: NumericReference | CategoricalReference) -> list[int]:
    """The same of a reference, which holds everything that it holds."""
    held = reference.counts.values() if isinstance(reference, CategoricalReference) else reference.counts
    return [*held, reference.nulls, 0]


def day_of_week(spec: UseCase, partition: str) -> str:
    """The day of the week of a partition, from "1", Monday."""
    return str(keys.start(partition, spec.granularity).isoweekday())


def season(spec: UseCase, reference: Reference, partition: str | None) -> _Columns | None:
    """The counts of a partition's day of the week, where the spec asks for them and there are enough."""
    if spec.drift.season != "week" or partition is None:
        return None
    return reference.days.get(day_of_week(spec, partition))


def calm(spec: UseCase, counts: Mapping[str, Counts], scores: Mapping[str, _Columns]) -> dict[str, Any]:
    """Fields of a `Reference` that tell how far its partitions are from each other.

    Args:
        counts: of the features by partition.
        scores: of `score` by partition.
    """
    ignored = set(spec.drift.ignore)
    features = {
        key: {name: each.columns[name] for name in spec.features.columns if name not in ignored}
        for key, each in counts.items()
    }
    whole = {"unrest": _unrest(features, lambda _: ""), "score_unrest": _unrest(scores, lambda _: "")}
    if spec.drift.season == "none":
        return whole
    days: dict[str, list[Counts]] = {}
    for key, each in counts.items():
        days.setdefault(day_of_week(spec, key), []).append(each)
    enough = {day: held for day, held in days.items() if len(held) >= _FEWEST_DAYS}
    return {
        **whole,
        "days": {
            day: {name: added([each.columns[name] for each in held]) for name in spec.features.columns}
            for day, held in sorted(enough.items())
        },
        "daily_unrest": _unrest(
            {key: columns for key, columns in features.items() if day_of_week(spec, key) in enough},
            lambda key: day_of_week(spec, key),
        ),
    }


def _unrest(columns: Mapping[str, _Columns], group: Callable[[str], str]) -> Unrest | None:
    """Each partition against the others of its group; partitions without rows, or alone in it, tell nothing."""
    groups: dict[str, list[str]] = {}
    for key, held in columns.items():
        if held and any(map(sum, map(bins, held.values()))):
            groups.setdefault(group(key), []).append(key)
    nights = []
    for members in groups.values():
        if len(members) < 2:
            continue
        names = list(columns[members[0]])
        totals = {name: [sum(place) for place in zip(*(bins(columns[key][name]) for key in members), strict=True)]
                  for name in names}  # fmt: skip
        nights += [_night({name: bins(columns[key][name]) for name in names}, totals) for key in members]
    return unrest(nights)


def _night(mine: Mapping[str, list[int]], totals: Mapping[str, list[int]]) -> Night:
    others = {name: [all_ - own for all_, own in zip(totals[name], mine[name], strict=True)] for name in mine}
    first = next(iter(mine))
    return Night(
        rows=sum(mine[first]),
        others=sum(others[first]),
        psi={name: psi(others[name], mine[name]) for name in mine},
        freedom={name: freedom(others[name], mine[name]) for name in mine},
    )

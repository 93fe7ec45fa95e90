"""Which model scores which night: the champion, a version by its number, or the one that was champion when it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import ModelRef, Promotion
from pipelines.spec import UseCase
from pipelines.steps.promotion import champion
from pipelines.steps.promotions import promotions

CHAMPION, AS_OF = "champion", "as-of"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Models, and the nights that each of them scores."""

    models: tuple[tuple[ModelRef, tuple[str, ...]], ...]
    """Each model once with its partitions in order; the models in the order of their first partitions."""
    without: tuple[str, ...] = ()
    """Partitions for which there is no model: they ran before the first champion."""
    named: bool = False
    """Whether somebody asked for a version by its number."""


def parse(model: str | int) -> str | int:
    """`champion`, `as-of`, or a version's number.

    Raises:
        NotFoundError: it is none of these.

    >>> parse("7"), parse("as-of")
    (7, 'as-of')
    """
    text = str(model)
    if text in (CHAMPION, AS_OF):
        return text
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0:
        return int(text)
    raise NotFoundError(
        explain("model", f"{text[:40]!r} names none", allowed=f"{CHAMPION}, {AS_OF}, or a version's number")
    )


def choose(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, partitions: Sequence[str], model: str | int
) -> Chosen:
    """Resolves which model scores each partition.

    Args:
        model: `champion`: the present one scores all; a number: that version does; `as-of`: each partition's is the one
            that was champion when its night ran, see `reigning`.

    Raises:
        NotFoundError: there is no champion, none had been when any of these nights ran, or a version is no longer in
            the registry.
        IntegrityError: the registry knows a promoted version as another run's.
    """
    nights, wanted = tuple(sorted(set(partitions))), parse(model)
    if isinstance(wanted, int):
        return Chosen(models=((registry.get(wanted), nights),), named=True)
    if wanted == AS_OF:
        return _as_of(spec, store, registry, nights)
    found = champion(store, registry)
    if found is None:
        raise NotFoundError(explain(spec.name, "there is no champion yet", remedy="run the training first"))
    return Chosen(models=((found, nights),))


def reigning(log: Sequence[Promotion], partition: str) -> Promotion | None:
    """The entry of the promotion log that was the newest one when a partition's night ran; None before the first.

    An entry with `as_of` K was made when night K was over, by a training that had read it: it holds from K + 1 on. One
    that was made later than that, a person's late yes or a rollback, holds from the night after `last_night` on. No
    entry holds before the one that it followed, whatever it says itself; of several that begin together the last holds.

    Args:
        log: oldest epoch first.
    """
    found, begun = None, ""
    for entry in log:
        begun = max(begun, entry.as_of, entry.last_night)
        if partition <= begun:
            break
        found = entry
    return found


def _as_of(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, nights: Sequence[str]) -> Chosen:
    log = promotions(store)
    reigns = {night: reigning(log, night) for night in nights}
    without = tuple(night for night, entry in reigns.items() if entry is None)
    if nights and len(without) == len(nights):
        first = f"the first became it as of {log[0].as_of}" if log else "there is none yet"
        raise NotFoundError(
            explain(
                f"{spec.name}: model as of the night",
                f"there was no champion when {_few(without)} ran: {first}",
                remedy=f"name a version, or `{CHAMPION}`",
            )
        )
    # Two trainings may have been given one number, one after the other: a version is a number and its run.
    groups: dict[tuple[int, str], list[str]] = {}
    for night, entry in reigns.items():
        if entry is not None:
            groups.setdefault((entry.version, entry.trained_by), []).append(night)
    models = tuple(
        (_promoted(spec, registry, version, run_id, mine), tuple(mine)) for (version, run_id), mine in groups.items()
    )
    return Chosen(models=models, without=without)


def _promoted(spec: UseCase, registry: ModelRegistry, version: int, run_id: str, nights: Sequence[str]) -> ModelRef:
    """A version of the log. The registry is asked, not this machine's cache: every machine must find the same."""
    where = f"{spec.name}@{version}"
    told = f"it was champion when {_few(nights)} ran"
    try:
        found = registry.get(version)
    except NotFoundError as error:
        raise NotFoundError(
            explain(
                where,
                f"{told}, and is no longer in the registry ({error})",
                remedy="score these nights with another version, by its number",
            )
        ) from None
    if run_id and found.run_id != run_id:
        raise IntegrityError(
            explain(
                where,
                f"{told}, as a model of run {run_id}; the registry says that run {found.run_id} made it",
                remedy="see who changed the registry; score these nights with another version, by its number",
            )
        )
    return found


def _few(nights: Sequence[str]) -> str:
    shown = f"{nights[0]}..{nights[-1]}" if len(nights) > 1 else nights[0]
    return shown if len(nights) <= 2 else f"{shown} ({len(nights)})"

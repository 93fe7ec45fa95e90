"""The state of each night, from what the store, the landing zone and the clock say. Reads, and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pipelines import partitions as keys
from pipelines.ports import DataSource, SnapshotStore
from pipelines.records import Commit, Night, NightScores, PublishedPartition, Quarantined
from pipelines.spec import UseCase
from pipelines.steps.inputs import REPLACES, fingerprint, input_digests, used
from pipelines.steps.predictions import PREDICTIONS, published_predictions


def span(spec: UseCase, store: SnapshotStore, source: DataSource, now: datetime) -> list[str]:
    """Every partition from the first that anything is known of to the last whose run was due by now.

    The last is `until` where the source has stopped, and the last that anything is known of where that is later.
    """
    known = {*source.partitions(spec, "rows"), *(entry.partition for entry in store.quarantined("rows"))}
    known.update(_held(store, "rows"), _held(store, PREDICTIONS))
    if not known:
        return []
    ticked = keys.of(now, spec.granularity)
    while keys.tick(ticked, spec.schedule, spec.granularity) > now:
        ticked = keys.shift(ticked, -1, spec.granularity)
    ends = ticked if spec.until is None else min(ticked, spec.until)
    return keys.span(min(known), max(*known, ends), spec.granularity)


def nights(
    spec: UseCase, store: SnapshotStore, source: DataSource, partitions: Sequence[str], now: datetime
) -> tuple[Night, ...]:
    """The state of each partition, in the order in which they are given.

    Raises:
        SpecError: a partition's key is malformed, or the schedule's ticks are not one a partition.
    """
    seen = _Seen.look(spec, store, source)
    return tuple(_night(spec, seen, partition, now) for partition in partitions)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Everything that is looked up once for all nights."""

    landed: frozenset[str]
    rows: Mapping[str, PublishedPartition]
    brought: Mapping[str, Commit]
    """The commit that brought a partition's present rows."""
    labels: Mapping[str, PublishedPartition]
    scores: Mapping[str, PublishedPartition]
    made: Mapping[str, Mapping[str, Any]]
    """See `published_predictions`."""
    scored: Mapping[str, Commit]
    """The publish that made a partition's present predictions."""
    times: Mapping[str, int]
    """How many times a partition's predictions were published."""
    aside: Mapping[str, Quarantined]
    """The newest rows of a partition in quarantine."""
    refused: Mapping[str, Quarantined]
    """The newest scores of a partition in quarantine."""
    inputs: Mapping[str, str]
    """Fingerprint of what a partition's features read now; empty while a context table is not there at all."""

    @classmethod
    def look(cls, spec: UseCase, store: SnapshotStore, source: DataSource) -> _Seen:
        rows = _held(store, "rows")
        scored, times = publishes(store, PREDICTIONS)
        return cls(
            landed=frozenset(source.partitions(spec, "rows")),
            rows=rows,
            brought=publishes(store, "rows")[0],
            labels=_held(store, spec.label.table),
            scores=_held(store, PREDICTIONS),
            made=published_predictions(store),
            scored=scored,
            times=times,
            aside=_newest(store, "rows"),
            refused=_newest(store, PREDICTIONS),
            inputs=_fingerprints(spec, store, rows),
        )


def _held(store: SnapshotStore, table: str) -> dict[str, PublishedPartition]:
    head = store.head(table)
    return {} if head is None else store.partitions(head)


def publishes(store: SnapshotStore, table: str) -> tuple[dict[str, Commit], Counter[str]]:
    """The publish that made each partition's present bytes, and how many times each was published.

    A revert makes nothing: it brings back what a publish made. An erasure takes rows away from what one made.
    """
    now: dict[str, str | None] = {}
    found: dict[str, Commit] = {}
    times: Counter[str] = Counter()
    for commit in store.history(table):  # newest first: the first word on a partition is the last
        for partition in commit.removed:
            now.setdefault(partition, None)
        for partition, digest in commit.partitions.items():
            times[partition] += commit.kind == "publish"
            if now.setdefault(partition, digest) != digest:
                continue
            if commit.kind == "erase":
                now[partition] = commit.provenance.get(REPLACES, {}).get(partition, digest)
            elif commit.kind == "publish":
                found.setdefault(partition, commit)
    return found, times


def _newest(store: SnapshotStore, table: str) -> dict[str, Quarantined]:
    found: dict[str, Quarantined] = {}
    for entry in store.quarantined(table):
        former = found.get(entry.partition)
        if former is None or former.at is None or (entry.at is not None and entry.at >= former.at):
            found[entry.partition] = entry
    return found


def _fingerprints(spec: UseCase, store: SnapshotStore, rows: Mapping[str, PublishedPartition]) -> dict[str, str]:
    heads = {table: store.head(table) for table in dict.fromkeys(("rows", *spec.context))}
    digests = {table: input_digests(store, head) for table, head in heads.items() if head is not None}
    if len(digests) < len(heads):
        return {}
    return {partition: fingerprint(used(spec, digests, partition)) for partition in rows}


def _night(spec: UseCase, seen: _Seen, partition: str, now: datetime) -> Night:
    run = keys.shift(partition, spec.rows.lag, spec.granularity)  # the ingest run that takes it
    tick = keys.tick(run, spec.schedule, spec.granularity)
    published, scores = seen.rows.get(partition), _scores(seen, partition)
    aside = _failed(seen.aside.get(partition), seen.brought.get(partition) if published else None)
    minutes = spec.scoring.deadline_minutes
    deadline = tick + timedelta(minutes=minutes) if minutes is not None else None
    found: Literal["ingested", "quarantined", "landed", "missing", "to_come"] = (
        "ingested"
        if published
        else "quarantined"
        if aside
        else "landed"
        if partition in seen.landed
        else "missing"
        if tick <= now
        else "to_come"
    )
    labels = seen.labels.get(partition)
    brought = seen.brought.get(partition) if published else None
    return Night(
        partition=partition,
        input=found,
        rows=published.rows if published else None,
        snapshot=brought.snapshot.id if brought else None,
        quarantined=aside,
        gap=published is None and partition < max(seen.rows, default=""),
        labels="published" if labels else "late" if _labels_due(spec, partition) <= now else "to_come",
        label_rows=labels.rows if labels else None,
        scores=scores,
        due=_due(seen, partition) if published else None,
        refused=_failed(seen.refused.get(partition), seen.scored.get(partition) if scores else None),
        deadline=deadline,
        late=deadline is not None and deadline < now and scores is None,
    )


def _labels_due(spec: UseCase, partition: str) -> datetime:
    """When the ingest run is due that takes this partition's labels."""
    run = keys.shift(partition, spec.tables[spec.label.table].lag, spec.granularity)
    return keys.tick(run, spec.schedule, spec.granularity)


def _failed(entry: Quarantined | None, published: Commit | None) -> tuple[str, ...]:
    """What is wrong with what lies in quarantine; nothing where something better was published since."""
    if entry is None or (published is not None and (entry.at is None or entry.at <= published.at)):
        return ()
    return tuple(
        f"{check.name}{f' {check.column}' if check.column else ''}: {check.observed}" for check in entry.report.failed
    )


def _scores(seen: _Seen, partition: str) -> NightScores | None:
    part, commit = seen.scores.get(partition), seen.scored.get(partition)
    if part is None or commit is None:
        return None
    model, told = seen.made.get(partition, {}).get("model"), commit.provenance.get("scored_at")
    return NightScores(
        model=None if model is None else int(model),
        rows=part.rows,
        digest=part.digest,
        snapshot=commit.snapshot.id,
        scored_at=datetime.fromisoformat(told) if told else None,
        published_at=commit.at,
        run=commit.run,
        restated=seen.times[partition] - 1,
    )


def _due(seen: _Seen, partition: str) -> Literal["never scored", "input restated"] | None:
    if partition not in seen.scores:
        return "never scored"
    made = seen.made.get(partition, {}).get("inputs")
    return "input restated" if seen.inputs and made != seen.inputs[partition] else None

"""Parts of the rows over a window: how good the scores of each are, and whom they decide for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from pipelines.ports import SnapshotStore
from pipelines.records import GroupRates, SliceQuality, SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.features import build_features
from pipelines.steps.predictions import DECISION, PREDICTIONS
from pipelines.steps.watching.quality import measured

#: Values of a column that are kept, the most frequent ones.
_KEPT = 20


def slices(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    scores: pl.DataFrame,
    rows: pl.DataFrame,
) -> tuple[SliceQuality, ...]:
    """Quality by the values of `features.slices`, those with `drift.min_rows` labelled rows, twenty a column at most.

    Args:
        scores: of mature partitions, labelled or not.
        rows: the labelled ones, as `labelled_scores` gives them.
    """
    columns = list(spec.features.slices)
    if not columns or rows.is_empty():
        return ()
    on = ["partition", *spec.rows.key]
    judged = rows.get_column("partition").unique().sort().to_list()
    features = build_features(spec, store, snapshots, judged).select(*on, *columns).collect()
    mine, theirs = (frame.join(features, on=on, how="inner", maintain_order="left") for frame in (rows, scores))
    found = []
    for column in columns:
        counts = mine.get_column(column).drop_nulls().value_counts().sort(["count", column], descending=[True, False])
        for value, labels in counts.filter(pl.col("count") >= spec.drift.min_rows).head(_KEPT).iter_rows():
            same = mine.filter(pl.col(column) == value)
            held = theirs.filter(pl.col(column) == value).height
            quality = measured(spec, same)
            found.append(SliceQuality(column=column, value=str(value), rows=held, labels=labels, quality=quality))
    return tuple(found)


def fairness(
    spec: UseCase, store: SnapshotStore, snapshots: Mapping[str, SnapshotRef], version: int, scored: Sequence[str]
) -> tuple[GroupRates, ...]:
    """Share of rows decided for, by group of each of `gates.fairness.columns`, over the scored partitions.

    Args:
        version: of the model whose decisions count.
    """
    asked = spec.gates.fairness
    if not asked.columns or not scored:
        return ()
    on = ["partition", *spec.rows.key]
    decided = store.scan(snapshots[PREDICTIONS], scored).filter(pl.col("model_version") == version)
    groups = store.scan(snapshots["rows"], scored, list(dict.fromkeys([*spec.rows.key, *asked.columns])))
    rows = decided.select(*on, DECISION).join(groups, on=on, how="inner").collect()
    found = []
    for column in asked.columns:
        rates = (
            rows.group_by(pl.col(column).cast(pl.String).fill_null("(null)").alias("group"))
            .agg(pl.len(), pl.col(DECISION).mean().alias("rate"))
            .filter(pl.col("len") >= asked.min_rows)
            .sort(["len", "group"], descending=[True, False])
            .head(_KEPT)
        )
        selected = {group: float(rate) for group, _, rate in rates.sort("group").iter_rows()}
        most = max(selected.values(), default=0.0)
        ratio = min(selected.values()) / most if len(selected) > 1 and most else None
        found.append(GroupRates(column=column, selected=selected, ratio=ratio))
    return tuple(found)

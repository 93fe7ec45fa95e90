"""One way from published tables to features, for training and for scoring alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from pipelines import features as functions
from pipelines import partitions as keys
from pipelines.errors import SchemaMismatch, SpecError, explain
from pipelines.ports import STATIC, SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.spec import UseCase
from pipelines.steps.agreement import check_rows


def context_keys(spec: UseCase, table: str, partitions: Sequence[str], held: Sequence[str]) -> list[str]:
    """The partitions of a context table that features of `partitions` read: those, and `lookback` before them."""
    if spec.tables[table].static:
        return [STATIC]
    back = range(-spec.features.lookback, 1)
    wanted = {keys.shift(partition, by, spec.granularity) for partition in partitions for by in back}
    return sorted(wanted & set(held))


def build_features(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    partitions: Sequence[str],
) -> pl.LazyFrame:
    """The features of whole partitions, row for row in the snapshot's order.

    Args:
        snapshots: the snapshot of `rows` and of each context table, by table.

    Returns:
        `partition`, the key columns, the event time when the spec names one, then every feature: numeric ones as
        Float32, categorical ones as String.

    Raises:
        NotFoundError: a partition is not in the snapshot of `rows`.
        SchemaMismatch: the rows lack a column, or have it in another type; or the feature function did not give one
            that the spec declares.
    """
    rows = store.scan(snapshots["rows"], partitions)
    check_rows(spec, rows.collect_schema())
    context = {}
    for table in spec.context:
        held = list(store.partitions(snapshots[table]))
        context[table] = store.scan(snapshots[table], context_keys(spec, table, partitions, held)).drop("partition")
    built = rows
    if spec.features.function is not None:
        if spec.rows.event_time is None:
            raise SpecError(explain(spec.name, "a feature function needs tables.rows.event_time"))
        try:
            function = functions.load(spec.features.function)
        except LookupError as error:
            raise SpecError(explain(f"{spec.name}: features.function", str(error))) from None
        built = function(rows, context, event_time=spec.rows.event_time, lead=spec.features.lead)
    missing = set(spec.features.columns) - set(built.collect_schema())
    if missing:
        raise SchemaMismatch(
            explain(
                f"{spec.name}: features",
                f"no column {', '.join(sorted(missing))}",
                allowed=", ".join(built.collect_schema()),
                remedy="correct features in the spec, or the function",
            )
        )
    names = spec.features
    front = dict.fromkeys(["partition", *spec.rows.key, *([spec.rows.event_time] if spec.rows.event_time else [])])
    return built.select(
        *(pl.col(name) for name in front if name not in names.columns),
        *(_number(name, built.collect_schema()[name]) for name in names.numeric),
        *(pl.col(name).cast(pl.String) for name in names.categorical),
    )


def _number(name: str, dtype: pl.DataType) -> pl.Expr:
    """Timestamps become seconds since 1970 (UTC); everything else is cast."""
    if isinstance(dtype, pl.Datetime):
        return (pl.col(name).dt.epoch("us") / 1e6).cast(pl.Float32)
    return pl.col(name).cast(pl.Float32)


def labelled(spec: UseCase, labels: pl.LazyFrame, *carried: pl.Expr) -> pl.LazyFrame:
    """Partition, key columns and `label`: 0 or 1 (binary), the class's index (multiclass) or the value (regression).

    Rows without a label (null) are left out: they have no outcome.

    Args:
        carried: more columns of the label's table.

    Raises:
        SpecError: a multiclass label is none of `label.classes`.
    """
    raw = pl.col(spec.label.column)
    known = labels.filter(raw.is_not_null())
    if spec.label.task == "binary":
        positive = spec.label.positive
        assert positive is not None
        value = (raw > positive.above) if positive.above is not None else (raw == positive.equals)
    elif spec.label.task == "multiclass":
        _check_classes(spec, known.select(raw.cast(pl.String)))
        value = raw.cast(pl.String).replace_strict(
            {name: float(index) for index, name in enumerate(spec.label.classes)}, return_dtype=pl.Float64
        )
    else:
        value = raw
    return known.select("partition", *spec.rows.key, value.cast(pl.Float32).alias("label"), *carried)


def _check_classes(spec: UseCase, labels: pl.LazyFrame) -> None:
    name = spec.label.column
    strange = labels.filter(~pl.col(name).is_in(spec.label.classes)).unique().collect().get_column(name).sort()
    if len(strange):
        shown = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        few = len(spec.label.classes) <= 20
        raise SpecError(
            explain(
                f"{spec.name}: {spec.label.table} column {name!r}",
                f"{len(strange)} values are no classes: {shown}",
                allowed=", ".join(spec.label.classes) if few else f"the {len(spec.label.classes)} label.classes",
                remedy="name them in label.classes, or join the rare ones in one class before they land",
            )
        )

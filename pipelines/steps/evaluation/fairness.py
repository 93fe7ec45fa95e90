"""What the challenger decides between the groups of each sensitive column.

Sensitive columns need not be features: they are read here, from the snapshot that the holdout was read from, joined by
partition and key, and written nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.errors import NotFoundError, SpecError, explain
from pipelines.steps.evaluation.meeting import Meeting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Most distinct values of a sensitive column, null among them: more are no groups.
MOST_GROUPS = 100


def fairness(meeting: Meeting) -> Mapping[str, Any]:
    """One record a column of `gates.fairness.columns`, on all holdout rows, by the artifact's own threshold.

    Raises:
        NotFoundError: a holdout row is not in the snapshot.
        SpecError: a column has too many values.
    """
    asked = meeting.spec.gates.fairness
    if not asked.columns:
        return {"fairness": ()}
    decisions = meeting.engine.decide(meeting.scores)
    if decisions is None:
        raise SpecError(explain(f"{meeting.spec.name}: fairness", "the artifact decides nothing: it is not binary"))
    sensitive = _sensitive(meeting, asked.columns)
    found = []
    for column in asked.columns:
        values, codes = _groups(meeting.spec.name, column, sensitive.get_column(column))
        labels = meeting.labels > 0.5
        found.append(meeting.auditor.audit(column, values, codes, labels, decisions, asked.min_rows))
    return {"fairness": tuple(found)}


def _sensitive(meeting: Meeting, columns: Sequence[str]) -> pl.DataFrame:
    """The sensitive columns of the holdout's rows, in their order."""
    rows, key = next(ref for ref in meeting.holdout.snapshots if ref.table == "rows"), list(meeting.spec.rows.key)
    mine = meeting.frame.select("partition", *key)
    partitions = mine.get_column("partition").unique().sort().to_list()
    theirs = meeting.store.scan(rows, partitions, list(dict.fromkeys([*key, *columns]))).with_columns(
        pl.lit(True).alias("__held")
    )
    # A key may be sensitive too, and is in `mine` already.
    joined = mine.lazy().join(theirs, on=["partition", *key], how="left", maintain_order="left").collect()
    if joined.height != mine.height or joined.get_column("__held").null_count():
        raise NotFoundError(
            explain(
                f"{meeting.spec.name}: fairness",
                f"the {mine.height} holdout rows are not, each once, among those of {rows.id}",
                remedy="train again: the holdout is then read from a snapshot that holds its rows",
            )
        )
    return joined.select(columns)


def _groups(use_case: str, column: str, values: pl.Series) -> tuple[list[str | None], NDArray[np.integer]]:
    """The distinct values as text, and each row's place among them."""
    text = values.cast(pl.String)
    distinct = text.unique(maintain_order=True)
    if distinct.len() > MOST_GROUPS:
        raise SpecError(
            explain(
                f"{use_case}: gates.fairness.columns: {column}",
                f"{distinct.len()} distinct values on the holdout",
                allowed=f"at most {MOST_GROUPS}",
                remedy="name a column of groups: bands of an age, not birthdays",
            )
        )
    places = pl.DataFrame({column: distinct}).with_row_index("__place")
    codes = text.to_frame(column).join(places, on=column, how="left", nulls_equal=True, maintain_order="left")
    return distinct.to_list(), codes.get_column("__place").to_numpy()

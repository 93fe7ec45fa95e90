"""Fairness by Fairlearn: selection rates and equalised odds between the groups of a sensitive column."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.records import Fairness, Group


class Fairlearn:
    """The auditor."""

    def audit(
        self,
        column: str,
        groups: Sequence[str | None],
        labels: Sequence[bool],
        decisions: Sequence[bool],
        min_rows: int,
    ) -> Fairness:
        """See `FairnessAuditor.audit`. A null is a group of its own."""
        from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate

        places = {value: i for i, value in enumerate(Counter(groups))}
        frame = MetricFrame(
            metrics={
                "rows": count,
                "selection": selection_rate,
                "true_positive": true_positive_rate,
                "false_positive": false_positive_rate,
            },
            y_true=list(labels),
            y_pred=list(decisions),
            # Words may be anything, null among them: Fairlearn is given their places.
            sensitive_features=[places[value] for value in groups],
        ).by_group
        positives = Counter(value for value, label in zip(groups, labels, strict=True) if label)
        found = tuple(
            _group(value, frame.loc[place], positives[value], min_rows)
            for value, place in sorted(places.items(), key=lambda item: (item[0] is None, item[0] or ""))
        )
        judged = [group for group in found if group.judged]
        rates = [group.selection_rate for group in judged]
        enough = len(judged) > 1
        return Fairness(
            column=column,
            groups=found,
            selection_ratio=(min(rates) / max(rates) if max(rates) > 0 else 1.0) if enough else None,
            odds_difference=_odds_difference(judged) if enough else None,
        )


def _group(value: str | None, row: Any, positives: int, min_rows: int) -> Group:
    rows = int(row["rows"])
    return Group(
        value=value,
        rows=rows,
        selection_rate=float(row["selection"]),
        # Fairlearn gives 0 where there is nothing to be right or wrong about.
        true_positive_rate=float(row["true_positive"]) if positives else None,
        false_positive_rate=float(row["false_positive"]) if positives < rows else None,
        judged=rows >= min_rows,
    )


def _odds_difference(groups: Sequence[Group]) -> float:
    """The greater of both spans (Hardt et al., arXiv 1610.02413, as Fairlearn has it)."""
    spans = [0.0]
    for rates in ([g.true_positive_rate for g in groups], [g.false_positive_rate for g in groups]):
        known = [rate for rate in rates if rate is not None and math.isfinite(rate)]
        if known:
            spans.append(max(known) - min(known))
    return max(spans)

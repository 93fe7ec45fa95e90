"""Fairness by Fairlearn: selection rates and equalised odds between the groups of a sensitive column. n rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.records import Fairness, Group

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Fairlearn:
    """The auditor."""

    def audit(
        self,
        column: str,
        values: Sequence[str | None],
        codes: NDArray[np.integer],
        labels: NDArray[np.bool_],
        decisions: NDArray[np.bool_],
        min_rows: int,
    ) -> Fairness:
        """See `FairnessAuditor.audit`.

        Fairlearn is given each combination of group, label and decision once, weighted by its rows: the rates are the
        same, and 200,000 rows take it no longer than a hundred.
        """
        import numpy as np
        from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate

        cells = np.bincount(4 * codes.astype(np.int64) + 2 * labels + decisions, minlength=4 * len(values))
        # Four of each group, some of no weight: Fairlearn's selection rate of one lone row is no number but an array.
        kinds = np.flatnonzero(np.repeat(cells.reshape(-1, 4).any(axis=1), 4))
        metrics = {
            "selection": selection_rate,
            "true_positive": true_positive_rate,
            "false_positive": false_positive_rate,
        }
        rates = MetricFrame(
            metrics=metrics,
            y_true=kinds // 2 % 2,
            y_pred=kinds % 2,
            sensitive_features=kinds // 4,
            sample_params={name: {"sample_weight": cells[kinds]} for name in metrics},
        ).by_group
        by_label = cells.reshape(-1, 2, 2).sum(axis=2)
        found = [_group(values[code], rates.loc[code], by_label[code], min_rows) for code in rates.index]
        judged = [group for group in found if group.judged]
        return Fairness(
            column=column,
            groups=tuple(sorted(found, key=lambda group: (group.value is None, group.value or ""))),
            selection_ratio=_ratio([group.selection_rate for group in judged]),
            odds_difference=_widest(
                _span(group.true_positive_rate for group in judged),
                _span(group.false_positive_rate for group in judged),
            ),
        )


def _group(value: str | None, rates: Any, rows: NDArray[np.integer], min_rows: int) -> Group:
    negatives, positives = map(int, rows)
    return Group(
        value=value,
        rows=negatives + positives,
        selection_rate=float(rates["selection"]),
        # Fairlearn gives 0 where there is nothing to be right or wrong about.
        true_positive_rate=float(rates["true_positive"]) if positives else None,
        false_positive_rate=float(rates["false_positive"]) if negatives else None,
        judged=negatives + positives >= min_rows,
    )


def _ratio(rates: Sequence[float]) -> float | None:
    """The lowest divided by the highest; 1 where nobody is selected, None where there is nothing to compare."""
    if len(rates) < 2:
        return None
    return min(rates) / max(rates) if max(rates) > 0 else 1.0


def _span(rates: Iterable[float | None]) -> float | None:
    """The highest less the lowest of those that there are; None where that is fewer than two."""
    known = [rate for rate in rates if rate is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _widest(*spans: float | None) -> float | None:
    """The greater of both spans (equalised odds: Hardt et al., arXiv 1610.02413)."""
    return max((span for span in spans if span is not None), default=None)

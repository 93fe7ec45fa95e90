"""Whether the challenger decides alike between the groups of each sensitive column."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.policies.gates.rules import ROUNDING, unmeasured, verdict
from pipelines.records import Evaluation, Fairness, Gate, Group
from pipelines.spec import UseCase
from pipelines.spec.gates import FairnessGate

NAME = "fairness"
#: Most groups that a reason lists by name.
_SHOWN = 5


def fairness(evaluation: Evaluation, spec: UseCase) -> Gate:
    """Selection ratio and odds difference within bounds for every declared column."""
    asked = spec.gates.fairness
    if not asked.columns:
        return verdict(NAME, True, "no sensitive column is declared")
    if evaluation.fairness is None:
        return unmeasured(evaluation, NAME, "fairness")
    measured = {found.column: found for found in evaluation.fairness}
    judged = [_column(name, measured.get(name), asked) for name in asked.columns]
    return verdict(NAME, all(passed for passed, _ in judged), "; ".join(reason for _, reason in judged))


def _column(name: str, found: Fairness | None, asked: FairnessGate) -> tuple[bool, str]:
    """Whether a column passes, and the reason."""
    if found is None:
        return False, f"{name}: not measured"
    groups = [group for group in found.groups if group.judged]
    small = _small([group for group in found.groups if not group.judged], asked.min_rows)
    if len(groups) < 2:
        return False, f"{name}: {len(groups)} of two groups of {asked.min_rows} rows or more, to be compared{small}"
    ratio, difference = found.selection_ratio, found.odds_difference
    if ratio is None or not math.isfinite(ratio) or difference is None or not math.isfinite(difference):
        return False, f"{name}: selection ratio {ratio}, odds difference {difference}: not to be compared{small}"
    selection = (
        f"selection ratio {ratio:.4f}{_ends(groups, lambda group: group.selection_rate)}, "
        f"at least {asked.min_selection_ratio:.4f} is asked for"
    )
    odds = f"odds difference {difference:.4f}{_odds(groups)}, at most {asked.max_odds_difference:.4f} is accepted"
    passed = ratio >= asked.min_selection_ratio - ROUNDING and difference <= asked.max_odds_difference + ROUNDING
    return passed, f"{name}: {selection}; {odds}{small}"


def _odds(groups: Sequence[Group]) -> str:
    """The groups furthest apart, by whichever rate has them further apart."""
    told = {
        "true positives": lambda group: group.true_positive_rate,
        "false positives": lambda group: group.false_positive_rate,
    }
    widest = max(told, key=lambda name: _span(groups, told[name]))
    return f" of {widest}{_ends(groups, told[widest])}"


def _span(groups: Sequence[Group], rate: Callable[[Group], float | None]) -> float:
    known = _known(groups, rate)
    return known[-1][0] - known[0][0] if known else 0.0


def _ends(groups: Sequence[Group], rate: Callable[[Group], float | None]) -> str:
    """The lowest and the highest rate, and whose they are."""
    known = _known(groups, rate)
    (low, lowest), (high, highest) = known[0], known[-1]
    return f" ({lowest} {low:.4f}, {highest} {high:.4f})"


def _known(groups: Sequence[Group], rate: Callable[[Group], float | None]) -> list[tuple[float, str]]:
    """Rates with the group's value, lowest first."""
    return sorted((value, _shown(group.value)) for group in groups if (value := rate(group)) is not None)


def _small(groups: Sequence[Group], min_rows: int) -> str:
    if not groups:
        return ""
    named = ", ".join(f"{_shown(group.value)} {group.rows}" for group in groups[:_SHOWN])
    more = f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    return f"; not judged, fewer than {min_rows} rows: {named}{more}"


def _shown(value: str | None) -> str:
    return "null" if value is None else value if len(value) <= 40 else value[:39] + "…"

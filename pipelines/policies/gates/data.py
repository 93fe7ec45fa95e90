"""Whether the data that a challenger learned from is what passed its audit."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.policies.gates.rules import unmeasured, verdict
from pipelines.records import Evaluation, Gate
from pipelines.spec import UseCase

_SHOWN = 5


def data(evaluation: Evaluation, spec: UseCase) -> Gate:  # noqa: ARG001 (a rule's signature)
    """Every partition that was read was published with a passing audit, and none of them lies in quarantine."""
    found = evaluation.data
    if found is None:
        return unmeasured(evaluation, "data", "data")
    if found.partitions < 1:
        return verdict("data", False, "the training names no partition that it read")
    wrong = []
    if found.unaudited:
        wrong.append(f"{len(found.unaudited)} without a passing audit of these bytes: {_shown(found.unaudited)}")
    if found.quarantined:
        wrong.append(f"{len(found.quarantined)} in quarantine: {_shown(found.quarantined)}")
    read = f"of {found.partitions} partitions that the training read"
    return verdict("data", not wrong, f"{read}, {'; '.join(wrong) or 'all had passed their audit'}")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

"""Evaluation, gates and the promotion log."""

from __future__ import annotations

from typing import Literal

from pipelines.records.base import Record, RunInfo
from pipelines.records.training import Scorecard


class Evaluation(Record):
    """Champion and challenger on the same holdout."""

    use_case: str
    metric: str
    greater_is_better: bool
    holdout: tuple[str, str]
    rows: int
    challenger: Scorecard
    champion: Scorecard | None
    champion_version: int | None
    others: tuple[Scorecard, ...]
    """teacher, student_fp32, lightgbm, constant."""
    single_features: dict[str, float] = {}
    """What each feature says about the label by itself, on the training rows: see `gates.max_single_feature`. Empty
    where nobody measured it, which the gates refuse."""


class Gate(Record):
    """One rule's verdict."""

    name: str
    passed: bool
    reason: str


class GateReport(Record):
    """Every gate's verdict; all are evaluated, every reason is kept."""

    passed: bool
    gates: tuple[Gate, ...]

    @property
    def reason(self) -> str:
        """The failed gates' reasons, or all of them when none failed."""
        chosen = [gate for gate in self.gates if not gate.passed] or list(self.gates)
        return "; ".join(f"{gate.name}: {gate.reason}" for gate in chosen)


class Promotion(Record):
    """One entry of the append-only promotion log."""

    epoch: int
    """1, 2, 3, ...: the compare-and-set number of the champion."""
    kind: Literal["promote", "rollback"]
    version: int
    previous: int | None
    reason: str
    as_of: str
    """The partition up to which data was known."""
    run: RunInfo

"""What came of a drill."""

from __future__ import annotations

from pipelines.records.alerts import Alert
from pipelines.records.base import Record
from pipelines.records.monitoring import Estimate, RetrainDecision
from pipelines.spec.alerts import AlertKind


class PlayedNight(Record):
    """One night of a drill."""

    night: int
    """Of the fault, from 1; 0 and less: before it."""
    partition: str
    quarantined: tuple[str, ...] = ()
    """`table/partition` that the gate of the data held back; of predictions, the audit of the scores."""
    began: tuple[Alert, ...] = ()
    ended: tuple[Alert, ...] = ()
    open: tuple[AlertKind, ...] = ()
    """Kinds of incidents that were open after this night."""
    decision: RetrainDecision
    trained: int | None = None
    """The version that a retraining made champion; None: none was asked for, or the gates refused it."""
    champion: int
    live: Estimate | None = None
    expected: Estimate | None = None


class Claim(Record):
    """One line of a verdict, and whether it came so."""

    said: str
    held: bool
    found: str

"""What is told to people, once an incident."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pipelines.records.base import Record
from pipelines.spec.alerts import AlertKind


class Alert(Record):
    """One line about an incident: that it began, or that it is over."""

    kind: AlertKind
    state: Literal["open", "resolved"]
    level: Literal["warning", "alarm"] = "alarm"
    """How bad it is."""
    use_case: str
    partition: str
    """The first partition of which it is true."""
    since: datetime
    """Since when it is wrong (UTC): the begin of `partition`; late: the deadline. With kind and partition, the name of
    the incident."""
    at: datetime
    """When this was told (UTC)."""
    what: str
    """What is wrong; resolved, how it ended."""
    remedy: str
    """What to do; resolved, empty."""
    evidence: str = ""
    """What shows it: the page of the drift report, below the folder of reports, or a command."""
    run: str
    """`DAG/run` that this is about."""

    @property
    def incident(self) -> tuple[str, str, datetime]:
        """What is told once."""
        return self.kind, self.partition, self.since


class Condition(Record):
    """What one monitor run says of one kind of incident."""

    kind: AlertKind
    state: Literal["raised", "over", "unknown"]
    """unknown: there is not enough data to say; an open incident stays open."""
    level: Literal["warning", "alarm"] = "alarm"
    partition: str = ""
    """Raised: the first partition of which it is true."""
    what: str = ""
    remedy: str = ""

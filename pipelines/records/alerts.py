"""What is told to people, once an incident."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pipelines.records.base import Record


class Alert(Record):
    """One line about an incident: that it began, or that it is over."""

    kind: Literal["late"]
    """late: a night's scores were not published by its deadline."""
    state: Literal["open", "resolved"]
    use_case: str
    partition: str
    since: datetime
    """Since when it is wrong (UTC): late, the deadline. With kind and partition, the name of the incident."""
    at: datetime
    """When this was told (UTC)."""
    missing: str
    """What is not there; resolved, how it ended."""
    remedy: str
    """What to do; resolved, empty."""
    run: str
    """`DAG/run` that this is about."""

    @property
    def incident(self) -> tuple[str, str, datetime]:
        """What is told once."""
        return self.kind, self.partition, self.since

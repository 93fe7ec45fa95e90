"""What every record is, and who does something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict


def _in_utc(instant: datetime) -> datetime:
    """The same instant: in another time zone it may be an hour that a clock shows twice."""
    return instant.astimezone(UTC)


class Record(BaseModel):
    """The base of every record."""

    # A metric may be NaN (the AUC of one class); JSON null would not come back as a number.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class RunInfo(Record):
    """Which run does something; kept in every commit, promotion and decision."""

    run_id: str
    dag_id: str = "cli"
    code_version: str = "unknown"
    """Git commit, with `+dirty` when the tree differed."""
    backfill: bool = False
    """Whether it makes up for nights that have passed: it raises no alert and starts no training."""
    at: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None
    """When the run was due (UTC); a retry has the same. Scores are said to be of then."""

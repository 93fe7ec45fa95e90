"""What became of a night: its rows, its labels, its scores."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pipelines.records.base import Record, RunInfo


class NightScores(Record):
    """The published predictions of one partition."""

    model: int | None
    """The version that made them; None where nothing says so any more."""
    rows: int
    """0 for an empty partition: scored, and there was nothing in it."""
    digest: str
    snapshot: str
    """Id of the snapshot that the publish made."""
    scored_at: datetime | None
    """When the run was due that scored them (UTC)."""
    published_at: datetime
    """By the store's clock (UTC)."""
    run: RunInfo
    """Who scored them; `backfill` tells a night that was made up for from one that ran."""
    restated: int
    """How many times later predictions took the place of earlier ones; those are in the history still."""


class Night(Record):
    """One partition, from the landing zone to the predictions, as of some instant."""

    partition: str
    input: Literal["ingested", "quarantined", "landed", "missing", "to_come"]
    """Of `rows`: published; in quarantine and not published; in the landing zone only; not there though its time has
    come; not there yet."""
    rows: int | None = None
    """Published rows."""
    snapshot: str | None = None
    """Id of the snapshot that brought them."""
    quarantined: tuple[str, ...] = ()
    """The failed checks of what lies in quarantine and is newer than what is published, if anything is."""
    gap: bool = False
    """Nothing of it is published, though something of a later one is."""
    labels: Literal["published", "late", "to_come"]
    """late: the run that takes them was due, and they are not published."""
    label_rows: int | None = None
    scores: NightScores | None = None
    due: Literal["never scored", "input restated"] | None = None
    """Why a run would score it now; None where there is nothing to do, or nothing to score."""
    refused: tuple[str, ...] = ()
    """The failed checks of scores that lie in quarantine and are newer than what is published, if anything is."""
    deadline: datetime | None = None
    """By when the spec wants its scores; None where it does not say."""
    late: bool = False
    """The deadline has passed, and no scores are published."""

"""Where published predictions are handed to whoever uses them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipelines.spec.base import Name, SpecModel

#: A relative folder: the target's own address is a setting.
Folder = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$")]


class _Delivery(SpecModel):
    """What every delivery says."""

    name: Name
    """Of this delivery: what was delivered is kept under it."""
    target: Name
    """Which address of the setting OVERNIGHT_TARGETS: an address may hold a password, so it is never in a spec."""
    columns: tuple[str, ...] = ()
    """Columns of the predictions that are handed over; all when not given."""
    backfills: bool = True
    """Whether partitions of a backfill are handed over too."""


class FileDelivery(_Delivery):
    """Files in a folder, or in object storage, with a manifest and a `_SUCCESS` that is written last."""

    sink: Literal["files"]
    format: Literal["parquet", "csv"] = "parquet"
    folder: Folder | None = None
    """Below the target; `<use case>` when not given."""


class PostgresDelivery(_Delivery):
    """Rows of a table in PostgreSQL, replaced by partition in one transaction."""

    sink: Literal["postgres"]
    table: Name
    db_schema: Name = "public"


class WebhookDelivery(_Delivery):
    """An HTTP request that says what was published, under an idempotency key."""

    sink: Literal["webhook"]
    timeout: Annotated[float, Field(gt=0, le=300)] = 30.0
    """Seconds for an answer."""


Delivery = Annotated[FileDelivery | PostgresDelivery | WebhookDelivery, Field(discriminator="sink")]

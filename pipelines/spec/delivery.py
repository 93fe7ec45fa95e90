"""Where published predictions are handed to whoever uses them.

    delivery:
      - name: crm_files
        sink: files
        target: crm            # OVERNIGHT_TARGETS='{"crm": "s3://crm-inbox/overnight", ...}'
        folder: flights/delays
        format: parquet        # or csv
        columns: [flight, score, model_version]
      - name: warehouse
        sink: postgres
        target: warehouse      # postgresql://user:password@host/database
        table: flight_delays
        db_schema: public
        backfills: false
      - name: told
        sink: webhook
        target: planning       # https://...
        timeout: 10

Each delivery gets a partition once, whoever asks for it how often; a partition that was restated takes the place of
the former. A CSV file holds text as it is: a cell that begins with `=`, `+`, `-` or `@` is a formula to a spreadsheet
program that opens the file. Whoever opens it there imports the columns as text, or leaves out (`columns`) those that
strangers fill.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

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
    """Columns of the predictions that are handed over, in this order; all when not given."""
    backfills: bool = True
    """Whether partitions of a backfill are handed over too."""

    @field_validator("columns")
    @classmethod
    def _differ(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(columns)) < len(columns):
            raise ValueError("a column is given twice")
        if "partition" in columns:
            raise ValueError("'partition' is in the folder's name or a column of its own already: leave it out")
        return columns


class FileDelivery(_Delivery):
    """Files in a folder, or in object storage, with a manifest and a `_SUCCESS` that is written last."""

    sink: Literal["files"]
    format: Literal["parquet", "csv"] = "parquet"
    folder: Folder | None = None
    """Below the target; `<use case>` when not given."""

    @property
    def place(self) -> str:
        """What no two deliveries may share."""
        return f"files {self.target}/{self.folder or ''}"


class PostgresDelivery(_Delivery):
    """Rows of a table in PostgreSQL, replaced by partition in one transaction."""

    sink: Literal["postgres"]
    table: Name
    db_schema: Name = "public"
    """It must be there; the table need not."""

    @property
    def place(self) -> str:
        """What no two deliveries may share."""
        return f"postgres {self.target} {self.db_schema}.{self.table}"

    @field_validator("table")
    @classmethod
    def _free(cls, table: str) -> str:
        if table == LEDGER:
            raise ValueError(f"{LEDGER!r} is where Overnight keeps what it delivered: choose another name")
        return table


class WebhookDelivery(_Delivery):
    """An HTTP request that says what was published, under an idempotency key. It holds no rows."""

    sink: Literal["webhook"]
    timeout: Annotated[float, Field(gt=0, le=300)] = 30.0
    """Seconds for an answer."""

    @property
    def place(self) -> str:
        """What no two deliveries may share."""
        return f"webhook {self.target}"

    @field_validator("columns")
    @classmethod
    def _none(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if columns:
            raise ValueError("a webhook hands over no rows: leave columns out")
        return columns


#: The table, beside those that are delivered, that says what was.
LEDGER = "overnight_deliveries"

Delivery = Annotated[FileDelivery | PostgresDelivery | WebhookDelivery, Field(discriminator="sink")]


def shared_place(deliveries: Iterable[Delivery]) -> str | None:
    """What two deliveries would both write into, if there is such a place."""
    places = [one.place for one in deliveries]
    return next((place for place in places if places.count(place) > 1), None)

"""Orders of customers, published straight into a store: what an erasure has to find, in every kind of place.

Three days with two orders a customer and day; the first day was restated once, so that older bytes are held too.
Customer 90210417 is the subject: its name is in `customers` only, its address in all of its orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipelines.ports import STATIC, Draft, SnapshotStore
from pipelines.records import Publication, RunInfo, StagedPartition
from pipelines.spec import UseCase
from pipelines.steps.predictions import PREDICTIONS
from tests.contracts.stores import audit

RUN = RunInfo(run_id="night", dag_id="orders", code_version="abc")
DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
SUBJECT, ITS_ADDRESS = 90210417, "one@example.org"
CUSTOMERS = {SUBJECT: ITS_ADDRESS, 90210418: "two@example.org", 90210419: "three@example.org"}

SPEC = UseCase.model_validate(
    {
        # The store of the contract tests is that of a use case of this name.
        "name": "uc",
        "title": "Orders",
        "description": "Which orders come back.",
        "owner": "tests",
        "schedule": "0 2 * * *",
        "monitor_schedule": "0 6 * * *",
        "tables": {
            "rows": {
                "path": "orders/{partition}.csv.gz",
                "columns": {
                    "order": {"type": "string", "nullable": False},
                    "customer": {"type": "int"},
                    "address": {"type": "string"},
                    "amount": {"type": "float"},
                    "gift": {"type": "bool"},
                },
                "key": ["order"],
            },
            "labels": {
                "path": "returns/{partition}.jsonl",
                "format": "jsonl",
                "columns": {"order": {"type": "string"}, "returned": {"type": "bool"}},
                "key": ["order"],
            },
            "customers": {
                "path": "customers.parquet",
                "format": "parquet",
                "columns": {"customer": {"type": "int"}, "name": {"type": "string"}, "since": {"type": "date"}},
                "key": ["customer"],
            },
        },
        "label": {"column": "returned", "task": "binary", "positive": {"equals": True}},
        "features": {"context": ["customers"], "numeric": ["amount"], "categorical": ["gift"]},
        "gates": {"metric": "auc", "bound": 0.5},
    }
)


def orders(day: str, *, count: int = 2) -> pl.DataFrame:
    """`count` orders of each customer."""
    made = [
        (f"o-{day}-{customer % 10}-{i}", customer, address)
        for customer, address in CUSTOMERS.items()
        for i in range(count)
    ]
    return pl.DataFrame(
        {
            "order": [order for order, _, _ in made],
            "customer": [customer for _, customer, _ in made],
            "address": [address for _, _, address in made],
            "amount": [float(i) for i in range(len(made))],
            "gift": [i % 2 == 0 for i in range(len(made))],
        }
    )


def returns(day: str) -> pl.DataFrame:
    """The label of each order."""
    return orders(day).select("order", returned=pl.col("amount") > 2)


def customers() -> pl.DataFrame:
    """The static table."""
    names = ["customer one", "customer two", "customer three"]
    return pl.DataFrame({"customer": list(CUSTOMERS), "name": names}).with_columns(
        since=pl.lit(datetime(2020, 1, 1, tzinfo=UTC)).dt.date()
    )


def stage(store: SnapshotStore, table: str, partition: str, frame: pl.DataFrame) -> StagedPartition:
    """Stages one partition."""
    (staged,) = store.stage(table, [Draft(partition=partition, frame=frame)], RUN)
    return staged


def put(store: SnapshotStore, table: str, partition: str, frame: pl.DataFrame) -> Publication:
    """Stages, audits and publishes one partition."""
    staged = stage(store, table, partition, frame)
    return store.publish(table, [staged], [audit(staged)], RUN)


def predict(store: SnapshotStore, days: Sequence[str] = DAYS) -> None:
    """Publishes a score for each order, with the provenance that scoring gives."""
    heads = [head for table in ("rows", "customers") if (head := store.head(table)) is not None]
    read = {head.table: {key: part.digest for key, part in store.partitions(head).items()} for head in heads}
    drafts = [
        Draft(
            partition=day,
            frame=orders(day).select("order", score=pl.col("amount") / 10, model_version=pl.lit(1, pl.Int64)),
        )
        for day in days
    ]
    staged = store.stage(PREDICTIONS, drafts, RUN)
    ends = {"customers": [STATIC, STATIC]}
    made = {day: {"model": 1, "inputs": f"inputs of {day}", "read": {"rows": [day, day], **ends}} for day in days}
    provenance = {"model": "uc@1", "snapshots": [head.id for head in heads], "read": read, "predictions": made}
    store.publish(PREDICTIONS, staged, [audit(part) for part in staged], RUN, provenance=provenance)


def fill(store: SnapshotStore) -> None:
    """Everything that is published."""
    put(store, "rows", DAYS[0], orders(DAYS[0], count=3))
    for day in DAYS:
        put(store, "rows", day, orders(day))
        put(store, "labels", day, returns(day))
    put(store, "customers", STATIC, customers())
    predict(store)


def set_aside(store: SnapshotStore, table: str, day: str, original: Path, *, observed: str = "it") -> None:
    """Puts a file into quarantine."""
    staged = stage(store, table, day, orders(day) if table == "rows" else returns(day))
    store.quarantine(audit(staged, passed=False, observed=observed), staged, [original])


def seen(store: SnapshotStore, table: str) -> pl.DataFrame:
    """What a reader sees."""
    head = store.head(table)
    assert head is not None
    return store.scan(head).collect()

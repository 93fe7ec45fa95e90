"""The log of deliveries: the table `deliveries`, whose partition `crm-2013-09-01-0002` is what the delivery `crm` was
handed of 2013-09-01 the second time.

It tells whoever reads the predictions in the morning who has them, since which run. It is written after the other side
said that it has them, so it never says more than is true; a run that died in between is completed by its retry. What a
place holds it knows better itself: files have their manifest, PostgreSQL a table of its own, and both are asked every
time. A webhook's receiver cannot be asked without being told again, and is spared that by this log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import ValidationError

from pipelines.errors import ConflictError, IntegrityError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import SnapshotStore
from pipelines.records import Check, DeliveryEntry
from pipelines.steps.logs import append

DELIVERIES = "deliveries"
#: Digits of an entry's number at the end of its name.
_DIGITS = 4
_SUITE = "handed over"


def deliveries(
    store: SnapshotStore, delivery: str | None = None, partitions: Sequence[str] | None = None
) -> list[DeliveryEntry]:
    """The log, by delivery, partition and number.

    Args:
        delivery: only of this one.
        partitions: only of these.

    Raises:
        IntegrityError: an entry is not what a delivery writes.
    """
    head = store.head(DELIVERIES)
    if head is None:
        return []
    wanted = None if partitions is None else set(partitions)
    names = [
        name
        for name in store.partitions(head)
        if (delivery is None or name.partition("-")[0] == delivery)
        and (wanted is None or name.partition("-")[2][: -_DIGITS - 1] in wanted)
    ]
    if not names:
        return []
    found = []
    for name, text in store.scan(head, names).select("partition", "entry").collect().iter_rows():
        try:
            found.append(DeliveryEntry.model_validate_json(text))
        except ValidationError as error:
            what = f"it is no delivery: {error.errors()[0]['msg']}"
            raise IntegrityError(
                explain(f"{DELIVERIES}/{name}", what, remedy="whoever wrote it must say why")
            ) from None
    return sorted(found, key=lambda entry: (entry.delivered.delivery, entry.delivered.partition, entry.number))


def latest(store: SnapshotStore, delivery: str, partitions: Sequence[str]) -> dict[str, DeliveryEntry]:
    """The newest entry of each partition that has one."""
    return {entry.delivered.partition: entry for entry in deliveries(store, delivery, partitions)}


def note(store: SnapshotStore, use_case: str, entry: DeliveryEntry, before: Mapping[str, DeliveryEntry]) -> None:
    """Appends an entry, unless the newest one says the same already.

    Args:
        entry: its number is what comes next here.
        before: as `latest` gave it.

    Raises:
        ConflictError: other runs keep writing what follows.
    """
    done = entry.delivered
    last = before.get(done.partition)
    if last is not None and last.delivered.key == done.key:
        return
    failpoint("deliver.handed")
    entry = entry.model_copy(update={"number": last.number + 1 if last is not None else 1})
    row = pl.DataFrame({"entry": [entry.model_dump_json()]}, schema={"entry": pl.String})
    name = f"{done.delivery}-{done.partition}-{entry.number:0{_DIGITS}d}"
    check = Check(name="handed_over", passed=True, observed=f"{done.rows} rows to {done.where}")
    digest = hashlib.sha256(_SUITE.encode()).hexdigest()
    try:
        append(store, use_case, DELIVERIES, name, row, [check], entry.run, suite=_SUITE, suite_digest=digest)
    except ConflictError:
        # Another run wrote this number: that it handed over the same is as good, and what it wrote comes before.
        now = latest(store, done.delivery, [done.partition])
        if now.get(done.partition) == last:
            raise
        note(store, use_case, entry, now)

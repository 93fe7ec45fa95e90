"""The promotion log: the table `promotions`, whose partition `e000001` is the first epoch.

An epoch can be published once, so of any number of promoters one wins and the others get a ConflictError. The champion
is the version of the last entry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import polars as pl
from pydantic import ValidationError

from pipelines.errors import IntegrityError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import SnapshotStore
from pipelines.records import Check, Promotion
from pipelines.spec import UseCase
from pipelines.steps.logs import append

PROMOTIONS = "promotions"
_EPOCH = re.compile(r"e\d{6}")


def epoch_key(epoch: int) -> str:
    """The partition of an epoch's entry."""
    return f"e{epoch:06d}"


def promotions(store: SnapshotStore) -> list[Promotion]:
    """The promotion log, oldest epoch first. Partitions whose name is no epoch are no entries: see `strays`.

    Raises:
        IntegrityError: an epoch is missing, or an entry is not what a promotion writes.
    """
    head = store.head(PROMOTIONS)
    if head is None:
        return []
    keys = sorted(key for key in store.partitions(head) if _EPOCH.fullmatch(key))
    wanted = [epoch_key(number) for number in range(1, len(keys) + 1)]
    if keys != wanted:
        lost = next(key for key, want in zip(keys, wanted, strict=True) if key != want)
        raise _broken(store, lost, f"it does not follow the epoch before it; expected {wanted[keys.index(lost)]}")
    if not keys:
        return []
    found = {}
    for key, text in store.scan(head, keys).select("partition", "entry").collect().iter_rows():
        try:
            found[key] = Promotion.model_validate_json(text)
        except ValidationError as error:
            raise _broken(store, key, f"it is no promotion: {error.errors()[0]['msg']}") from None
        if epoch_key(found[key].epoch) != key:
            raise _broken(store, key, f"it says that it is of epoch {found[key].epoch}")
    if missing := sorted(set(keys) - set(found)):
        raise _broken(store, missing[0], "it is empty")
    return [found[key] for key in keys]


def strays(store: SnapshotStore) -> list[str]:
    """Partitions of the log's table that are no entries: somebody else wrote them."""
    head = store.head(PROMOTIONS)
    return [] if head is None else sorted(key for key in store.partitions(head) if not _EPOCH.fullmatch(key))


def before(log: Sequence[Promotion]) -> int | None:
    """The champion before the present one, rollbacks undone: what `previous` means to a person."""
    stack: list[int] = []
    for entry in log:
        if entry.version in stack:
            del stack[stack.index(entry.version) + 1 :]
        else:
            stack.append(entry.version)
    return stack[-2] if len(stack) > 1 else None


def rolled_back(log: Sequence[Promotion], version: int, run_id: str) -> Promotion | None:
    """The newest rollback that took this version, or another one of the same training run, back."""
    made = {entry.version: entry.trained_by for entry in log if entry.trained_by}
    for entry in reversed(log):
        left = entry.previous
        if entry.kind == "rollback" and left is not None and (left == version or made.get(left) == run_id):
            return entry
    return None


def append_entry(spec: UseCase, store: SnapshotStore, entry: Promotion, checks: Sequence[Check]) -> None:
    """Publishes one entry under its epoch; what let it through is its audit.

    Raises:
        ConflictError: another entry has this epoch.
    """
    append(
        store,
        spec.name,
        PROMOTIONS,
        epoch_key(entry.epoch),
        pl.DataFrame({"epoch": [entry.epoch], "version": [entry.version], "entry": [entry.model_dump_json()]}),
        checks,
        entry.run,
        suite=f"{spec.name}.gates",
        suite_digest=hashlib.sha256(spec.gates.model_dump_json().encode()).hexdigest(),
    )
    failpoint("promote.appended")


def _broken(store: SnapshotStore, key: str, what: str) -> IntegrityError:
    """The error of an entry that is not right, naming who wrote it."""
    commit = next((each for each in store.history(PROMOTIONS) if key in each.partitions), None)
    by = f", written by {commit.run.dag_id}/{commit.run.run_id} as {commit.snapshot.id}" if commit else ""
    return IntegrityError(
        explain(
            f"promotion log, entry {key}{by}",
            what,
            remedy=f"nothing is scored or promoted until a person has looked at `overnight history <use case> "
            f"{PROMOTIONS}` and put the table back to the snapshot before that entry",
        )
    )

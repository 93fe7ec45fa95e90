"""The one step that makes rows visible: merge a run's commit into main, exactly once whatever the server answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pipelines.backends.lakefs_client import MAIN, LogEntry, Repository
from pipelines.backends.lakefs_http import Refused, Unanswered
from pipelines.errors import AuditError, NotFoundError, StrayWriteError, explain
from pipelines.records import Commit, CommitNote, SnapshotRef

NOTE = "overnight.note"
AREA = "overnight.area"
KEY = "overnight.key"
AUDIT = "overnight.audit"
TABLE = "overnight.table"


def merge(repository: Repository, where: str, source: str, base: str, area: str, note: CommitNote) -> str | None:
    """Merges a commit of a run's branch into main.

    After a timeout, a dropped connection or a 5xx nobody knows whether it happened, so main's history is asked for
    the publish's key before anything is tried again. A first attempt that is still running on the server is no
    danger: of two merges of one commit lakeFS refuses the second, since the commit is in main's history then.

    Args:
        source: a commit id: what was verified is what is merged.
        base: the commit of main from which the run's branch began: our merge can only be newer.
        area: the run's branch.

    Returns:
        The commit that main got; None when main has changed meanwhile so that it cannot get it.

    Raises:
        StrayWriteError: main holds uncommitted changes.
        AuditError: a hook of the repository refused the merge.
        NotFoundError: the branch was swept.
        UnavailableError: no proper answer before the deadline.
    """
    key = hashlib.sha256(f"{source} {note.table} {sorted(note.partitions.items())}".encode()).hexdigest()
    metadata = {
        TABLE: note.table,
        "overnight.run": note.run.run_id,
        "overnight.dag": note.run.dag_id,
        "overnight.code_version": note.run.code_version,
        AUDIT: audit_digest(note),
        AREA: area,
        KEY: key,
        NOTE: note.model_dump_json(),
    }
    message = f"{note.kind} {note.table}: {_shown(note)}"
    wait = repository.patience()
    while True:
        try:
            return repository.merge(source, message, metadata)
        except Unanswered as error:
            problem = str(error)
        except Refused as error:
            return _refused(repository, where, key, base, error)
        if (found := _find(repository, key, base)) is not None:
            return found
        if not wait():
            raise repository.unavailable(f"while merging: {problem}")


def audit_digest(note: CommitNote) -> str:
    """SHA-256 over the audits of a commit: what the gate in the repository asks for."""
    lines = [f"{key} {digest} {note.audits[key].digest}" for key, digest in sorted(note.partitions.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _refused(repository: Repository, where: str, key: str, base: str, error: Refused) -> str | None:
    if error.status == 409 or (error.status == 400 and "no changes" in error.text):
        return _find(repository, key, base)
    if error.status == 400 and "uncommitted changes" in error.text:
        stray = repository.uncommitted(MAIN)
        shown = ", ".join(stray[:5]) + (f" and {len(stray) - 5} more" if len(stray) > 5 else "")
        raise StrayWriteError(
            explain(
                f"{where} on lakefs://{repository.name}/{MAIN}",
                f"somebody wrote to main without a publish: {shown}",
                remedy=f"look at these files, then `overnight doctor {where.partition('/')[0]} --repair`",
            )
        )
    if error.status == 412:
        raise AuditError(explain(where, f"a hook of the repository refused the merge: {error.text}"))
    if error.status == 404:
        raise NotFoundError(explain(where, "what was staged is gone", remedy="stage it again"))
    raise error


def _find(repository: Repository, key: str, base: str) -> str | None:
    """Our commit on main, if it is there."""
    for entry in repository.log(MAIN, stop_at=base):
        if entry.metadata.get(KEY) == key:
            return entry.id
    return None


def notes(repository: Repository, use_case: str, table: str) -> Iterator[Commit]:
    """The commits of main that published, reverted or erased something of a table, newest first."""
    for entry in repository.log(MAIN):
        if entry.metadata.get(TABLE) == table and NOTE in entry.metadata:
            yield _commit(entry, use_case)


def _commit(entry: LogEntry, use_case: str) -> Commit:
    note = CommitNote.model_validate_json(entry.metadata[NOTE])
    return Commit(
        **{name: getattr(note, name) for name in CommitNote.model_fields},
        snapshot=SnapshotRef(store="lakefs", use_case=use_case, table=note.table, version=entry.id),
        at=datetime.fromtimestamp(entry.at, UTC),
    )


def _shown(note: CommitNote) -> str:
    changed: Mapping[str, str | None] = {**note.partitions, **dict.fromkeys(note.removed)}
    keys = sorted(changed)
    return keys[0] if len(keys) == 1 else f"{len(keys)} partitions, {keys[0]} to {keys[-1]}"

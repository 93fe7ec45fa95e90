"""Back to an earlier snapshot, in one new merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from pipelines.backends.lakefs_client import MAIN, Repository, Stored
from pipelines.backends.lakefs_layout import Held, digest_of, part_path, run_branch
from pipelines.backends.lakefs_merge import TABLE, merge, notes
from pipelines.errors import ConflictError, explain
from pipelines.failpoints import failpoint
from pipelines.records import Audit, Commit, CommitNote, RunInfo, SnapshotRef


def revert(
    repository: Repository,
    use_case: str,
    to: SnapshotRef,
    target: Mapping[str, Stored],
    run: RunInfo,
    reason: str,
    gone: Set[str],
) -> tuple[str, set[str]]:
    """Makes a table on main hold `target` again.

    Args:
        gone: addresses of bytes that were removed.

    Returns:
        The commit that holds it, and the partitions that it put back.

    Raises:
        ConflictError: another run published meanwhile.
    """
    main = repository.head(MAIN)
    assert main is not None
    held = Held(repository, main, to.table).all()
    back = {
        key: stored
        for key, stored in target.items()
        if key not in held or held[key].address in gone or digest_of(held[key]) != digest_of(stored)
    }
    removed = sorted(held.keys() - target.keys())
    if not back and not removed:
        return main, set()
    branch = run_branch(to.table)
    repository.create_branch(branch, main)
    for stored in back.values():
        repository.copy(branch, stored)
    repository.delete(branch, [part_path(to.table, key) for key in removed])
    repository.commit(branch, f"{to.table} as of {to.version[:12]}", {"overnight.base": main})
    source = repository.head(branch)
    assert source is not None
    digests = {key: digest_of(stored) for key, stored in back.items()}
    note = CommitNote(
        kind="revert",
        table=to.table,
        run=run,
        partitions=digests,
        removed=tuple(removed),
        audits=_audits(list(notes(repository, use_case, to.table)), digests),
        provenance={"reverted_to": to.id, "reason": reason},
    )
    failpoint("revert.prepared")
    where = f"{use_case}/{to.table}"
    # lakeFS sees no conflict when others publish partitions that this revert does not touch. One that slips in between
    # this look and the merge is found by the second look: the table then holds what a publish after the revert gives.
    merged = None
    if _alone(repository, to.table, MAIN, main):
        merged = merge(repository, where, source, main, branch, note)
    failpoint("revert.committed")
    repository.delete_branch(branch)
    if merged is None or not _alone(repository, to.table, merged, main):
        raise ConflictError(explain(where, "another run published while this was reverted", remedy="revert again"))
    return merged, set(back)


def _alone(repository: Repository, table: str, ref: str, since: str) -> bool:
    """Whether nobody but a revert changed a table between two commits of main."""
    between = [entry for entry in repository.log(ref, stop_at=since) if entry.id not in (ref, since)]
    return not any(entry.metadata.get(TABLE) == table for entry in between)


def _audits(history: Sequence[Commit], digests: Mapping[str, str]) -> dict[str, Audit]:
    """The audits that first let these bytes through."""
    first: dict[tuple[str, str], Audit] = {}
    for commit in reversed(history):
        for key, digest in commit.partitions.items():
            first.setdefault((key, digest), commit.audits[key])
    return {key: first[key, digest] for key, digest in digests.items()}

"""Back to an earlier snapshot, in one new merge: names change, no byte is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.backends.lakefs_client import MAIN, Repository, Stored
from pipelines.backends.lakefs_layout import Held, digest_of, part_path, run_branch
from pipelines.backends.lakefs_merge import merge
from pipelines.errors import ConflictError, explain
from pipelines.records import Audit, Commit, CommitNote, RunInfo, SnapshotRef


def revert(
    repository: Repository,
    use_case: str,
    to: SnapshotRef,
    target: Mapping[str, Stored],
    run: RunInfo,
    reason: str,
    history: Sequence[Commit],
) -> tuple[str, set[str]]:
    """Makes a table on main hold `target` again.

    Returns:
        The commit that holds it, and the partitions that it put back.

    Raises:
        ConflictError: another run published meanwhile.
    """
    main = repository.head(MAIN)
    assert main is not None
    held = Held(repository, main, to.table).all()
    back = {key: stored for key, stored in target.items() if key not in held or held[key].address != stored.address}
    removed = sorted(held.keys() - target.keys())
    if not back and not removed:
        return main, set()
    branch = run_branch(to.table)
    repository.create_branch(branch, main)
    for stored in back.values():
        repository.link(branch, stored)
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
        audits=_audits(history, digests),
        provenance={"to": to.id, "reason": reason},
    )
    merged = merge(repository, f"{use_case}/{to.table}", source, main, branch, note)
    repository.delete_branch(branch)
    if merged is None:
        raise ConflictError(
            explain(f"{use_case}/{to.table}", "another run published while this was reverted", remedy="revert again")
        )
    return merged, set(back)


def _audits(history: Sequence[Commit], digests: Mapping[str, str]) -> dict[str, Audit]:
    """The audits that first let these bytes through."""
    first: dict[tuple[str, str], Audit] = {}
    for commit in reversed(history):
        for key, digest in commit.partitions.items():
            first.setdefault((key, digest), commit.audits[key])
    return {key: first[key, digest] for key, digest in digests.items()}

"""A use case's repository: made on the first write, with its gate and its protection; examined, and mended.

Two locks besides the publisher's own check of the audit: main is protected, so that nobody uploads to it or commits
on it (the rule takes effect after some seconds), and an action refuses merges that carry no audit.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pipelines.backends.lakefs_client import MAIN, Repository
from pipelines.backends.lakefs_http import Refused
from pipelines.backends.lakefs_layout import RECORDS, run_branch
from pipelines.backends.lakefs_merge import AUDIT
from pipelines.errors import NotFoundError, explain
from pipelines.records import Finding

STRAY = "stray_write"
UNPROTECTED = "main_unprotected"
NO_GATE = "gate_missing"
UNAUDITED = "unaudited_merge"


class Setup:
    """The parts of a repository that are no data."""

    def __init__(self, repository: Repository, storage_namespace: str, gate: Path) -> None:
        """Asks nothing yet.

        Args:
            storage_namespace: where the repository's bytes lie when it is made here.
            gate: the folder with the pre-merge action and its script.
        """
        self._repository = repository
        self._namespace = storage_namespace
        self._folder = gate
        self._ready = False

    def ensure(self) -> None:
        """Makes what is missing of the repository. Several may do so at once; a repeat mends what a crash left."""
        if self._ready:
            return
        repository = self._repository
        if repository.head(RECORDS) is None:  # the last thing that is made
            # lakeFS refuses a namespace that any repository, or an attempt to make one, has used before.
            repository.create(f"{self._namespace}-{secrets.token_hex(4)}")
            self._install_gate()
            self._protect()
            root = repository.head(MAIN)
            assert root is not None
            repository.create_branch(RECORDS, root)
        self._ready = True

    @cached_property
    def _gate(self) -> Mapping[str, bytes]:
        return {
            "_lakefs_actions/require_audit.yaml": (self._folder / "require_audit.yaml").read_bytes(),
            "_overnight/require_audit.lua": (self._folder / "require_audit.lua").read_bytes(),
        }

    def _install_gate(self) -> None:
        repository = self._repository
        if not self._gate_is_missing():
            return
        branch, main = run_branch("gate"), repository.head(MAIN)
        assert main is not None
        repository.create_branch(branch, main)
        for path, content in self._gate.items():
            repository.upload(branch, path, content)
        repository.commit(branch, "the gate of main")
        audit = hashlib.sha256(b"".join(self._gate.values())).hexdigest()
        with contextlib.suppress(Refused):  # another process brought it meanwhile
            repository.merge(branch, "the gate of main", {AUDIT: audit})
        repository.delete_branch(branch)

    def _gate_is_missing(self) -> bool:
        return any(self._repository.read(MAIN, path) != content for path, content in self._gate.items())

    def _protect(self) -> None:
        patterns = self._repository.protected()
        if MAIN not in patterns:
            self._repository.protect([*patterns, MAIN])

    # -- health ----------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        """What is wrong; nothing when there is no repository yet."""
        repository = self._repository
        if not repository.exists():
            return []
        where = f"lakefs://{repository.name}/{MAIN}"
        found = [
            Finding(
                name=STRAY,
                where=f"{where}/{path}",
                what="written to main without a publish; no publish can be merged until it is gone",
                remedy="keep a copy if anybody needs it, then repair: main goes back to what was published",
                repairable=True,
            )
            for path in repository.uncommitted(MAIN)
        ]
        if MAIN not in repository.protected():
            found.append(
                Finding(
                    name=UNPROTECTED,
                    where=where,
                    what="main is not protected: anybody with write access can upload to it",
                    remedy="repair: the branch protection rule is set again",
                    repairable=True,
                )
            )
        main = repository.head(MAIN)
        commit = repository.get_commit(main) if main is not None and repository.head(RECORDS) is not None else None
        if commit is not None and AUDIT not in commit.metadata:
            found.append(
                Finding(
                    name=UNAUDITED,
                    where=f"lakefs://{repository.name}/{commit.id}",
                    what="merged to main without a publish; readers stay with the snapshot before, publishes wait",
                    remedy="see what it changed, then repair: it is undone by a new commit",
                    repairable=True,
                )
            )
        if self._gate_is_missing():
            found.append(
                Finding(
                    name=NO_GATE,
                    where=where,
                    what="the action that refuses merges without an audit is missing or is not the project's",
                    remedy="repair: it is installed again",
                    repairable=True,
                )
            )
        return found

    def repair(self, finding: Finding) -> None:
        """Mends a finding that is still true.

        Raises:
            NotFoundError: it is not, or it is of another kind.
        """
        if finding not in self.examine():
            raise NotFoundError(explain(finding.where, f"no finding {finding.name!r}", remedy="examine again"))
        if finding.name == STRAY:
            self._throw_away(finding.where.removeprefix(f"lakefs://{self._repository.name}/{MAIN}/"))
        elif finding.name == UNPROTECTED:
            self._protect()
        elif finding.name == UNAUDITED:
            self._undo()
        elif any(other.name == UNAUDITED for other in self.examine()):
            # The gate's commit carries a digest: on top of the merge it would make what that brought look audited.
            raise NotFoundError(explain(finding.where, "main holds an unaudited merge", remedy="repair that first"))
        else:
            self._install_gate()

    def _undo(self) -> None:
        """Takes back what came to main since its newest audited commit; names change, no byte is copied."""
        repository = self._repository
        wrong = list(itertools.takewhile(lambda entry: AUDIT not in entry.metadata, repository.log(MAIN)))
        branch = run_branch("undo")
        repository.create_branch(branch, wrong[0].id)
        for entry in wrong:
            repository.revert(branch, entry.id)
        digest = hashlib.sha256(wrong[-1].id.encode()).hexdigest()
        repository.merge(branch, f"undo {len(wrong)} unaudited commits", {AUDIT: digest})
        repository.delete_branch(branch)

    def _throw_away(self, path: str) -> None:
        """Resets a path of main. A protected main refuses that even to an administrator, so its rule is lifted first.

        After a crash in between, the missing rule is a finding of its own.
        """
        repository = self._repository
        patterns = repository.protected()
        wait = repository.patience()
        try:
            while True:
                with contextlib.suppress(Refused):
                    repository.reset(MAIN, path)
                    return
                repository.protect([pattern for pattern in patterns if pattern != MAIN])
                if not wait():  # lifting takes effect after some seconds
                    raise repository.unavailable("main stayed protected")
        finally:
            repository.protect(sorted({*patterns, MAIN}))

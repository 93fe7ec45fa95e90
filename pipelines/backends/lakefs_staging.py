"""Staged partitions: a branch a call, on which a partition is an object that no reader looks at."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipelines.backends.lakefs_blocks import Blocks
from pipelines.backends.lakefs_client import MAIN, Repository, Stored
from pipelines.backends.lakefs_http import Refused, Unanswered
from pipelines.backends.lakefs_layout import Held, checked_key, digest_of, part_path, run_branch, schema_path
from pipelines.backends.lakefs_records import Records
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.parquet import digest as digest_of_file
from pipelines.parquet import digester, unwritable, write_draft
from pipelines.ports import Draft
from pipelines.records import RunInfo, StagedPartition

#: In the metadata of a run's commits: the commit of main from which its branch began.
_BASE = "overnight.base"
#: Answers that broke off at the same byte, one after the other, before the bytes are held to be damaged: a network
#: breaks anywhere.
_BREAKS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A commit that brings exactly the partitions that are to be published."""

    source: str
    """The commit's id."""
    base: str
    """The commit of main from which the run's branch began."""
    branch: str
    """The run's branch, or one that has only some of its partitions."""
    whole: bool
    """Whether nothing is left on the run's branch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """A draft's file."""

    path: Path
    digest: str
    rows: int
    columns: pl.DataFrame
    """No rows."""


class Staging:
    """Branches of runs."""

    def __init__(self, repository: Repository, records: Records, blocks: Blocks, cache: Path, use_case: str) -> None:
        """Asks nothing yet."""
        self._repository = repository
        self._records = records
        self._blocks = blocks
        self._cache = cache
        self._use_case = use_case

    # -- staging ---------------------------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:
        """Uploads drafts to a new branch, one at a time, and commits them there."""
        repository = self._repository
        main = repository.head(MAIN)
        assert main is not None
        branch = run_branch(table)
        staged: list[StagedPartition] = []
        held, gone = Held(repository, main, table), self._records.removed()
        try:
            for draft in drafts:
                path = part_path(table, draft.partition)
                with self._written(draft) as written:
                    if not staged:
                        repository.create_branch(branch, main)
                        self._state_columns(branch, main, table, written.columns)
                    current = held.get(draft.partition)
                    # Bytes that were removed may be published again, under another address.
                    anew = current is not None and current.address in gone
                    staged.append(self._stage(branch, table, path, draft, written, current, anew=anew))
        except Exception:
            if staged:
                with contextlib.suppress(Exception):
                    self.delete_branch(branch)
            raise
        if staged:
            repository.commit(
                branch,
                f"staged {table}: {len(staged)} partitions",
                {_BASE: main, "overnight.staged_by": run.run_id, "overnight.dag": run.dag_id},
            )
        return tuple(staged)

    @contextlib.contextmanager
    def _written(self, draft: Draft) -> Iterator[_Written]:
        """A draft as a file on this machine; what is left of it goes."""
        temporary = self._temporary()
        try:
            try:
                digest, rows = write_draft(draft, temporary)
            except OSError as error:
                raise unwritable(f"{self._use_case} {draft.partition}", error) from error
            columns = pl.DataFrame(schema=pl.read_parquet_schema(temporary))
            yield _Written(path=temporary, digest=digest, rows=rows, columns=columns)
        finally:
            temporary.unlink(missing_ok=True)

    def _stage(
        self,
        branch: str,
        table: str,
        path: str,
        draft: Draft,
        written: _Written,
        current: Stored | None,
        *,
        anew: bool,
    ) -> StagedPartition:
        failpoint("stage.scratched")
        digest, size = written.digest, written.path.stat().st_size
        base = digest_of(current) if current is not None else None
        if digest != base or anew:
            # The branch's name makes every upload another object to lakeFS: two runs that publish the same bytes
            # conflict like any others, and the second finds them published.
            about = {"blake3": digest, "rows": str(written.rows), "run": branch}
            about["columns"] = hashlib.sha256(_columns(written.columns)).hexdigest()
            self._repository.upload(branch, path, written.path, about)
        written.path.replace(self._cached(digest))
        failpoint("stage.written")
        return StagedPartition(
            use_case=self._use_case,
            table=table,
            partition=draft.partition,
            digest=digest,
            rows=written.rows,
            bytes=size,
            area=branch,
            base=None if anew else base,
            sources=draft.sources,
            problems=draft.problems,
        )

    def _state_columns(self, branch: str, main: str, table: str, frame: pl.DataFrame) -> None:
        """The first partition of a table brings its columns, and so does one with more: whether it may is for the
        publish to say. The same columns are the same bytes on every branch.
        """
        stated, columns = self._repository.read(main, schema_path(table)), _columns(frame)
        if stated is None or (stated != columns and _wider(frame, stated)):
            self._repository.upload(branch, schema_path(table), columns)

    # -- reading ---------------------------------------------------------------------------------------------------

    def local(self, staged: StagedPartition) -> Path:
        """A copy on this machine, of exactly the bytes that the server has."""
        found = self._found(staged.area, staged)
        path = self._cached(staged.digest)
        if path.exists() and _checksum(path) == found.checksum and digest_of_file(path) == staged.digest:
            return path
        temporary = self._temporary()
        try:
            if self._digest(staged.area, staged, temporary) != staged.digest:
                raise _spoiled(staged)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _found(self, ref: str, staged: StagedPartition) -> Stored:
        found = self._repository.stat(ref, part_path(staged.table, staged.partition))
        if found is None:
            raise NotFoundError(explain(_where(staged), "what was staged is gone", remedy="land it again"))
        return found

    def _digest(self, ref: str, staged: StagedPartition, into: Path | None = None) -> str:
        """The digest of a staged object's bytes as the server gives them now; from the start again if it breaks off.

        Raises:
            IntegrityError: the server has fewer bytes than it says: they end at the same place each time.
        """
        path, wait = part_path(staged.table, staged.partition), self._repository.patience()
        ends: list[int] = []
        while True:
            digest, ended = digester(), 0
            try:
                with into.open("wb") if into is not None else contextlib.nullcontext() as file:
                    for piece in self._repository.stream(ref, path):
                        digest.update(piece)
                        ended += len(piece)
                        if file is not None:
                            file.write(piece)
                return digest.hexdigest()
            except Unanswered as error:
                problem = str(error)
                ends.append(ended)
            except Refused:
                raise NotFoundError(
                    explain(_where(staged), "the staged bytes are gone", remedy="stage it again")
                ) from None
            if ends[-_BREAKS:] == [ended] * _BREAKS:
                raise _spoiled(staged)
            if not wait():
                raise self._repository.unavailable(problem)

    # -- on the way to main ----------------------------------------------------------------------------------------

    def prepare(self, table: str, area: str, parts: Sequence[StagedPartition]) -> Prepared:
        """Finds or makes the commit that brings these partitions of a run's branch and nothing else."""
        repository = self._repository
        head = repository.head(area)
        if head is None:
            raise NotFoundError(explain(_where(parts[0]), f"the branch {area} is gone", remedy="stage it again"))
        base, schema = self._base(head), schema_path(table)
        wanted = {part_path(table, part.partition) for part in parts}
        found = set(repository.changes(base, head))
        if found | {schema} == wanted | {schema}:
            return Prepared(source=head, base=base, branch=area, whole=True)
        branch = f"{area}-{secrets.token_hex(4)}"
        repository.create_branch(branch, base)
        for path in sorted(wanted | (found & {schema})):
            if (stored := repository.stat(head, path)) is not None:
                repository.copy(branch, stored)
        repository.commit(branch, f"{len(parts)} partitions of {area}", {_BASE: base})
        source = repository.head(branch)
        assert source is not None
        return Prepared(source=source, base=base, branch=branch, whole=False)

    def _base(self, head: str) -> str:
        """The commit of main from which a run's branch began."""
        commit = self._repository.get_commit(head)
        return (commit and commit.metadata.get(_BASE)) or self._repository.merge_base(head)

    def verify(self, table: str, source: str, parts: Sequence[StagedPartition]) -> dict[str, Stored]:
        """Reads the bytes that are about to be merged.

        Raises:
            IntegrityError: they are not what was staged. NotFoundError: they are gone.
        """
        held = Held(self._repository, source, table).many([part.partition for part in parts])
        found: dict[str, Stored] = {}
        for part in parts:
            stored = held[part.partition]
            if stored is None:
                raise NotFoundError(explain(_where(part), "it was discarded or swept", remedy="stage it again"))
            if digest_of(stored) != part.digest or self._digest(source, part) != part.digest:
                raise _spoiled(part)
            found[part.partition] = stored
        return found

    def finish(self, table: str, prepared: Prepared | None, area: str, staged: Sequence[StagedPartition]) -> None:
        """Removes what a publish leaves behind. What fails here is left to a sweep."""
        with contextlib.suppress(Exception):
            for part in staged:
                self._cached(part.digest).unlink(missing_ok=True)
            if prepared is not None and not prepared.whole:
                self._repository.delete_branch(prepared.branch)
            done = {part_path(table, part.partition) for part in staged} | {schema_path(table)}
            own = self._own(area)
            if all(self._is_on_main(area, path) for path in own - done):
                self._delete_branch(area, own)

    def _is_on_main(self, area: str, path: str) -> bool:
        ours, theirs = self._repository.stat(area, path), self._repository.stat(MAIN, path)
        return ours is None or (theirs is not None and ours.checksum == theirs.checksum)

    def discard(self, staged: StagedPartition) -> None:
        """Takes a partition off its branch, and the branch away with the last one."""
        repository = self._repository
        path = part_path(staged.table, staged.partition)
        self._cached(staged.digest).unlink(missing_ok=True)
        head, found = repository.head(staged.area), repository.stat(staged.area, path)
        if head is None or found is None:
            return
        base = self._base(head)
        if path in self._own(staged.area):
            self._lose(f"{staged.area}-{staged.partition}", [found])
        repository.delete(staged.area, [path])
        repository.commit(staged.area, f"discarded {staged.partition}", {_BASE: base})
        left = [each for each in self._own(staged.area) if repository.stat(staged.area, each) is not None]
        if set(left) <= {schema_path(staged.table)}:
            self.delete_branch(staged.area)

    def delete_branch(self, branch: str) -> None:
        """Deletes a run's branch, and the bytes that only it names; nothing happens when it is gone."""
        if self._repository.head(branch) is None:
            return
        self._delete_branch(branch, self._own(branch))

    def _delete_branch(self, branch: str, own: Iterable[str]) -> None:
        found = [self._repository.stat(branch, path) for path in sorted(own)]
        self._lose(branch, [each for each in found if each is not None])
        self._repository.delete_branch(branch)

    def _own(self, branch: str) -> set[str]:
        """The paths that a branch changed and that were not merged from it: whatever lies there, it alone names.

        Not the same as what main lacks: main may have got a copy from elsewhere.
        """
        return {*self._repository.changes(self._repository.merge_base(branch), branch)} | {
            *self._repository.uncommitted(branch)
        }

    def _lose(self, name: str, found: Sequence[Stored]) -> None:
        """Removes bytes that are about to lose their last name, or writes them down where that cannot be done."""
        if not found:
            return
        if self._blocks.reachable:
            self._blocks.remove(each.address for each in found)
        else:
            self._records.drop(name, found)

    # -- files on this machine -------------------------------------------------------------------------------------

    def _cached(self, digest: str) -> Path:
        return self._cache / f"{digest}.parquet"

    def _temporary(self) -> Path:
        self._cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._cache, suffix=".tmp")
        os.close(handle)
        return Path(name)


def _columns(frame: pl.DataFrame) -> bytes:
    """A Parquet file of no rows: names and types, and nothing else."""
    buffer = io.BytesIO()
    frame.clear().write_parquet(buffer)
    return buffer.getvalue()


def _wider(frame: pl.DataFrame, stated: bytes) -> bool:
    """Whether a frame has all the columns that a table's file of columns states, and more."""
    allowed = pl.read_parquet_schema(io.BytesIO(stated))
    return len(frame.schema) > len(allowed) and allowed.items() <= frame.schema.items()


def _checksum(path: Path) -> str:
    """lakeFS's checksum of an object is its MD5."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _spoiled(staged: StagedPartition) -> IntegrityError:
    return IntegrityError(explain(_where(staged), "the staged bytes are not what was staged", remedy="land it again"))


def _where(staged: StagedPartition) -> str:
    return f"{staged.use_case}/{staged.table}/{checked_key(staged.partition)}"

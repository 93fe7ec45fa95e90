"""Where bad partitions lie: a folder each, beside the tables and never read as data.

_quarantine/<table>/<key>/<digest>/<name>               the original files
_quarantine/<table>/<key>/<digest>/quarantined.json     the report; written last: without it there is no entry
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipelines.backends.delta_files import FileStore, Stored
from pipelines.backends.delta_names import checked_digest, checked_key, checked_table
from pipelines.failpoints import failpoint
from pipelines.records import Quarantined, ValidationReport

_QUARANTINE, _ENTRY = "_quarantine", "quarantined.json"


class DeltaQuarantine:
    """The quarantine of one use case."""

    def __init__(self, files: FileStore) -> None:
        """Reads nothing."""
        self._files = files

    def set_aside(self, report: ValidationReport, originals: Sequence[Path], *, published: bool = False) -> Quarantined:
        """Copies the original files, then writes the report; the same bytes give the entry that is there.

        Args:
            published: whether main holds the bytes, since expectations that were others let them through: an entry
                that is there is then as old as this verdict.
        """
        folder = _folder(report.table, report.partition, report.digest)
        path = f"{folder}/{_ENTRY}"
        now = datetime.now(UTC)
        if self._files.find(path) is not None:
            if published:
                kept = self._entry(path).model_copy(update={"at": now})
                self._files.write(path, kept.model_dump_json(indent=2).encode())
            return self._entry(path)
        for name, original in _names(originals):
            self._files.put(original, f"{folder}/{name}")
        entry = Quarantined(
            use_case=report.use_case,
            table=report.table,
            partition=report.partition,
            report=report,
            folder=self._files.uri(folder),
            at=now,
        )
        failpoint("quarantine.written")
        if self._files.write(path, entry.model_dump_json(indent=2).encode(), new=True):
            return entry
        return self._entry(path)

    def entries(self, table: str) -> list[Quarantined]:
        """Every entry of a table, oldest partition first."""
        found = self._files.below(f"{_QUARANTINE}/{checked_table(table)}")
        paths = sorted(stored.path for stored in found if PurePosixPath(stored.path).name == _ENTRY)
        return [self._entry(path) for path in paths]

    def originals(self, entry: Quarantined) -> dict[str, bytes]:
        """The original files of an entry, by name."""
        return {PurePosixPath(each.path).name: self._files.read(each.path) for each in self._originals(entry)}

    def expunge(self, entry: Quarantined, report: ValidationReport) -> None:
        """Replaces the report, then deletes the original files: a repeat after a crash finds those that are left."""
        path = f"{self._where(entry)}/{_ENTRY}"
        stored = self._entry(path)
        self._files.write(path, stored.model_copy(update={"report": report}).model_dump_json(indent=2).encode())
        failpoint("expunge.told")
        for each in list(self._originals(entry)):
            self._files.delete(each.path)

    def _originals(self, entry: Quarantined) -> Iterator[Stored]:
        found = sorted(self._files.below(self._where(entry)), key=lambda stored: stored.path)
        return (stored for stored in found if PurePosixPath(stored.path).name != _ENTRY)

    def _where(self, entry: Quarantined) -> str:
        return _folder(entry.table, entry.partition, PurePosixPath(entry.folder).name)

    def _entry(self, path: str) -> Quarantined:
        return Quarantined.model_validate_json(self._files.read(path))


def unfinished(files: FileStore) -> list[Stored]:
    """Original files whose report was never written: no entry shows them, so nobody but a sweep would find them."""
    found = list(files.below(_QUARANTINE))
    whole = {PurePosixPath(each.path).parent for each in found if PurePosixPath(each.path).name == _ENTRY}
    return [each for each in found if PurePosixPath(each.path).parent not in whole]


def _folder(table: str, partition: str, digest: str) -> str:
    folder = f"{_QUARANTINE}/{checked_table(table)}/{checked_key(partition, 'partition')}"
    return f"{folder}/{checked_digest(digest, 'quarantine')}"


def _names(originals: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """A name for each file in one folder, although they may come from several."""
    taken = {_ENTRY}
    for number, original in enumerate(originals):
        name = original.name if original.name not in taken else f"{number}-{original.name}"
        taken.add(name)
        yield name, original

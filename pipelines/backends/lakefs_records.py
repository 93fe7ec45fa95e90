"""What a use case's repository keeps beside main: quarantine, pins, tombstones, and bytes that wait to be removed.

All of it lies on one branch that is never merged. An entry's JSON is written last, so that one that is cut short is
not there; each is committed, so that the branch has a history as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipelines.backends.lakefs_client import Repository, Stored
from pipelines.backends.lakefs_http import Refused
from pipelines.backends.lakefs_layout import RECORDS, checked_key, checked_table
from pipelines.errors import ConflictError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.records import Pin, Quarantined, Record, Tombstone, ValidationReport

_ENTRY = "quarantined.json"
_TAG = "pin-"


class _Grave(Record):
    """A tombstone, as it is stored."""

    tombstone: Tombstone
    addresses: tuple[str, ...] = ()
    """Of the bytes that it removes: the same bytes uploaded again have another."""
    finished: bool = False


class Records:
    """The branch `overnight-records`."""

    def __init__(self, repository: Repository) -> None:
        """Asks nothing yet."""
        self._repository = repository
        self._read: dict[str, bytes] = {}

    # -- quarantine ------------------------------------------------------------------------------------------------

    def set_aside(self, report: ValidationReport, originals: Sequence[Path], *, published: bool = False) -> Quarantined:
        """Keeps the report and the original files; the same bytes give the same entry.

        Args:
            published: whether main holds the bytes, since expectations that were others let them through: an entry
                that is there is then as old as this verdict.
        """
        folder = f"{self._table(report.table)}{checked_key(report.partition)}/{report.digest}/"
        entry = Quarantined(
            use_case=report.use_case,
            table=report.table,
            partition=report.partition,
            report=report,
            folder=self._uri(folder),
            at=datetime.now(UTC),
        )
        if (kept := self._repository.read(RECORDS, folder + _ENTRY)) is not None:
            old = Quarantined.model_validate_json(kept)
            if published:
                old = old.model_copy(update={"at": entry.at})
                self._write(folder + _ENTRY, old.model_dump_json(indent=2).encode())
            return old
        taken: set[str] = set()
        for number, original in enumerate(originals):
            name = original.name if original.name not in taken else f"{number}-{original.name}"
            taken.add(name)
            self._repository.upload(RECORDS, f"{folder}originals/{name}", original)
        failpoint("quarantine.written")
        self._write(folder + _ENTRY, entry.model_dump_json(indent=2).encode())
        return entry

    def quarantined(self, table: str) -> list[Quarantined]:
        """Every entry of a table, oldest partition first."""
        paths = [found.path for found in self._repository.objects(RECORDS, self._table(table))]
        entries = [path for path in paths if path.count("/") == 4 and path.endswith(f"/{_ENTRY}")]
        found = [Quarantined.model_validate_json(self._repository.read(RECORDS, path) or b"") for path in entries]
        return sorted(found, key=lambda entry: (entry.partition, entry.report.digest))

    def originals(self, entry: Quarantined) -> dict[str, bytes]:
        """The original files of an entry, by name."""
        found = self._repository.objects(RECORDS, self._folder(entry) + "originals/")
        return {PurePosixPath(each.path).name: b"".join(self._repository.stream(RECORDS, each.path)) for each in found}

    def expunge(self, entry: Quarantined, report: ValidationReport) -> set[str]:
        """Takes away an entry's original files and puts another report in the place of its own.

        Returns:
            The addresses of the bytes that nothing may keep: of this call, or of one that was cut short.
        """
        folder = self._folder(entry)
        self._repository.commit(RECORDS, f"before expunging {folder}")  # what was replaced uncommitted has no address
        paths = {each.path for each in self._repository.objects(RECORDS, folder)}
        versions = self._versions(folder + _ENTRY)
        for commit in self._repository.log(RECORDS, path=folder + _ENTRY):
            paths |= {each.path for each in self._repository.objects(commit.id, folder)}
        for path in paths - {folder + _ENTRY}:
            versions += self._versions(path)
        kept = entry.model_copy(update={"report": report})
        stored = self._write(folder + _ENTRY, kept.model_dump_json(indent=2).encode())
        failpoint("expunge.told")
        self._repository.delete(RECORDS, sorted(paths - {folder + _ENTRY}))
        self._repository.commit(RECORDS, f"expunged {folder}")
        # An upload of what is there already is no new version to lakeFS: either address may be the living one.
        return {each.address for each in versions if each.checksum != stored.checksum}

    def _versions(self, path: str) -> list[Stored]:
        """Every committed version of an object."""
        commits = (self._repository.stat(commit.id, path) for commit in self._repository.log(RECORDS, path=path))
        return [found for found in commits if found is not None]

    def _table(self, table: str) -> str:
        return f"quarantine/{checked_table(table)}/"

    def _folder(self, entry: Quarantined) -> str:
        folder = f"{self._table(entry.table)}{checked_key(entry.partition)}/{entry.report.digest}/"
        if entry.folder != self._uri(folder):
            raise NotFoundError(explain(entry.folder, "this is not where the entry lies", allowed=self._uri(folder)))
        return folder

    def _uri(self, path: str) -> str:
        return f"lakefs://{self._repository.name}/{RECORDS}/{path}"

    # -- pins ------------------------------------------------------------------------------------------------------

    def pin(self, pin: Pin) -> Pin:
        """Keeps a snapshot by name: a record, of which the first writer wins, and a tag.

        Raises:
            ConflictError: the name pins another snapshot.
        """
        path = f"pins/{checked_key(pin.name, 'pin')}.json"
        try:
            self._write(path, pin.model_dump_json(indent=2).encode(), if_absent=True)
        except Refused as error:
            if error.status != 412:
                raise
        kept = Pin.model_validate_json(self._repository.read(RECORDS, path) or b"")
        if kept.snapshot != pin.snapshot:
            raise ConflictError(
                explain(
                    f"pin {pin.name}", f"it keeps {kept.snapshot.id}", remedy="unpin it first, or take another name"
                )
            )
        self._repository.create_tag(_TAG + pin.name, pin.snapshot.version)
        return kept

    def unpin(self, name: str) -> None:
        """Removes a pin, if there is one."""
        path = f"pins/{checked_key(name, 'pin')}.json"
        if self._repository.head(RECORDS) is None:
            return
        self._repository.delete_tag(_TAG + name)
        self._remove(path)

    def pins(self) -> list[Pin]:
        """Every pin, by name."""
        pins = [Pin.model_validate_json(text) for _, text in self._texts("pins/")]
        return sorted(pins, key=lambda pin: pin.name)

    # -- tombstones ------------------------------------------------------------------------------------------------

    def bury(self, tombstone: Tombstone, addresses: Iterable[str], *, finished: bool = False) -> set[str]:
        """Stores a tombstone and the addresses of the bytes that it removes. A repeat adds parts and addresses.

        Args:
            finished: whether the bytes are gone by now.

        Returns:
            All of its addresses.

        Raises:
            ConflictError: there is one of this name about something else.
        """
        path = f"tombstones/{checked_key(tombstone.id, 'tombstone')}.json"
        text = self._repository.read(RECORDS, path)
        kept = _Grave.model_validate_json(text) if text is not None else _Grave(tombstone=tombstone)
        old = kept.tombstone
        if (old.kind, old.table) != (tombstone.kind, tombstone.table):
            raise ConflictError(
                explain(f"tombstone {old.id}", f"it is of {old.table}, {old.kind}", remedy="take another name")
            )
        parts = (*old.parts, *(part for part in tombstone.parts if part not in old.parts))
        grave = _Grave(
            tombstone=old.model_copy(update={"parts": parts}),
            addresses=tuple(sorted({*kept.addresses, *addresses})),
            finished=finished,
        )
        self._write(path, grave.model_dump_json(indent=2).encode())
        return set(grave.addresses)

    def unfinished(self) -> list[Tombstone]:
        """Tombstones whose bytes may still be there."""
        return [grave.tombstone for grave in self._graves() if not grave.finished]

    def tombstones(self) -> list[Tombstone]:
        """Every tombstone, oldest first."""
        return sorted((grave.tombstone for grave in self._graves()), key=lambda stone: (stone.at, stone.id))

    def removed(self) -> dict[str, Tombstone]:
        """By address, the tombstone of bytes that are gone, or about to be."""
        return {address: grave.tombstone for grave in self._graves() for address in grave.addresses}

    def _graves(self) -> Iterator[_Grave]:
        return (_Grave.model_validate_json(text) for _, text in self._texts("tombstones/"))

    # -- bytes that nothing names ----------------------------------------------------------------------------------

    def drop(self, branch: str, found: Sequence[Stored]) -> None:
        """Writes down the bytes of a branch that is about to be deleted, for `dropped`."""
        lines = [{"path": each.path, "address": each.address, **each.metadata} for each in found]
        self._write(f"dropped/{branch}.json", json.dumps(lines, indent=2).encode())

    def dropped(self) -> dict[str, list[dict[str, str]]]:
        """What was written down and not removed yet, by record."""
        return {path: json.loads(text) for path, text in self._texts("dropped/")}

    def forget(self, path: str) -> None:
        """Deletes a record of `dropped`, once its bytes are removed."""
        self._remove(path)

    # -- inner -----------------------------------------------------------------------------------------------------

    def _write(self, path: str, content: bytes, *, if_absent: bool = False) -> Stored:
        stored = self._repository.upload(RECORDS, path, content, if_absent=if_absent)
        self._repository.commit(RECORDS, path)
        return stored

    def _remove(self, path: str) -> None:
        self._repository.delete(RECORDS, [path])
        self._repository.commit(RECORDS, f"without {path}")

    def _texts(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Small objects below a prefix; each version is fetched once."""
        for found in self._repository.objects(RECORDS, prefix):
            if found.address not in self._read:
                text = self._repository.read(RECORDS, found.path)
                if text is None:
                    continue  # removed meanwhile
                self._read[found.address] = text
            yield found.path, self._read[found.address]

"""Predictions as files that anybody reads: a folder a partition, on a disk or in S3.

    <target>/<folder>/partition=<key>/part-<digest8>-<generation>.parquet     or .csv
    <target>/<folder>/partition=<key>/manifest.json                           what is there; see `Manifest`
    <target>/<folder>/partition=<key>/_SUCCESS                                the key, last of all

What a reader does: waits until `_SUCCESS` is there (it stays, also when a partition is restated), reads
`manifest.json`, then exactly the files that it names. When one of them is gone, the partition was restated in that
moment: read the manifest again. So a reader has the former rows or the new ones, never some of each. Who reads
`part-*` without the manifest may, for a moment, see both.

A restated partition: files under new names, then the manifest in one exchange, then `_SUCCESS`, then the former files
go. The manifest is exchanged only for the one that was read before (S3: If-Match), so of two processes one wins and the
other reads again. Each manifest is one generation on, and names of files hold their generation: whoever made a
generation may remove every file of it and before it that its manifest does not name, because who wrote those has lost
already, or will.

Local files are not fsynced: this survives a killed process, not a power cut. An upload in several parts that was cut
off is S3's to remove (a bucket's lifecycle rule).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr, ValidationError

from pipelines.backends.delta_files import unavailable
from pipelines.backends.sink_places import BucketPlace, DiskPlace, Place
from pipelines.errors import ServiceRefused, SpecError, UnavailableError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Consignment
from pipelines.records import Delivered
from pipelines.records.base import Record
from pipelines.spec import FileDelivery

if TYPE_CHECKING:
    import polars as pl

MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,62}(/[A-Za-z0-9_.=-]+)*/?")
_PART = re.compile(r"part-[0-9a-f]{8}-(\d{6,})\.(parquet|csv)")
_PIECE = 2**20
#: Manifests of other processes after which it is left to a retry.
_ATTEMPTS = 10


class File(Record):
    """A file of a partition."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Manifest(Record):
    """What `manifest.json` says."""

    version: Literal[1] = 1
    """Of this form."""
    use_case: str
    delivery: str
    partition: str
    key: str
    """Idempotency key: another key, other rows."""
    generation: int
    """1 for the first; a restated partition has the next."""
    rows: int
    model_version: int
    snapshot: str
    """Id of the snapshot of predictions that first held these rows."""
    format: Literal["parquet", "csv"]
    columns: tuple[str, ...]
    types: dict[str, str]
    """Polars' name of each column's type; in CSV what is nested is JSON, and an instant is ISO 8601 in UTC."""
    files: tuple[File, ...]


class FileSink:
    """Delivers files."""

    def __init__(self, delivery: FileDelivery, address: SecretStr, use_case: str, cache: Path) -> None:
        """Makes nothing and connects to nothing.

        Args:
            address: an absolute path, or `s3://bucket/prefix`.
            cache: a folder of this machine for what is about to be uploaded.

        Raises:
            SpecError: the address is of another kind.
        """
        self._delivery = delivery
        self._root = address.get_secret_value()
        self._folder = delivery.folder or use_case
        self._cache = cache
        if _BUCKET.fullmatch(self._root) is None and not self._root.startswith("/"):
            raise SpecError(
                explain(
                    f"delivery {delivery.name}",
                    f"target {delivery.target!r} is no place for files",
                    allowed="an absolute path, or s3://bucket/prefix",
                    remedy="correct it in OVERNIGHT_TARGETS",
                )
            )

    def deliver(self, consignment: Consignment) -> Delivered:
        """See `Sink.deliver`."""
        place = self._place(consignment.prediction.partition)
        with place.alone():
            for _ in range(_ATTEMPTS):
                held = self._held(place, consignment)
                manifest, tag = held if held is not None else (None, None)
                if manifest is not None and manifest.key == consignment.key and _is_whole(place, manifest):
                    state: Literal["unchanged", "delivered"]
                    state = "unchanged" if _marked(place) == consignment.key else "delivered"
                    return self._end(place, manifest, state)
                fresh = self._write(place, consignment, 1 if manifest is None else manifest.generation + 1)
                failpoint("deliver.written")
                if place.swap(MANIFEST, fresh.model_dump_json(indent=2).encode(), tag):
                    failpoint("deliver.listed")
                    return self._end(place, fresh, "delivered")
                self._withdraw(place, consignment, fresh)
        what = "other processes keep delivering this partition"
        raise UnavailableError(explain(place.uri, what, remedy="run it again"))

    def _place(self, partition: str) -> Place:
        folder = f"{self._folder}/partition={partition}"
        if self._root.startswith("s3://"):
            return BucketPlace(self._root, folder, self._cache)
        return DiskPlace(Path(self._root), folder)

    def _held(self, place: Place, consignment: Consignment) -> tuple[Manifest, str] | None:
        """The manifest that is there.

        Raises:
            ServiceRefused: it is somebody else's.
        """
        found = place.read(MANIFEST)
        if found is None:
            return None
        try:
            manifest = Manifest.model_validate_json(found[0])
        except ValidationError:
            manifest = None
        if manifest is None or (manifest.use_case, manifest.delivery) != (consignment.use_case, consignment.delivery):
            whose = f"that of {manifest.use_case}: {manifest.delivery}" if manifest else "no manifest of a delivery"
            remedy = "give this delivery another folder; or, if the delivery was renamed, remove what is there"
            raise ServiceRefused(explain(f"{place.uri}/{MANIFEST}", f"what is there is {whose}", remedy=remedy))
        return manifest, found[1]

    def _write(self, place: Place, consignment: Consignment, generation: int) -> Manifest:
        kind = self._delivery.format
        with place.scratch() as scratch:
            try:
                rows = (_write_parquet if kind == "parquet" else _write_csv)(consignment, scratch)
                digest, size = _sha256(scratch), scratch.stat().st_size
            except OSError as error:
                raise unavailable(str(scratch.parent), error) from error
            name = f"part-{digest[:8]}-{generation:06d}.{kind}"
            place.take(scratch, name)
        return Manifest(
            use_case=consignment.use_case,
            delivery=consignment.delivery,
            partition=consignment.prediction.partition,
            key=consignment.key,
            generation=generation,
            rows=rows,
            model_version=consignment.prediction.model_version,
            snapshot=consignment.prediction.snapshot.id,
            format=kind,
            columns=tuple(consignment.schema),
            types={column: str(dtype) for column, dtype in consignment.schema.items()},
            files=(File(name=name, rows=rows, bytes=size, sha256=digest),),
        )

    def _withdraw(self, place: Place, consignment: Consignment, lost: Manifest) -> None:
        """Removes what was written for a manifest that did not get in, unless the one that did names it too."""
        held = self._held(place, consignment)
        if held is not None and held[0].generation >= lost.generation:
            for name in {file.name for file in lost.files} - {file.name for file in held[0].files}:
                place.delete(name)

    def _end(self, place: Place, manifest: Manifest, state: Literal["delivered", "unchanged"]) -> Delivered:
        """Marks what the manifest says as whole, and removes what it replaced."""
        now = manifest
        while _marked(place) != now.key:
            place.write(SUCCESS, now.key.encode())
            # Another process may have been faster with the next manifest, and slower than us with its mark.
            found = place.read(MANIFEST)
            now = Manifest.model_validate_json(found[0]) if found is not None else now
        failpoint("deliver.marked")
        for name in place.sizes():
            part = _PART.fullmatch(name)
            if part is not None and int(part[1]) <= now.generation and name not in {file.name for file in now.files}:
                place.delete(name)
        return Delivered(
            delivery=manifest.delivery,
            sink="files",
            partition=manifest.partition,
            key=manifest.key,
            rows=manifest.rows,
            where=place.uri,
            state=state,
        )


def _is_whole(place: Place, manifest: Manifest) -> bool:
    sizes = place.sizes()
    return all(sizes.get(file.name) == file.bytes for file in manifest.files)


def _marked(place: Place) -> str | None:
    found = place.read(SUCCESS)
    return None if found is None else found[0].decode(errors="replace")


def _write_parquet(consignment: Consignment, path: Path) -> int:
    from pipelines.parquet import Writer

    repeated = [name for name, dtype in consignment.schema.items() if not (dtype.is_float() or dtype.is_nested())]
    with Writer(path, consignment.schema, repeated) as file:
        for frame in consignment.rows():
            file.write(frame)
        return file.close({})


def _write_csv(consignment: Consignment, path: Path) -> int:
    from pipelines.backends.sink_rows import flat

    rows = 0
    with path.open("wb") as file:
        file.write(_csv(flat(consignment.schema.to_frame()), header=True))
        for frame in consignment.rows():
            file.write(_csv(flat(frame), header=False))
            rows += frame.height
    return rows


def _csv(frame: pl.DataFrame, *, header: bool) -> bytes:
    return frame.write_csv(include_header=header, quote_style="necessary").encode()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()

"""A shard's files in the folder of its run: whole, and noted with their digests, or not there."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.errors import IntegrityError, explain
from pipelines.parquet import digest
from pipelines.records import Piece, Shard

_KEY = re.compile("[0-9a-f]{32}")
#: Seconds after which nobody comes back for a run's pieces.
_OLD = 3 * 24 * 3600.0


def keep(out: Path, shard: str, files: Iterable[tuple[str, str, Any]]) -> None:
    """Writes the files of a shard, and last the note that says they are all there.

    Args:
        shard: JSON.
        files: partition, BLAKE3 and bytes of each.

    Raises:
        IntegrityError: the bytes are not those that the worker wrote.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = Shard.model_validate_json(shard)
    digests = {}
    for partition, expected, content in files:
        path = _file(out, told, partition)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        temporary.write_bytes(content)
        if digest(temporary) != expected:
            raise IntegrityError(explain(str(path), "the bytes are not those that were sent", remedy="run it again"))
        temporary.replace(path)
        digests[partition] = expected
    note = _note(out, told)
    temporary = note.with_suffix(f".{secrets.token_hex(4)}.tmp")
    temporary.write_text(json.dumps({"shard": told.model_dump(mode="json"), "digests": digests}), "utf-8")
    temporary.replace(note)


def kept(out: Path, shard: Shard) -> Piece | None:
    """The piece of a shard that an earlier try has finished; None where there is none, or not these bytes any more."""
    with suppress(OSError, ValueError, KeyError):
        told = json.loads(_note(out, shard).read_text("utf-8"))
        files = {partition: _file(out, shard, partition) for partition in told["digests"]}
        if Shard.model_validate(told["shard"]) == shard and all(
            digest(path) == told["digests"][partition] for partition, path in files.items()
        ):
            return Piece(shard=shard, files={partition: str(path) for partition, path in files.items()})
    return None


def forget(folder: Path) -> None:
    """Removes the pieces of runs that nobody comes back for, which lie in folders named by `ScorePlan.key`."""
    for run in folder.glob("*"):
        with suppress(OSError):
            if _KEY.fullmatch(run.name) and time.time() - run.stat().st_mtime > _OLD:
                shutil.rmtree(run, ignore_errors=True)


def _file(out: Path, shard: Shard, partition: str) -> Path:
    return out / f"{partition}-{shard.start:012d}.parquet"


def _note(out: Path, shard: Shard) -> Path:
    return out / f"{shard.partitions[0]}-{shard.start:012d}.json"

"""Shards' files between their scoring and their publish. They hold keys of rows: none may stay for ever.

A plan has a folder of its own (`Runtime.pieces`). It goes when the plan's scores are published, with an erasure of
somebody whom it holds, and with a collection once nobody has written to it for long: its run is dead.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipelines.parquet import unwritable


@contextmanager
def writing(path: Path, where: str) -> Iterator[Path]:
    """A name to write to, that no other attempt has; the file takes its place when the block ends well, whole.

    Args:
        where: what an error names.

    Raises:
        UnavailableError: the disk is full, or cannot be written to.
    """
    temporary = path.with_suffix(f".{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(where, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def drop(folder: Path) -> None:
    """Removes a plan's pieces; nothing happens when there are none."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path, before: datetime, *, dry_run: bool = True) -> list[str]:
    """Removes the pieces of plans that nobody has written to since.

    Args:
        root: holds a folder a plan.
        dry_run: say what would go, and change nothing.

    Returns:
        The folders.
    """
    found = [folder for folder in sorted(root.glob("*")) if folder.is_dir() and _written(folder) < before]
    if not dry_run:
        for folder in found:
            drop(folder)
    return [str(folder) for folder in found]


def _written(folder: Path) -> datetime:
    """When something was last written to a folder; a file that goes while we look was removed, which is later."""
    latest = folder.stat().st_mtime
    for path in folder.rglob("*"):
        try:
            latest = max(latest, path.stat().st_mtime)
        except FileNotFoundError:
            return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(latest, UTC)

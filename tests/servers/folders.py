"""Where servers that run as another account keep their files."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path


def open_to_all() -> str:
    """A folder for temporary files that every account may enter. A private TMPDIR is not: PostgreSQL is not root."""
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        folder = Path(candidate).resolve()
        if folder.is_dir() and all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents)):
            return str(folder)
    raise RuntimeError(f"no folder for temporary files that every account may enter: {tempfile.gettempdir()}")

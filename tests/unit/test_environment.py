"""The environment's digest is the lock file's, or that of what is installed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipelines.environment import environment_digest


def test_with_a_lock_file_its_bytes_count_and_without_one_what_is_installed(tmp_path: Path) -> None:
    installed = environment_digest(tmp_path)
    assert installed.startswith("installed:")
    assert environment_digest(tmp_path) == installed
    (tmp_path / "requirements.lock").write_bytes(b"polars==2.1\n")
    assert environment_digest(tmp_path) == f"lock:{hashlib.sha256(b'polars==2.1' + bytes([10])).hexdigest()}"

"""The store that a contract test is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.ports import SnapshotStore
from tests.contracts.stores import open_store


@pytest.fixture
def store(backend: str, tmp_path: Path) -> SnapshotStore:
    """An empty store of the backend."""
    return open_store(backend, tmp_path)

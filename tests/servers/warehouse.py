"""A business's database: a real PostgreSQL server for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.celery_backing import _initdb, postgres


@pytest.fixture(scope="session")
def warehouse() -> Iterator[str]:
    """The server's address, with its password."""
    if _initdb() is None:
        pytest.skip("not on this machine: initdb (apt-get install postgresql)")
    with postgres() as url:
        yield url.replace("postgresql+psycopg2://", "postgresql://")

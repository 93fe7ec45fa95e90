"""What several fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.promoters import Promoters


@pytest.fixture(scope="session")
def promoters() -> Iterator[Promoters]:
    """Processes that promote, ready to be forked."""
    server = Promoters()
    yield server
    server.close()

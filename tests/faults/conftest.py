"""What several fault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.champions import Champions
from tests.faults.nights import LARGE, LARGE_ROWS, Nights, put, rows
from tests.faults.promoters import Promoters
from tests.faults.scorers import Scorers


@pytest.fixture(scope="session")
def promoters() -> Iterator[Promoters]:
    """Processes that promote, ready to be forked."""
    server = Promoters()
    yield server
    server.close()


@pytest.fixture(scope="session")
def scorers(made_nights: Nights) -> Iterator[Scorers]:
    """Processes that score, ready to be forked."""
    server = Scorers(made_nights.night())
    yield server
    server.close()


@pytest.fixture(scope="session")
def made_nights(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """A champion and nights that nobody has scored; tests work on copies."""
    champions = registered.copy(tmp_path_factory.mktemp("nights"))
    champions.promote(1, "first")
    nights = Nights(champions=champions)
    put(nights.store, LARGE, rows(LARGE_ROWS))
    return nights


@pytest.fixture
def nights(made_nights: Nights, tmp_path: Path) -> Nights:
    """A copy of that, for a test to change."""
    return made_nights.copy(tmp_path)

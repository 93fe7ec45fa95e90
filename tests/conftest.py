"""Fixtures that every room shares. They are given explicit folders; none of them touches the environment.

Session-scoped landing zones are for reading: a test that spoils a file lays out, or copies, its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.spec import UseCase, load_spec
from tests.cases import REPOSITORY, Case, make_flights_case, make_third_case
from tests.cases.champions import Champions, make_champions
from tests.contracts.stores import BACKENDS, SERVERS
from tests.servers.lakefs import SKIPPED, lakefs_on_s3, lakefs_server
from tests.servers.seaweed import seaweed
from tests.servers.warehouse import warehouse

__all__ = ["lakefs_on_s3", "lakefs_server", "seaweed", "warehouse"]  # fixtures that come with their servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says once what was not tested for want of a server."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    if any(SKIPPED in text for text in skipped):
        terminalreporter.write_line(SKIPPED, yellow=True)


def pytest_sessionfinish() -> None:
    """Ends the server that tests fork processes from: left alone it outlives the session by a moment."""
    from multiprocessing import forkserver

    forkserver._forkserver._stop()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a snapshot store's backend, with the servers that it needs running."""
    name: str = request.param
    if name in SERVERS:
        request.getfixturevalue(SERVERS[name])
    return name


@pytest.fixture(scope="session")
def flights_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Three weeks of real flights, 2013-01-01 to 2013-01-21, with a small training section."""
    root = tmp_path_factory.mktemp("flights")
    return make_flights_case(root / "project", root / "landing")


@pytest.fixture(scope="session")
def flights_landing(flights_case: Case) -> Path:
    """The landing zone of those three weeks."""
    return flights_case.landing


@pytest.fixture(scope="session")
def flights_spec() -> UseCase:
    """The flights spec exactly as it ships."""
    return load_spec(REPOSITORY / "include" / "use_cases" / "flights.yaml")


@pytest.fixture(scope="session")
def third_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """36 hours of made-up readings: no feature function, JSON lines and Parquet, three classes."""
    root = tmp_path_factory.mktemp("readings")
    return make_third_case(root / "project", root / "landing")


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Champions:
    """A use case with three registered versions and no champion; tests work on copies."""
    return make_champions(tmp_path_factory.mktemp("champions"))


@pytest.fixture
def champions(registered: Champions, tmp_path: Path) -> Champions:
    """A copy of that, for a test to change."""
    return registered.copy(tmp_path)

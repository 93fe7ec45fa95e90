"""The pages behind the links: read-only, for those who may read the DAGs, and nothing outside the reports."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records import Audit, Commit, PublishedPartition, RunInfo, SnapshotRef
from tests.dags.conftest import load_plugin

plugin = load_plugin("overnight_reports")
# Airflow's API server imports FastAPI's test client, which warns about its own dependency.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "reports" / "flights" / "drift").mkdir(parents=True)
    (tmp_path / "reports" / "flights" / "drift" / "a.html").write_text("<p>a report</p>")
    (tmp_path / "reports" / "flights" / "data.json").write_text("{}")
    (tmp_path / "secret.html").write_text("a secret")
    (tmp_path / "reports" / "flights" / "out.html").symlink_to(tmp_path / "secret.html")
    return tmp_path


def test_a_report_is_found(home: Path) -> None:
    assert plugin.inside(home / "reports" / "flights", "drift/a.html").read_text() == "<p>a report</p>"


@pytest.mark.parametrize(
    "path",
    [
        "../../secret.html",
        "drift/../../../secret.html",
        "/etc/passwd",
        "out.html",
        "data.json",
        "drift",
        "",
        "no.html",
        "drift/a.html\0",
        "%2e%2e/%2e%2e/secret.html",
        "a" * 5000 + ".html",
    ],
)
def test_nothing_else_is(home: Path, path: str) -> None:
    assert plugin.inside(home / "reports" / "flights", path) is None


@given(st.lists(st.sampled_from(["..", ".", "drift", "a.html", "secret.html", "out.html", "", "~"]), max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "reports-anywhere"
    if not root.exists():
        (root / "drift").mkdir(parents=True)
        (root / "drift" / "a.html").write_text("a report")
        (root.parent / "secret.html").write_text("a secret")
        (root / "out.html").symlink_to(root.parent / "secret.html")
    found = plugin.inside(root, "/".join(parts))
    assert found is None or found == (root / "drift" / "a.html").resolve()


class Client:
    """Requests to an app in this process."""

    def __init__(self, app: Any, token: dict[str, str]) -> None:
        self.app = app
        self.token = token

    def ask(self, method: str, path: str, token: bool = True) -> Any:
        """One request, with the token or without."""
        import httpx

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                return await client.request(method, path, headers=self.token if token else {})

        return asyncio.run(send())


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app with Airflow's own authentication, and a token of its simple auth manager."""
    monkeypatch.setenv("OVERNIGHT_HOME", str(home))
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(home / "passwords.json"))
    from airflow import settings as airflow_settings
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.models.revoked_token import RevokedToken

    # The one table that a token is looked up in.
    RevokedToken.metadata.create_all(airflow_settings.engine, tables=[RevokedToken.__table__])
    manager = create_auth_manager()
    manager.init()
    token = manager.generate_jwt(SimpleAuthManagerUser(username="admin", role="VIEWER", teams=None))
    return Client(plugin.make_app(), {"Authorization": f"Bearer {token}"})


def test_who_is_not_logged_in_sees_nothing(client: Any) -> None:
    assert client.ask("GET", "/reports/flights/drift/a.html", token=False).status_code == 401
    assert client.ask("GET", "/snapshots/flights/rows/0", token=False).status_code == 401


def test_who_is_logged_in_sees_the_report_in_a_sandbox(client: Any) -> None:
    answer = client.ask("GET", "/reports/flights/drift/a.html")
    assert (answer.status_code, answer.text) == (200, "<p>a report</p>")
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/reports/flights/%2e%2e/%2e%2e/secret.html",
        "/reports/%2e%2e/secret.html",
        "/reports/flights/out.html",
        "/reports/flights/data.json",
        "/snapshots/flights/rows/99",
        "/snapshots/flights/_quarantine/0",
        "/snapshots/nothing/rows/0",
        "/snapshots/%2e%2e/rows/0",
    ],
)
def test_what_is_no_report_is_not_found(client: Any, path: str) -> None:
    assert client.ask("GET", path).status_code == 404


def test_the_app_only_reads(client: Any) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.ask(method, "/reports/flights/drift/a.html").status_code == 405


def test_a_snapshot_page_says_what_is_in_it_who_committed_it_and_what_it_was_audited_with() -> None:
    ref = SnapshotRef(store="delta", use_case="flights", table="rows", version="3")
    parts = [
        PublishedPartition(partition=key, digest=digest * 64, rows=rows)
        for key, digest, rows in (("2013-09-01", "a", 705), ("2013-09-02", "b", 893))
    ]
    commit = Commit(
        table="rows",
        snapshot=ref,
        at=datetime(2013, 9, 3, tzinfo=UTC),
        run=RunInfo(run_id="run <7>", dag_id="flights_ingest", code_version="abc"),
        partitions={"2013-09-02": "b" * 64},
        audits={"2013-09-02": Audit(digest="c" * 64, suite="flights_rows", suite_digest="d" * 64, checks=24, rows=893)},
    )
    page = plugin.snapshot_page(ref, parts, commit)
    assert "delta:flights/rows@3" in page
    assert "2 partitions, 1,598 rows" in page
    assert "24 checks of flights_rows" in page
    assert "run &lt;7&gt;" in page
    assert "run <7>" not in page

"""What the links on tasks open: validation and drift reports, and a page about each snapshot. Read-only.

Mounted in Airflow's API server at /overnight. A person sees what Airflow lets them see: the reports of a use case
are for those who may read its DAGs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pipelines.records import Commit, PublishedPartition, SnapshotRef

PROJECT = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")

# Reports are HTML with scripts in it that other libraries wrote from data: sandboxed, they have no origin, so that
# they reach neither Airflow's session nor its API.
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-downloads",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd;
text-align:left}td.n{text-align:right}code{font-size:13px}"""


def inside(root: Path, relative: str) -> Path | None:
    """The HTML file below `root` that a URL names, or None for anything else: links and `..` lead nowhere."""
    try:
        path = (root / relative).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    if path.suffix != ".html" or not path.is_file() or not path.is_relative_to(root.resolve()):
        return None
    return path


def snapshot_page(ref: SnapshotRef, parts: list[PublishedPartition], commit: Commit | None) -> str:
    """HTML about one snapshot: what it holds, who committed it, and which audits let it through."""
    title = escape(ref.id)
    rows = sum(part.rows for part in parts)
    lines = [f"<h1>{title}</h1><p>{len(parts)} partitions, {rows:,} rows</p>"]
    if commit:
        by = [("Run", commit.run.run_id), ("DAG", commit.run.dag_id), ("Code", commit.run.code_version)]
        told = {name: ", ".join(value) if _names(value) else value for name, value in commit.provenance.items()}
        by += [(name.capitalize(), value) for name, value in told.items() if isinstance(value, str)]
        facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in by)
        lines.append(f"<h2>Committed by</h2><table>{facts}</table>")
        lines.append("<h2>Replaced or added in this version</h2>")
        lines.append(_table(parts, set(commit.partitions), commit))
    lines.append("<h2>Everything in this version</h2>")
    lines.append(_table(parts, {part.partition for part in parts}, commit))
    body = "".join(lines)
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>{body}"


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _table(parts: list[PublishedPartition], chosen: set[str], commit: Commit | None) -> str:
    audits = commit.audits if commit else {}
    rows = []
    for part in parts:
        if part.partition in chosen:
            audit = audits.get(part.partition)
            seal = f"{audit.checks} checks of {escape(audit.suite)}" if audit else ""
            rows.append(
                f"<tr><td>{escape(part.partition)}</td><td class=n>{part.rows:,}</td>"
                f"<td><code>{escape(part.digest[:16])}</code></td><td>{seal}</td></tr>"
            )
    head = "<tr><th>Partition</th><th>Rows</th><th>BLAKE3</th><th>Audit</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def make_app() -> FastAPI:
    """The app itself; FastAPI and Airflow's security are imported here, so that other processes do without."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse, HTMLResponse

    from pipelines.errors import OvernightError
    from pipelines.records import SnapshotRef
    from pipelines.runtime import Runtime
    from pipelines.settings import Settings

    app = FastAPI(title="Overnight reports", docs_url=None, redoc_url=None, openapi_url=None)
    settings = Settings(project=PROJECT)

    def allow(use_case: str, user: Any) -> None:
        details = DagDetails(id=f"{use_case}_ingest")
        if not get_auth_manager().is_authorized_dag(method="GET", details=details, user=user):
            raise HTTPException(403, "you may not read this use case's DAGs")

    @app.get("/reports/{use_case}/{path:path}")
    def report(use_case: str, path: str, user: Any = Depends(get_user)) -> FileResponse:  # noqa: B008 (FastAPI's way)
        allow(use_case, user)
        found = inside(settings.reports / use_case, path) if _NAME.fullmatch(use_case) else None
        if found is None:
            raise HTTPException(404, "there is no such report")
        return FileResponse(found, media_type="text/html", headers=_HEADERS)

    @app.get("/snapshots/{use_case}/{table}/{version}")
    def snapshot(use_case: str, table: str, version: str, user: Any = Depends(get_user)) -> HTMLResponse:  # noqa: B008
        allow(use_case, user)
        try:
            runtime = Runtime.open(use_case, settings=settings)
            if table not in runtime.spec.tables and table not in ("predictions", "promotions", "decisions"):
                raise HTTPException(404, "there is no such table")
            ref = SnapshotRef(store=runtime.spec.snapshot, use_case=use_case, table=table, version=version)
            parts = list(runtime.store.partitions(ref).values())
            commit = next((entry for entry in runtime.store.history(table) if entry.snapshot == ref), None)
        except OvernightError as error:
            raise HTTPException(404, str(error)) from None
        return HTMLResponse(snapshot_page(ref, parts, commit), headers=_HEADERS)

    return app


_Message = MutableMapping[str, Any]


class LazyApp:
    """An ASGI app that is made at its first request: most processes load plugins and serve nothing."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Hands the request on."""
        if self._app is None:
            self._app = make_app()
        await self._app(scope, receive, send)


class OvernightReports(AirflowPlugin):
    """Registers the app."""

    name = "overnight_reports"
    fastapi_apps: ClassVar[list[Any]] = [{"app": LazyApp(), "url_prefix": "/overnight", "name": "Overnight reports"}]

"""As much of Airflow's REST API as the story needs, with the standard library."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

_DONE = ("success", "failed")
_PAGE = 100


class ApiError(RuntimeError):
    """Airflow refused a request, or a run did not end as the story needs."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One DAG run."""

    dag_id: str
    run_id: str
    run_type: str
    partition: str | None
    state: str
    seconds: float | None
    """From its start to its end; None before its end."""
    queued: datetime
    ended: datetime | None


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _run(raw: Mapping[str, Any]) -> Run:
    queued = _instant(raw["queued_at"]) or _instant(raw["run_after"])
    assert queued is not None
    return Run(
        dag_id=raw["dag_id"],
        run_id=raw["dag_run_id"],
        run_type=raw["run_type"],
        partition=raw.get("partition_key"),
        state=raw["state"],
        seconds=raw["duration"],
        queued=queued,
        ended=_instant(raw["end_date"]),
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a run, with its seconds: waiting for a worker, importing, working, and Airflow's own."""

    dag_id: str
    run_id: str
    task_id: str
    state: str | None
    tries: int
    total: float | None
    queue: float | None
    imports: float | None
    work: float | None


class Airflow:
    """One user's session."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._token = self._ask("POST", "/auth/token", {"username": user, "password": password})["access_token"]

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, method=method, headers=headers, data=data)  # noqa: S310
        try:
            with self._opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:500]
            raise ApiError(f"{method} {path}: {error.code} {text}") from None

    def get(self, path: str, **query: Any) -> Any:
        """One GET below /api/v2."""
        return self._ask("GET", f"/api/v2{path}" + (f"?{urlencode(query)}" if query else ""))

    def wait_for_dags(self, dag_ids: set[str], seconds: float, pause: float = 0.5) -> None:
        """Waits until the DAG processor has read every one of these DAGs.

        Raises:
            ApiError: a DAG file does not import, or the DAGs are not there in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = {dag["dag_id"] for dag in self.get("/dags", limit=_PAGE)["dags"]}
            if dag_ids <= found:
                return
            if errors := self.get("/importErrors")["import_errors"]:
                raise ApiError(f"{errors[0]['filename']} does not import: {errors[0]['stack_trace'][-500:]}")
            time.sleep(pause)
        raise ApiError(f"Airflow did not find {', '.join(sorted(dag_ids - found))} within {seconds:.0f} s")

    def trigger(self, dag_id: str, *, partition: str | None = None, run_id: str | None = None, **conf: Any) -> Run:
        """Starts a run, by partition key or with form parameters."""
        body = {"logical_date": None, "partition_key": partition, "conf": conf}
        if run_id:
            body["dag_run_id"] = run_id
        return _run(self._ask("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body))

    def run(self, dag_id: str, run_id: str) -> Run:
        """A run as it is now."""
        return _run(self.get(f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"))

    def runs(self, dag_id: str) -> list[Run]:
        """Every run of a DAG, oldest first."""
        return [_run(raw) for raw in self._pages(f"/dags/{quote(dag_id)}/dagRuns", "dag_runs", order_by="id")]

    def wait(self, run: Run, seconds: float, on_poll: Callable[[Run], None], pause: float = 0.25) -> Run:
        """Waits for the end of a run, whichever it is.

        Raises:
            ApiError: it did not end in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = self.run(run.dag_id, run.run_id)
            if run.state in _DONE:
                return run
            on_poll(run)
            time.sleep(pause)
        raise ApiError(f"{run.dag_id} {run.run_id} is still {run.state} after {seconds:.0f} s")

    def wait_for_run(
        self, dag_id: str, wanted: Callable[[Run], bool], seconds: float, pause: float = 0.25
    ) -> Run | None:
        """Waits until a run that somebody else started appears; None when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            if found := [run for run in self.runs(dag_id) if wanted(run)]:
                return found[-1]
            if time.monotonic() > deadline:
                return None
            time.sleep(pause)

    def result(self, run: Run, task_id: str, key: str = "return_value") -> Any:
        """What a step returned (see `usecase_dags.steps`), or None: it failed, was skipped or has not run.

        Args:
            key: of the XCom.
        """
        path = f"{self._tasks_of(run)}/{quote(task_id)}/xcomEntries/{quote(key)}"
        try:
            return self.get(path, stringify="false")["value"]
        except ApiError as error:
            if ": 404 " in str(error):
                return None
            raise

    def step(self, run: Run, task_id: str) -> Any:
        """A step's record, seconds and imports, whether or not a mapped task follows it."""
        found = self.result(run, task_id)
        return self.result(run, task_id, "step") if isinstance(found, list) else found

    def log(self, run: Run, task_id: str, tries: int = 1) -> str:
        """What a try of a task logged, an entry a line."""
        told = self.get(f"{self._tasks_of(run)}/{quote(task_id)}/logs/{tries}", full_content="true")["content"]
        return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in told)

    def links(self, run: Run, task_id: str) -> dict[str, str | None]:
        """The buttons of a task and where they lead."""
        found: dict[str, str | None] = self.get(f"{self._tasks_of(run)}/{quote(task_id)}/links")["extra_links"]
        return found

    def tasks(self, run: Run) -> list[Task]:
        """Every task of a run with its seconds."""
        return [self._task(run, raw) for raw in self._pages(self._tasks_of(run), "task_instances")]

    def states(self, run: Run) -> dict[str, str | None]:
        """Each task's state."""
        return {raw["task_id"]: raw["state"] for raw in self._pages(self._tasks_of(run), "task_instances")}

    def question(self, run: Run, task_id: str) -> dict[str, Any] | None:
        """What a task of the run asks a person, and the answer so far; None before it has asked."""
        try:
            found: dict[str, Any] = self.get(f"{self._tasks_of(run)}/{quote(task_id)}/-1/hitlDetails")
        except ApiError as error:
            if ": 404 " in str(error):
                return None
            raise
        return found

    def answer(self, run: Run, task_id: str, option: str) -> None:
        """Answers a task's question as this user."""
        path = f"/api/v2{self._tasks_of(run)}/{quote(task_id)}/-1/hitlDetails"
        self._ask("PATCH", path, {"chosen_options": [option], "params_input": {}})

    def clear(self, run: Run, *task_ids: str) -> None:
        """Has these tasks run again, and what follows them."""
        body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": task_ids, "include_downstream": True}
        self._ask("POST", f"/api/v2/dags/{quote(run.dag_id)}/clearTaskInstances", {**body, "only_failed": False})

    def _task(self, run: Run, raw: Mapping[str, Any]) -> Task:
        scheduled, begun = _instant(raw["scheduled_when"]), _instant(raw["start_date"])
        result = self.step(run, raw["task_id"]) if raw["state"] == "success" else None
        seconds = result.get("seconds", {}) if isinstance(result, dict) else {}
        return Task(
            dag_id=run.dag_id,
            run_id=run.run_id,
            task_id=raw["task_id"],
            state=raw["state"],
            tries=raw["try_number"],
            total=raw["duration"],
            queue=round((begun - scheduled).total_seconds(), 3) if begun and scheduled else None,
            imports=seconds.get("import"),
            work=seconds.get("work"),
        )

    def _tasks_of(self, run: Run) -> str:
        return f"/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id)}/taskInstances"

    def _pages(self, path: str, field: str, **query: Any) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            page = self.get(path, limit=_PAGE, offset=offset, **query)
            yield from page[field]
            offset += _PAGE
            if offset >= page["total_entries"]:
                return

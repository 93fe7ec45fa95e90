"""Warm workers: what tasks import is imported once, in the process that workers are forked from.

Airflow imports this file, by this name, in each of its processes. LocalExecutor's workers are forked from the
scheduler and Celery's prefork pool from the worker's main process, and every task is forked from its worker, so that
what is imported here costs a task nothing. OVERNIGHT_WARM=0 turns it off; when it fails, tasks run all the same, only
slower.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import threading
import time
from contextlib import suppress
from typing import Any

# Airflow takes every public name of this file for a setting.
__all__: list[str] = []

#: What Airflow's own start of a task, and the DAG file that the task reads, import beyond what a worker has:
#: some ten milliseconds a task. One that another version of Airflow lacks is passed over.
_AIRFLOW = (
    "airflow.api_fastapi.auth.managers.models.resource_details",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.providers.common.compat.assets",
    "airflow.providers.common.io.assets.file",
    "airflow.providers.postgres.assets.postgres",
    "airflow.sdk.bases.decorator",
    "airflow.sdk.execution_time.task_runner",
    "jinja2.ext",
)


def _forks_workers(arguments: list[str]) -> bool:
    """Whether this process is the one that workers are forked from."""
    if multiprocessing.parent_process() is not None:
        return False
    if "pipelines.warm" in sys.modules:
        return False  # Airflow's plugin loader runs this file a second time
    if arguments[:1] == ["scheduler"]:
        from airflow.configuration import conf

        return "LocalExecutor" in conf.get("core", "executor")  # a list, or one
    return arguments[:2] == ["celery", "worker"]


def _count_milliseconds() -> None:
    """Makes SQLite's `now()` count milliseconds.

    The scheduler starts a run once `run_after <= now()`. SQLite's CURRENT_TIMESTAMP counts whole seconds, so each run
    waited for the next full second: half a second on average, twice a night. Other databases are not touched.
    """
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.functions import now

    @compiles(now, "sqlite")
    def _now(_element: Any, _compiler: Any, **_options: Any) -> str:
        return "strftime('%Y-%m-%d %H:%M:%f', 'now')"


def _warm_up() -> None:
    import structlog

    log = structlog.get_logger("overnight.warm")
    try:
        from pipelines import warm
        from pipelines.settings import Settings

        settings = Settings()
        if not settings.warm:
            log.info("warm workers are turned off (OVERNIGHT_WARM)")
            return
        begun = time.perf_counter()
        failed = warm.load_all(*(warm.LAKEFS if settings.lakefs_endpoint is not None else ()))
        for module in _AIRFLOW:
            with suppress(ImportError):
                importlib.import_module(module)
        log.info(
            "warm: imported once for every task",
            seconds=round(time.perf_counter() - begun, 1),
            modules=len(sys.modules),
        )
        for module, error in failed.items():
            log.warning("not warm: tasks that import this module will be slower", module=module, error=error)
        if extra := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
            log.warning("an import started threads, which workers will not have", threads=extra)
    except Exception:
        log.exception("workers are not warm: tasks run, only slower")


if sys.argv[1:2] == ["scheduler"]:
    _count_milliseconds()
if _forks_workers(sys.argv[1:]):
    _warm_up()

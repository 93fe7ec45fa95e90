"""Warm workers: what tasks import is imported once, in the process that workers are forked from.

Airflow imports this file, by this name, in each of its processes. LocalExecutor's workers are forked from the
scheduler and Celery's from the worker's main process, and every task is forked from its worker, so that what is
imported here costs a task nothing. OVERNIGHT_WARM=0 turns it off; when it fails, tasks run all the same, only slower.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

# Airflow takes every public name of this file for a setting.
__all__: list[str] = []


def _forks_workers(arguments: list[str]) -> bool:
    """Whether this process is the one that workers are forked from."""
    if multiprocessing.parent_process() is not None:
        return False
    if "pipelines.warm" in sys.modules:
        return False  # Airflow's plugin loader runs this file a second time
    return arguments[:1] == ["scheduler"] or arguments[:2] == ["celery", "worker"]


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


if _forks_workers(sys.argv[1:]):
    _warm_up()

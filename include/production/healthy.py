"""A container's health check: `python -m include.production.healthy URL [COMPONENT]`, exit code 0 when healthy.

Healthy is a URL that answers 200 and, where Airflow's /api/v2/monitor/health is asked about one of its components,
whose answer calls that component healthy, which it does while its heartbeat is fresh.
"""

from __future__ import annotations

import json
import sys
import urllib.request


def is_healthy(url: str, component: str | None = None, timeout: float = 8) -> bool:
    """Asks once; whatever is not a clear yes is a no.

    Args:
        component: metadatabase, scheduler, dag_processor or triggerer.
        timeout: seconds.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=timeout) as answer:
            return component is None or json.load(answer)[component]["status"] == "healthy"
    except (OSError, ValueError, KeyError, TypeError):
        return False


if __name__ == "__main__":
    sys.exit(not is_healthy(*sys.argv[1:3]))

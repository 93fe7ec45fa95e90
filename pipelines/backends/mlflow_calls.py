"""How Overnight talks to MLflow: quietly, with bounded patience, and with its own errors."""

from __future__ import annotations

import fcntl
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import ConflictError, NotFoundError, OvernightError, TerminalError, UnavailableError, explain

#: MLflow reads these at each call. A person's own setting wins. Its defaults try for minutes and draw progress bars.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND")
#: How SQLite, Postgres and MySQL say that two wrote the same key at once.
_TAKEN = ("UNIQUE constraint failed", "duplicate key value", "Duplicate entry")
_PASSING = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")


def connect(uri: str) -> Any:
    """An MlflowClient on this tracking and registry URI; the folder of an SQLite file is made when absent."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    # MLflow sets its own logger's level at import.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # MLflow's tables use a loader strategy that SQLAlchemy 2.1 deprecates; nobody here can change that.
        warnings.filterwarnings("ignore", message=".*noload.*")
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def one_at_a_time(uri: str) -> Iterator[None]:
    """Holds a lock beside an SQLite file, so that of two who look for something and make it the second finds it.

    A server's callers are not held back: nothing that all of them share could be locked.
    """
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    with path.with_name(f"{path.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # given back when the file is closed, by a killed process as well
        yield


@contextmanager
def mlflow_calls(where: str) -> Iterator[None]:
    """Turns what MLflow raises into errors that say whether a retry can help.

    Raises:
        ConflictError: another writer wrote the same thing at the same moment.
        NotFoundError: what was asked for is not there.
        UnavailableError: the server or its database did not answer as it should.
        TerminalError: MLflow refused the request.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except OvernightError:
        raise
    except MlflowException as error:
        code = error.error_code
        message = str(error).splitlines()[0][:500]
        if any(words in message for words in _TAKEN):
            raise ConflictError(explain(where, f"another writer was first: {message}", remedy="try again")) from None
        if code in _NOT_THERE:
            raise NotFoundError(explain(where, message)) from None
        # A connection that failed has no code of a server: MLflow reports it as an internal error.
        if code in _PASSING or error.get_http_status_code() >= 500:
            raise UnavailableError(
                explain(
                    where, f"MLflow did not answer as it should: {message}", remedy="see that it runs; a retry may do"
                )
            ) from None
        raise TerminalError(explain(where, f"MLflow refused: {message}")) from error
    except OSError as error:
        raise UnavailableError(explain(where, f"{type(error).__name__}: {error}")) from error

"""The book of alerts: a file of JSON lines that every process of a use case may append to, an incident once.

A line is whole or not there: writers take turns by a lock on the file, and what a killed writer left of a line is cut
off by the next one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from pipelines.records import Alert


class AlertBook:
    """The alerts of one use case, oldest first."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet.

        Args:
            path: of the file; it and its folder are made by the first alert.
        """
        self.path = path

    def entries(self) -> list[Alert]:
        """Every line. What is being written at this moment does not count yet."""
        try:
            return _parse(self.path.read_bytes())
        except FileNotFoundError:
            return []

    def open(self) -> list[Alert]:
        """What has been told and is not over."""
        return _open(self.entries())

    def tell(self, alert: Alert) -> bool:
        """Appends an alert, unless its incident has been told before; gives whether it was appended."""
        with self._turn() as file:
            if any(alert.incident == told.incident for told in _parse(file.read())):
                return False
            _append(file, [alert])
        return True

    def resolve(self, partitions: Collection[str], *, at: datetime, run: str, how: str) -> tuple[Alert, ...]:
        """Ends the open alerts of these partitions; gives the lines that say so.

        Args:
            at: now (UTC).
            run: `DAG/run` that ended them.
            how: what is there now, such as "published by version 3".
        """
        if not any(alert.partition in partitions for alert in self.open()):
            return ()  # the rule: nothing is written, and no lock is waited for
        with self._turn() as file:
            over = tuple(
                alert.model_copy(update={"state": "resolved", "at": at, "run": run, "missing": how, "remedy": ""})
                for alert in _open(_parse(file.read()))
                if alert.partition in partitions
            )
            _append(file, over)
        return over

    @contextmanager
    def _turn(self) -> Iterator[BinaryIO]:
        """The file, at its begin, for one process at a time; half a line at its end is gone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, or with its process
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.seek(0)
            yield file


def _append(file: BinaryIO, alerts: Collection[Alert]) -> None:
    file.write(b"".join(alert.model_dump_json().encode() + b"\n" for alert in alerts))
    file.flush()
    os.fsync(file.fileno())


def _parse(content: bytes) -> list[Alert]:
    found = []
    for line in content.split(b"\n")[:-1]:  # what follows the last line break is not written to its end
        with suppress(ValidationError):  # somebody's own line, or a later version's
            found.append(Alert.model_validate_json(line))
    return found


def _open(entries: Collection[Alert]) -> list[Alert]:
    last = {alert.incident: alert for alert in entries}
    return [alert for alert in last.values() if alert.state == "open"]

"""The book of alerts: a file of JSON lines that every process of a use case may append to, an incident once.

A line is whole or not there: writers take turns by a lock on the file, and what a killed writer left of a line is cut
off by the next one. What each channel was told of it stands in a file beside it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from pipelines import partitions as keys
from pipelines.partitions import Granularity
from pipelines.records import Alert, Condition
from pipelines.spec import AlertKind


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
        with _turn(self.path) as file:
            if any(alert.incident == told.incident for told in _parse(file.read())):
                return False
            _append(file, [alert])
        return True

    def resolve(self, partitions: Collection[str], *, at: datetime, run: str, how: str) -> tuple[Alert, ...]:
        """Ends the open alerts about late nights; gives the lines that say so.

        Args:
            partitions: whose scores are there now.
            at: now (UTC).
            run: `DAG/run` that ended them.
            how: what is there now, such as "published by version 3".
        """

        def over(alert: Alert) -> bool:
            return alert.kind == "late" and alert.partition in partitions

        if not any(map(over, self.open())):
            return ()  # the rule: nothing is written, and no lock is waited for
        with _turn(self.path) as file:
            ended = tuple(_ended(alert, at, run, how) for alert in _open(_parse(file.read())) if over(alert))
            _append(file, ended)
        return ended

    def update(
        self,
        use_case: str,
        conditions: Sequence[Condition],
        *,
        granularity: Granularity,
        at: datetime,
        run: str,
        evidence: Mapping[AlertKind, str],
    ) -> tuple[Alert, ...]:
        """Opens incidents that a monitor run raised, and ends those that are over; gives the lines that say so.

        While an incident of a kind is open, no other of it is told: a storm is one message, however many columns and
        nights it has. What was told and ended is told again only of another partition.

        Args:
            at: now (UTC).
            run: `DAG/run` that looked.
            evidence: by kind, what shows it.
        """
        lines: list[Alert] = []
        with _turn(self.path) as file:
            told = _parse(file.read())
            incidents = {alert.incident for alert in told}
            open_ = {alert.kind: alert for alert in _open(told)}
            for each in conditions:
                if each.state == "over" and each.kind in open_:
                    lines.append(_ended(open_[each.kind], at, run, "it is over, as of this run"))
                elif each.state == "raised" and each.kind not in open_:
                    alert = Alert(
                        kind=each.kind,
                        state="open",
                        level=each.level,
                        use_case=use_case,
                        partition=each.partition,
                        since=keys.start(each.partition, granularity),
                        at=at,
                        what=each.what,
                        remedy=each.remedy,
                        evidence=evidence.get(each.kind, ""),
                        run=run,
                    )
                    if alert.incident not in incidents:
                        lines.append(alert)
            _append(file, lines)
        return tuple(lines)

    @contextmanager
    def channel(self, name: str) -> Iterator[Telling]:
        """What a channel is still to be told, for one process at a time.

        A process that dies between a message and `Telling.done` has it sent again: twice rather than never.
        """
        with _turn(self.path.with_name(f"{self.path.stem}.{name}.told")) as file:
            yield Telling(_unsaid(self.entries(), _parse(file.read())), file)


@dataclass(frozen=True)
class Telling:
    """A channel's turn."""

    unsaid: tuple[Alert, ...]
    """Lines, oldest first. An incident that was over before the channel was told of it is not among them."""
    file: BinaryIO

    def done(self, alert: Alert) -> None:
        """The channel was told this line."""
        _append(self.file, [alert])


def subject(alert: Alert) -> str:
    """A message's first line: `flights: alarm: inputs drift, since 2013-07-04`."""
    word = _WORDS[alert.kind]
    if alert.state == "resolved":
        return f"{alert.use_case}: over: {word}, since {alert.partition}"
    return f"{alert.use_case}: {alert.level}: {word}, since {alert.partition}"


def message(alert: Alert, link: str) -> str:
    """The message's text: what, since when, how bad, what to do, and where the evidence is.

    Args:
        link: URL of the run that told it.
    """
    lines = [
        f"What: {alert.what}",
        f"Since: {alert.partition} ({alert.since:%Y-%m-%d %H:%M} UTC)",
        f"How bad: {alert.level}" if alert.state == "open" else f"Over: {alert.at:%Y-%m-%d %H:%M} UTC",
        f"What to do: {alert.remedy}" if alert.remedy else "",
        f"Evidence: {alert.evidence}" if alert.evidence else "",
        f"Run: {alert.run} {link}".rstrip(),
    ]
    return "\n".join(line for line in lines if line)


_WORDS = {
    "late": "scores are late",
    "inputs": "inputs drift",
    "scores": "scores drift",
    "decay": "the champion decays",
    "data": "data is missing",
    "labels": "labels are not as they should be",
    "skew": "features differ between scoring and training",
    "person": "a person has to look",
}


def _unsaid(entries: Sequence[Alert], told: Sequence[Alert]) -> tuple[Alert, ...]:
    said = {(alert.incident, alert.state) for alert in told}
    last = {alert.incident: alert for alert in entries}
    return tuple(
        alert
        for alert in last.values()
        if (alert.incident, alert.state) not in said and (alert.state == "open" or (alert.incident, "open") in said)
    )


def _ended(alert: Alert, at: datetime, run: str, how: str) -> Alert:
    return alert.model_copy(update={"state": "resolved", "at": at, "run": run, "what": how, "remedy": ""})


@contextmanager
def _turn(path: Path) -> Iterator[BinaryIO]:
    """The file, at its begin, for one process at a time; half a line at its end is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, or with its process
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(0)
        yield file


def _append(file: BinaryIO, alerts: Collection[Alert]) -> None:
    if alerts:
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

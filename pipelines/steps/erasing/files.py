"""Erasure outside the tables: quarantine, report pages, training sets, cached copies, and the landing zone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import InputError
from pipelines.ports import DataSource, SnapshotStore
from pipelines.records import Delivered, Quarantined, ValidationReport
from pipelines.spec import UseCase
from pipelines.spec.base import WORKSPACE
from pipelines.steps.deliveries import deliveries
from pipelines.steps.erasing.traces import Traces
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.provenance import LOGS, all_tables

_ERASED = "erased"
#: What of a sealed artifact holds words: the rest is weights.
_PAPERS = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Folders outside the store that may hold copies of rows. None of them need exist."""

    reports: Path
    work: Path
    cache: Path


def quarantined_with(spec: UseCase, store: SnapshotStore, traces: Traces) -> list[tuple[Quarantined, str]]:
    """Quarantine entries that hold the subject, each with the reason for thinking so.

    An original that cannot be read to its end is taken to hold it.
    """
    found = []
    for table in (*spec.tables, PREDICTIONS):
        cap = spec.tables[table].max_bytes if table in spec.tables else 0
        for entry in store.quarantined(table):
            originals = store.originals(entry).values()
            verdicts = [traces.in_file(data, table, entry.partition, cap) for data in originals]
            if True in verdicts or any(traces.mentioned(check.observed) for check in entry.report.checks):
                found.append((entry, "held the subject"))
            elif None in verdicts:
                found.append((entry, "could not be read to the end, so it may have held the subject"))
    return found


def cleaned(report: ValidationReport) -> ValidationReport:
    """The report without what it quotes from the data, and without its page."""
    checks = tuple(check.model_copy(update={"observed": _ERASED}) for check in report.checks)
    return report.model_copy(update={"checks": checks, "html": None})


def pages_with(spec: UseCase, traces: Traces, places: Places, entries: Iterable[Quarantined]) -> list[Path]:
    """Report pages that quote the subject, and those of quarantine entries that held it.

    Where the subject's column is a feature, every drift page of the use case counts, and every run of it in the
    workspace: they show values in pictures.
    """
    root = places.reports / spec.name
    theirs = {Path(entry.report.html).name for entry in entries if entry.report.html}
    shown = traces.subject.column in spec.features.columns
    pages = [
        path
        for path in _files(root)
        if path.name in theirs
        or (shown and path.is_relative_to(root / "drift"))
        or traces.in_file(path.read_bytes()) is True
    ]
    runs = [path for path in _files(places.reports / WORKSPACE) if _is_run_of(spec, path)]
    return [*pages, *(path for path in runs if shown or traces.in_file(path.read_bytes()) is True)]


def _is_run_of(spec: UseCase, path: Path) -> bool:
    """Whether a file of the workspace, which all use cases share, is a run of this one."""
    try:
        told = json.loads(path.read_bytes())
    except ValueError:
        return False
    about = told.get("metadata") if isinstance(told, dict) else None
    return isinstance(about, dict) and about.get("use_case") == spec.name


def copies_with(spec: UseCase, traces: Traces, places: Places, digests: set[str]) -> list[Path]:
    """Training sets, unregistered artifacts, pieces of scores and cached files that hold the subject.

    All of them can be made or fetched again.

    Args:
        digests: of the published files that hold it: their cached copies bear these names.
    """
    work = places.work / spec.name
    sets = [
        folder
        for name in ("sets", "scores")
        for folder in _folders(work / name)
        if any(map(traces.in_copy, _files(folder)))
    ]
    learned = traces.subject.column in spec.features.columns
    artifacts = [folder for folder in _folders(work / "artifacts") if learned or artifact_holds(traces, folder)]
    cached = [path for path in _files(places.cache) if path.stem in digests or traces.in_copy(path)]
    return [*sets, *artifacts, *cached]


def artifact_holds(traces: Traces, folder: Path) -> bool:
    """Whether the papers of a model's artifact hold the subject's value, as a word of a vocabulary say."""
    if traces.subject.text is None:  # a number among a model's numbers says nothing
        return False
    return any(traces.in_file(path.read_bytes()) for path in _files(folder) if path.suffix in _PAPERS)


def remove(path: Path) -> None:
    """Removes a file or a folder; nothing happens when it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def landing_with(spec: UseCase, source: DataSource, traces: Traces) -> Iterator[str]:
    """The files of the landing zone that hold the subject, or that nobody can read."""
    for table, about in spec.tables.items():
        for partition in source.partitions(spec, table):
            try:
                for file in source.files(spec, table, partition):
                    data = source.local_path(file).read_bytes()
                    verdict = traces.in_file(data, table, partition, about.max_bytes)
                    if verdict is not False:
                        yield f"landing zone: {file.path}" + ("" if verdict else " (cannot be read to its end)")
            except (InputError, OSError):
                yield f"landing zone: {table} {partition} (cannot be read)"


def notes_with(spec: UseCase, store: SnapshotStore, traces: Traces) -> Iterator[str]:
    """Commits, log entries, pins and tombstones whose words hold the value: reasons and names that people gave.

    Only for values that are text: a number is part of any of them.
    """
    if traces.subject.text is None:
        return
    for table in all_tables(spec):
        for commit in store.history(table):
            if traces.names(commit.model_dump_json()):
                yield f"commit {commit.snapshot.id}: its run, reason or file names quote the value"
    for table in LOGS:
        for part in store.held(table):
            words = store.read_held(table, part).collect()
            if traces.names(words.write_json()):
                yield f"{spec.name}/{table}/{part.partition}: the entry quotes the value"
    for pin in store.pins():
        if traces.names(pin.model_dump_json()):
            yield f"pin {pin.snapshot.id}: its name or reason quotes the value"
    for tombstone in store.tombstones():
        if traces.names(tombstone.reason):
            yield f"tombstone {tombstone.id}: its reason quotes the value"


def handed_over(spec: UseCase, store: SnapshotStore) -> Iterator[str]:
    """The places outside that predictions were handed to: nobody looked whether the subject is there."""
    log = deliveries(store)
    for one in spec.delivery:
        if one.sink != "webhook":  # it is told of rows, and gets none
            yield _place(one.name, [entry.delivered for entry in log if entry.delivered.delivery == one.name])
    known = {one.name for one in spec.delivery}
    former = {entry.delivered.delivery for entry in log if entry.delivered.sink != "webhook"} - known
    for name in sorted(former):
        yield _place(name, [entry.delivered for entry in log if entry.delivered.delivery == name])


def _place(name: str, handed: Sequence[Delivered]) -> str:
    where = handed[-1].where if handed else "nothing was handed over yet"
    return (
        f"delivery {name}: not looked at ({where}); `overnight deliver` replaces erased partitions there, and copies "
        "that were made of them are its readers'"
    )


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

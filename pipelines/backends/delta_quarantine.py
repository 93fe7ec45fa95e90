"""Where bad partitions lie: a folder each, made whole or not at all, beside the tables and never read as data."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.failpoints import failpoint
from pipelines.records import Quarantined, ValidationReport

_ENTRY = "quarantined.json"


def set_aside(parent: Path, report: ValidationReport, originals: Sequence[Path]) -> Quarantined:
    """Copies the original files and writes the report into `parent/<digest>`; the same bytes give the same entry."""
    folder = parent / report.digest
    entry = Quarantined(
        use_case=report.use_case, table=report.table, partition=report.partition, report=report, folder=str(folder)
    )
    if (folder / _ENTRY).exists():
        return entry
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".tmp-"))
    for original in originals:
        shutil.copyfile(original, temporary / original.name)
    (temporary / _ENTRY).write_text(entry.model_dump_json(indent=2), "utf-8")
    failpoint("quarantine.written")
    try:
        temporary.rename(folder)
    except OSError:  # the same bytes were quarantined by another run in the meantime
        shutil.rmtree(temporary)
    return entry


def list_set_aside(table: Path) -> list[Quarantined]:
    """Every entry of a table, oldest partition first."""
    found = sorted(table.glob(f"[!.]*/[!.]*/{_ENTRY}"))
    return [Quarantined.model_validate_json(path.read_text("utf-8")) for path in found]

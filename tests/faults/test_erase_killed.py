"""kill -9 in the middle of an erasure, then the same command again: the state equals a clean run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.cases.orders import DAYS, ITS_ADDRESS, PREDICTIONS, fill, orders, set_aside
from tests.contracts.stores import open_store
from tests.scan import holding

_ROOT = Path(__file__).resolve().parents[2]
_TABLES = ("rows", "labels", "customers", PREDICTIONS)
#: The address is in `rows` alone: by it the keys are known, and by them everything else.
_SCRIPT = """
import sys
from pathlib import Path
from pipelines.backends.files import Files
from pipelines.steps.erasure import Places, erase, parse_subject
from tests.cases.orders import ITS_ADDRESS, RUN, SPEC
from tests.contracts.stores import open_store

class NoModels:
    def trainings(self):
        return []

root = Path(sys.argv[2])
places = Places(reports=root / "reports", work=root / "work", cache=root / "copies")
subject = parse_subject(SPEC, f"address={ITS_ADDRESS}")
store = open_store(sys.argv[1], root)
erase(SPEC, store, Files(root / "landing"), NoModels(), subject, places, RUN, reason="request", act=True)
"""


def _erase(backend: str, root: Path, failpoint: str = "") -> int:
    script = [sys.executable, "-c", _SCRIPT, backend, str(root)]
    env = {**os.environ, "OVERNIGHT_FAILPOINT": failpoint}
    return subprocess.run(script, cwd=_ROOT, env=env, check=False).returncode


def _prepare(backend: str, root: Path) -> None:
    store = open_store(backend, root)
    fill(store)
    inbox = root / "inbox.csv"
    inbox.write_bytes(orders(DAYS[1]).write_csv().encode())
    set_aside(store, "rows", DAYS[1], inbox, observed=f"bad: {ITS_ADDRESS}")
    inbox.unlink()
    page = root / "reports" / "uc" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text(f"<td>{ITS_ADDRESS}</td>")


def _outcome(backend: str, root: Path) -> dict[str, object]:
    """Everything that an erasure leaves, without what names the request."""
    store = open_store(backend, root)
    heads = {table: store.head(table) for table in _TABLES}
    return {
        "live": {table: store.partitions(head) for table, head in heads.items() if head is not None},
        "held": {table: store.held(table) for table in _TABLES},
        "commits": {table: [(each.kind, each.partitions) for each in store.history(table)] for table in _TABLES},
        "gone": {
            table: sorted(
                (part.partition, part.digest)
                for told in store.tombstones()
                if told.table == table
                for part in told.parts
            )
            for table in _TABLES
        },
        "tombstones": len(store.tombstones()),
        "quarantine": [(entry.report, sorted(store.originals(entry))) for entry in store.quarantined("rows")],
        "address": holding(root, ITS_ADDRESS),
        "key": holding(root, "o-2024-03-02-7-1"),
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run that nobody disturbed leaves."""
    root = tmp_path_factory.mktemp("clean")
    _prepare("delta", root)
    assert _outcome("delta", root)["address"]
    assert _erase("delta", root) == 0
    outcome = _outcome("delta", root)
    assert (outcome["address"], outcome["key"]) == ([], [])
    return outcome


@pytest.mark.parametrize(
    "point",
    [
        "erase.rewritten",
        "erase.cleaned",
        "erase.purged",
        "stage.written",
        "publish.linked",
        "publish.committed",
        "expunge.told",
        "purge.told",
        "purge.removed",
    ],
)
def test_an_erasure_killed_anywhere_and_run_again_ends_like_a_clean_one(
    point: str, clean: dict[str, object], tmp_path: Path
) -> None:
    _prepare("delta", tmp_path)
    assert _erase("delta", tmp_path, point) == -signal.SIGKILL
    assert _erase("delta", tmp_path) == 0
    assert _outcome("delta", tmp_path) == clean


def test_an_erasure_killed_between_two_tables_is_finished_by_the_next_on_every_backend(
    backend: str, tmp_path: Path
) -> None:
    _prepare(backend, tmp_path)
    assert _erase(backend, tmp_path, "erase.purged") == -signal.SIGKILL
    assert _erase(backend, tmp_path) == 0
    store = open_store(backend, tmp_path)
    for table in ("rows", "labels", PREDICTIONS):
        for part in store.held(table):
            found = store.read_held(table, part).filter(pl.col("order").str.contains("-7-")).collect()
            assert found.is_empty(), (table, part)
    (entry,) = store.quarantined("rows")
    assert store.originals(entry) == {}

"""kill -9 at every failpoint of the store, then the same again: the state equals a clean run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.stores import content, open_store, put

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = """
import sys
from pathlib import Path
from tests.contracts.stores import open_store, put
put(open_store(sys.argv[1], Path(sys.argv[2])), "2013-01-02", 7, 8)
"""
#: Whether readers see the new rows after a death at this point.
_POINTS = {"stage.written": False, "publish.verified": False, "publish.linked": False, "publish.committed": True}


@pytest.mark.parametrize(("point", "visible"), _POINTS.items())
def test_a_publish_killed_anywhere_leaves_the_old_or_the_new_state_and_a_rerun_converges(
    backend: str, point: str, visible: bool, tmp_path: Path
) -> None:
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    put(store, "2013-01-02", 5)
    script = [sys.executable, "-c", _SCRIPT, backend, str(tmp_path)]
    killed = subprocess.run(script, cwd=_ROOT, env={**os.environ, "OVERNIGHT_FAILPOINT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    old, new = {"2013-01-01": [1.0], "2013-01-02": [5.0]}, {"2013-01-01": [1.0], "2013-01-02": [7.0, 8.0]}
    assert content(store) == (new if visible else old)
    subprocess.run(script, cwd=_ROOT, check=True)
    assert content(store) == new
    assert len(store.history("rows")) == 3


_QUARANTINE = """
import sys
from pathlib import Path
from tests.contracts.stores import audit, open_store, stage
store = open_store(sys.argv[1], Path(sys.argv[2]))
staged = stage(store, "2013-01-02", 7, 8)
store.quarantine(audit(staged, passed=False), staged, [Path(sys.argv[3])])
"""


def test_a_quarantine_killed_halfway_is_not_there_and_a_rerun_makes_it_whole(backend: str, tmp_path: Path) -> None:
    original = tmp_path / "rows.csv"
    original.write_text("broken")
    script = [sys.executable, "-c", _QUARANTINE, backend, str(tmp_path), str(original)]
    env = {**os.environ, "OVERNIGHT_FAILPOINT": "quarantine.written"}
    assert subprocess.run(script, cwd=_ROOT, env=env, check=False).returncode == -signal.SIGKILL
    store = open_store(backend, tmp_path)
    assert store.quarantined("rows") == []
    subprocess.run(script, cwd=_ROOT, check=True)
    (entry,) = store.quarantined("rows")
    assert store.originals(entry) == {"rows.csv": b"broken"}

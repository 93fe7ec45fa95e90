"""A use case on lakeFS: the spec says `snapshot: lakefs`, and nothing else differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.backends.lakefs import LakeFSStore
from pipelines.spec import load_spec
from tests.cases import Case, make_third_case
from tests.chain.conftest import command_line, runtime_of
from tests.servers.lakefs import LakeFS


@pytest.fixture
def lakefs_case(lakefs_server: LakeFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    case = make_third_case(tmp_path / "project", tmp_path / "landing", hours=12)
    text = case.path.read_text("utf-8")
    assert "snapshot:" not in text
    case.path.write_text(text + "\nsnapshot: lakefs\n", "utf-8")
    monkeypatch.setenv("OVERNIGHT_LAKEFS_ENDPOINT", lakefs_server.endpoint)
    monkeypatch.setenv("OVERNIGHT_LAKEFS_ACCESS_KEY_ID", lakefs_server.access_key_id)
    monkeypatch.setenv("OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY", lakefs_server.secret_access_key)
    monkeypatch.setenv("OVERNIGHT_LAKEFS_STORAGE", lakefs_server.storage)
    monkeypatch.setenv("OVERNIGHT_LAKEFS_PREFIX", f"t{lakefs_server.session}-")
    return Case(project=case.project, landing=case.landing, path=case.path, spec=load_spec(case.path), keys=case.keys)


def test_a_use_case_is_ingested_on_lakefs_by_one_word_of_its_spec(lakefs_case: Case, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ("run", "readings", "--from", lakefs_case.keys[0], "--to", lakefs_case.keys[-1], "--no-train")
    done = command_line(lakefs_case, home, *arguments)
    assert done.exit_code == 0, done.output
    store = runtime_of(lakefs_case, home).store
    assert isinstance(store, LakeFSStore)
    head = store.head("rows")
    assert head is not None
    assert list(store.partitions(head)) == list(lakefs_case.keys)
    assert store.scan(head).collect().height == 60 * len(lakefs_case.keys)
    again = command_line(lakefs_case, home, *arguments)
    assert again.exit_code == 0, again.output
    assert len(store.history("rows")) == 1
    assert not (home / "snapshots").exists()

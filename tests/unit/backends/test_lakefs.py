"""What only the lakeFS backend has: its gate, stray writes, branches, and bytes on a real server."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from pipelines.backends.lakefs import LakeFSStore, open_store
from pipelines.backends.lakefs_client import Repository
from pipelines.backends.lakefs_http import Refused
from pipelines.errors import (
    ConflictError,
    NotFoundError,
    SpecError,
    StrayWriteError,
    TerminalError,
    UnavailableError,
)
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Check, Finding, RunInfo, SnapshotRef
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase
from tests.cases import REPOSITORY
from tests.contracts.stores import RUN, audit, content, frame, lakefs_store, put, repository, stage, tombstone
from tests.servers.lakefs import SKIPPED, LakeFS

_LATER = datetime.now(UTC) + timedelta(days=1)
_SECRET = "never-to-be-shown"


@pytest.fixture
def store(lakefs_server: LakeFS, tmp_path: Path) -> LakeFSStore:
    return lakefs_store("lakefs", tmp_path)


def _files(server: LakeFS, store: SnapshotStore) -> dict[Path, bytes]:
    """Every file of the repository's block store."""
    if server.blocks is None:
        pytest.skip("the block store of OVERNIGHT_LAKEFS_ENDPOINT cannot be looked into from here")
    folder = Path(server.blocks) / repository(store).namespace.removeprefix("local://")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _bytes_of(*values: float) -> bytes:
    """The Parquet file of a frame, as any store writes it."""
    import tempfile

    from pipelines.parquet import write

    with tempfile.TemporaryDirectory() as folder:
        write(frame(*values), Path(folder) / "part.parquet")
        return (Path(folder) / "part.parquet").read_bytes()


# -- the gate ------------------------------------------------------------------------------------------------------


def test_a_merge_by_hand_that_carries_no_audit_is_refused_by_the_repository(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    lake = repository(store)
    staged = stage(store, "2013-01-01", 66)
    for metadata in ({}, {"overnight.audit": "yes"}):
        with pytest.raises(Refused) as caught:
            lake.merge(staged.area, "by hand", metadata)
        assert caught.value.status == 412
        assert "overnight.audit" in str(caught.value)
    assert content(store) == {"2013-01-01": [1.0]}
    store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [66.0]}


def test_a_missing_gate_and_a_missing_protection_are_found_and_mended(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    lake = repository(store)
    lake.protect([])
    main = lake.head("main")
    assert main is not None
    lake.create_branch("run-hand", main)
    lake.delete("run-hand", ["_lakefs_actions/require_audit.yaml"])
    lake.commit("run-hand", "no gate")
    lake.merge("run-hand", "a branch can delete its own gate", {})
    lake.delete_branch("run-hand")
    findings = store.examine()
    assert [finding.name for finding in findings] == ["main_unprotected", "unaudited_merge", "gate_missing"]
    with pytest.raises(NotFoundError):
        store.repair(findings[2])
    for finding in findings[:2]:
        store.repair(finding)
    assert store.examine() == []
    assert content(store) == {"2013-01-01": [1.0]}
    with pytest.raises(NotFoundError):
        store.repair(findings[0])
    put(store, "2013-01-02", 2)
    assert lake.protected() == ["main"]


def test_the_publisher_checks_the_audit_itself_when_the_gate_is_gone(store: LakeFSStore) -> None:
    staged = stage(store, "2013-01-01", 1)
    lake = repository(store)
    lake.delete(staged.area, ["_lakefs_actions/require_audit.yaml"])
    lake.commit(staged.area, "no gate")
    store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}
    assert store.examine() == []  # what else the branch changed did not come along


def test_rows_that_were_merged_by_hand_past_the_gate_are_not_the_newest_snapshot(store: LakeFSStore) -> None:
    good = put(store, "2013-01-01", 1).snapshot
    staged = stage(store, "2013-01-01", 66)
    lake = repository(store)
    lake.delete(staged.area, ["_lakefs_actions/require_audit.yaml"])
    lake.commit(staged.area, "no gate")
    merged = lake.merge(staged.area, "by hand", {})
    assert store.head("rows") == good
    assert content(store) == {"2013-01-01": [1.0]}
    with pytest.raises(NotFoundError):
        store.scan(good.model_copy(update={"version": merged}))
    (finding,) = [each for each in store.examine() if each.name == "unaudited_merge"]
    mine = stage(store, "2013-01-02", 2)
    with pytest.raises(StrayWriteError, match="overnight doctor uc --repair"):
        store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}
    store.repair(finding)
    assert store.examine() == []
    assert content(store) == {"2013-01-01": [1.0]}
    store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}


# -- writes past the publisher -------------------------------------------------------------------------------------


def test_a_stray_write_on_main_is_named_with_its_remedy_and_repaired(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    lake = repository(store)
    staged = stage(store, "2013-01-02", 2)
    _write_past_the_publisher(lake, "rows/partition=2013-01-09/part.parquet", "notes.txt")
    with pytest.raises(StrayWriteError, match=r"notes\.txt.*overnight doctor"):
        store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0]}
    findings = store.examine()
    assert [finding.name for finding in findings] == ["stray_write"] * 2
    assert [finding.where.rpartition("/")[2] for finding in findings] == ["notes.txt", "part.parquet"]
    for finding in findings:
        store.repair(finding)
    assert store.examine() == []
    store.publish("rows", [staged], [audit(staged)], RUN)
    assert content(store) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}
    assert lake.protected() == ["main"]


def _write_past_the_publisher(lake: Repository, *paths: str) -> None:
    """What a person with write access does before the protection of main takes effect, or after lifting it."""
    lake.protect([])
    wait = lake.patience()
    for path in paths:
        while True:
            try:
                lake.upload("main", path, b"stray")
                break
            except Refused:
                assert wait()
    lake.protect(["main"])


def test_a_stray_write_that_no_commit_has_is_not_read(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    _write_past_the_publisher(repository(store), "rows/partition=2013-01-09/part.parquet")
    assert content(store) == {"2013-01-01": [1.0]}


def test_a_finding_of_another_kind_cannot_be_repaired(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    with pytest.raises(NotFoundError):
        store.repair(Finding(name="stray_write", where="x", what="x", remedy="x", repairable=True))


# -- branches and commits ------------------------------------------------------------------------------------------


def test_a_commit_of_a_runs_branch_is_no_snapshot(store: LakeFSStore) -> None:
    put(store, "2013-01-01", 1)
    staged = stage(store, "2013-01-02", 2)
    head = repository(store).head(staged.area)
    assert head is not None
    for version in (head, head[:12], "main", staged.area):
        unaudited = SnapshotRef(store="lakefs", use_case="uc", table="rows", version=version)
        with pytest.raises(NotFoundError):
            store.scan(unaudited)


def test_a_publish_leaves_no_branch_and_its_merge_says_what_came_from_where(store: LakeFSStore) -> None:
    staged = stage(store, "2013-01-01", 1)
    done = store.publish("rows", [staged], [audit(staged)], RUN)
    lake = repository(store)
    assert lake.branches("run-") == []
    entry = lake.get_commit(done.snapshot.version)
    assert entry is not None
    assert entry.metadata["overnight.table"] == "rows"
    assert entry.metadata["overnight.run"] == RUN.run_id
    assert entry.metadata["overnight.area"] == staged.area
    assert len(entry.metadata["overnight.audit"]) == 64


def test_the_loser_of_a_race_is_told_who_won(store: LakeFSStore) -> None:
    mine, rival = stage(store, "2013-01-01", 1), stage(store, "2013-01-01", 2)
    store.publish("rows", [rival], [audit(rival)], RunInfo(run_id="the-other-run", dag_id="uc_ingest"))
    with pytest.raises(ConflictError, match=r"the-other-run.*stage it again"):
        store.publish("rows", [mine], [audit(mine)], RUN)


def test_what_two_calls_staged_cannot_be_published_by_one(store: LakeFSStore) -> None:
    first, second = stage(store, "2013-01-01", 1), stage(store, "2013-01-02", 2)
    with pytest.raises(TerminalError, match="2 calls of stage"):
        store.publish("rows", [first, second], [audit(first), audit(second)], RUN)
    assert store.head("rows") is None


def test_a_partition_whose_bytes_are_published_already_is_not_uploaded_again(
    store: LakeFSStore, lakefs_server: LakeFS
) -> None:
    put(store, "2013-01-01", 1)
    drafts = [Draft(partition=f"2013-01-0{day}", frame=frame(day)) for day in (1, 2)]
    staged = store.stage("rows", drafts, RUN)
    assert list(_files(lakefs_server, store).values()).count(_bytes_of(1)) == 1
    done = store.publish("rows", staged, [audit(part) for part in staged], RUN)
    assert [part.partition for part in done.unchanged] == ["2013-01-01"]
    assert store.history("rows")[0].partitions.keys() == {"2013-01-02"}


def test_few_partitions_of_a_large_table_are_read_without_a_listing(
    store: LakeFSStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [Draft(partition=f"p{number:03}", frame=frame(number)) for number in range(40)]
    staged = store.stage("rows", drafts, RUN)
    head = store.publish("rows", staged, [audit(part) for part in staged], RUN).snapshot
    listed: list[str] = []
    listing = Repository.objects

    def objects(self: Repository, ref: str, prefix: str, amount: int = 1000) -> object:
        if amount > 1:
            listed.append(prefix)
        return listing(self, ref, prefix, amount)

    monkeypatch.setattr(Repository, "objects", objects)
    assert store.scan(head, ["p007", "p030"]).collect().get_column("value").to_list() == [7.0, 30.0]
    assert "rows/partition=" not in listed
    assert store.scan(head).collect().height == 40
    assert "rows/partition=" in listed


def test_an_original_schema_of_two_first_runs_that_differ_is_a_conflict_of_columns(store: LakeFSStore) -> None:
    mine = stage(store, "2013-01-01", 1)
    other = pl.DataFrame({"key": ["k"], "surprise": [1.0]})
    (rival,) = store.stage("rows", [Draft(partition="2013-01-02", frame=other)], RUN)
    store.publish("rows", [rival], [audit(rival)], RUN)
    with pytest.raises(TerminalError, match="surprise"):
        store.publish("rows", [mine], [audit(mine)], RUN)


# -- bytes ---------------------------------------------------------------------------------------------------------


def test_removed_bytes_are_nowhere_in_the_block_store(
    store: LakeFSStore, lakefs_server: LakeFS, tmp_path: Path
) -> None:
    """Published, reverted to, discarded, lost in a race, left by a dead run, quarantined: all of one subject."""
    subject = 4711.25
    first = put(store, "2013-01-01", subject)
    put(store, "2013-01-01", 1)
    store.revert(first.snapshot, RUN, reason="back")
    put(store, "2013-01-01", 2)
    store.discard(stage(store, "2013-01-02", subject))
    loser, rival = stage(store, "2013-01-03", subject), stage(store, "2013-01-03", 3)
    store.publish("rows", [rival], [audit(rival)], RUN)
    with pytest.raises(ConflictError):
        store.publish("rows", [loser], [audit(loser)], RUN)
    stage(store, "2013-01-04", subject)
    drafts = [Draft(partition=f"2013-01-0{day}", frame=frame(subject, day)) for day in (5, 6)]
    fifth, sixth = store.stage("rows", drafts, RUN)
    store.publish("rows", [fifth], [audit(fifth)], RUN)
    store.discard(sixth)
    original = tmp_path / "rows.csv"
    original.write_text(f"a row of {subject}")
    bad = stage(store, "2013-01-07", subject)
    entry = store.quarantine(audit(bad, passed=False), bad, [original])
    put(store, "2013-01-05", 5)

    gone = [part for part in store.held("rows") if part.partition in ("2013-01-01", "2013-01-05")]
    parts = [part for part in gone if subject in store.read_held("rows", part).collect().get_column("value")]
    store.purge(tombstone("t1", *parts, kind="erased"))
    store.expunge(entry, entry.report.model_copy(update={"checks": (Check(name="e", passed=False, observed="e"),)}))
    store.sweep(_LATER, dry_run=False)

    needles = [_bytes_of(subject), _bytes_of(subject, 5), _bytes_of(subject, 6), f"a row of {subject}".encode()]
    kept = list(_files(lakefs_server, store).values())
    assert [needle for needle in needles if any(needle in file for file in kept)] == []
    assert content(store) == {"2013-01-01": [2.0], "2013-01-03": [3.0], "2013-01-05": [5.0]}
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_way_to_the_blocks_a_purge_says_which_setting_is_missing_and_can_be_finished(
    store: LakeFSStore, lakefs_server: LakeFS, tmp_path: Path
) -> None:
    old = put(store, "2013-01-01", 1)
    put(store, "2013-01-01", 2)
    if not repository(store).namespace.startswith("local://"):
        pytest.skip("the server of OVERNIGHT_LAKEFS_ENDPOINT has no local blocks")
    blind = lakefs_store("lakefs", tmp_path)
    blind._blocks._folder = None
    with pytest.raises(UnavailableError, match="OVERNIGHT_LAKEFS_BLOCKSTORE"):
        blind.purge(tombstone("t1", *old.published, kind="erased"))
    (finding,) = store.examine()
    assert (finding.name, finding.where, finding.repairable) == ("unfinished_purge", "t1", True)
    with pytest.raises(NotFoundError):
        store.scan(old.snapshot)
    store.repair(finding)
    assert store.examine() == []
    assert _bytes_of(1) not in _files(lakefs_server, store).values()


def test_bytes_that_could_not_be_removed_are_written_down_and_swept_where_they_can_be(
    store: LakeFSStore, lakefs_server: LakeFS, tmp_path: Path
) -> None:
    blind = lakefs_store("lakefs", tmp_path)
    blind._blocks._folder = None
    blind.discard(stage(blind, "2013-01-01", 1))
    assert _bytes_of(1) in _files(lakefs_server, store).values()
    assert store.sweep(_LATER, dry_run=False) != []
    assert _bytes_of(1) not in _files(lakefs_server, store).values()
    assert store.sweep(_LATER) == []


# -- the server and its settings -----------------------------------------------------------------------------------


def test_a_wrong_key_is_named_and_no_secret_is_shown(lakefs_server: LakeFS, tmp_path: Path) -> None:
    store = lakefs_store("lakefs", tmp_path, secret_access_key=SecretStr(_SECRET))
    with pytest.raises(TerminalError, match="OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY") as caught:
        store.head("rows")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for text in (str(caught.value), repr(caught.value), repr(store), repr(vars(store)), repr(repository(store).server)):
        assert _SECRET not in text


def test_a_server_that_is_not_there_is_unavailable_after_the_deadline(lakefs_server: LakeFS, tmp_path: Path) -> None:
    store = lakefs_store("lakefs", tmp_path, endpoint="http://127.0.0.1:9", deadline=0.2)
    for call in (lambda: store.head("rows"), lambda: stage(store, "2013-01-01", 1), store.pins, store.examine):
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
            call()


def test_the_spec_chooses_the_store_and_missing_settings_are_named(
    lakefs_server: LakeFS, flights_spec: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"OVERNIGHT_LAKEFS_{name}", raising=False)
    spec = flights_spec.model_copy(update={"snapshot": "lakefs"})
    given = {
        "home": tmp_path,
        "lakefs_endpoint": lakefs_server.endpoint,
        "lakefs_access_key_id": lakefs_server.access_key_id,
        "lakefs_secret_access_key": SecretStr(lakefs_server.secret_access_key),
        "lakefs_prefix": f"t{lakefs_server.session}-",
    }
    assert isinstance(Runtime(spec, Settings(**given), RUN).store, LakeFSStore)
    assert open_store("flights", Settings(**given)).head("rows") is None
    for missing in ("lakefs_endpoint", "lakefs_secret_access_key"):
        with pytest.raises(SpecError, match=f"OVERNIGHT_{missing.upper()}"):
            open_store("flights", Settings(**{**given, missing: None}))


def test_without_a_lakefs_program_the_skipped_tests_are_named_once(tmp_path: Path) -> None:
    test = "tests/contracts/test_snapshot_store.py::test_an_empty_partition_is_published_visibly[lakefs]"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 't'}", test]
    done = subprocess.run(
        command,
        check=False,
        cwd=REPOSITORY,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 skipped" in done.stdout
    assert done.stdout.splitlines().count(SKIPPED) == 1

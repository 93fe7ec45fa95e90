"""What only the Delta Lake backend has: its log, its files, and this machine's copies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.backends.delta import DeltaStore
from pipelines.errors import NotFoundError, UnavailableError
from pipelines.ports import SnapshotStore
from pipelines.records import Tombstone
from tests.contracts.stores import RUN, audit, content, frame, interpose, open_store, put, stage, tombstone
from tests.servers.seaweed import BUCKET, Seaweed

_LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def local(tmp_path: Path) -> SnapshotStore:
    return open_store("delta", tmp_path)


def _file(root: Path, partition: str) -> Path:
    (path,) = (root / "snapshots" / "uc" / "rows" / f"partition={partition}").glob("*.parquet")
    return path


def test_a_damaged_or_missing_file_is_found_and_mended_by_publishing_the_partition_again(
    local: SnapshotStore, tmp_path: Path
) -> None:
    put(local, "2013-01-01", 1)
    put(local, "2013-01-02", 2)
    cut, lost = _file(tmp_path, "2013-01-01"), _file(tmp_path, "2013-01-02")
    cut.write_bytes(cut.read_bytes()[:100])
    lost.unlink()
    findings = local.examine()
    assert [(each.name, each.repairable) for each in findings] == [("damaged_file", False)] * 2
    assert "100 bytes" in findings[0].what
    assert "is missing" in findings[1].what
    with pytest.raises(NotFoundError):
        local.repair(findings[0])
    assert put(local, "2013-01-01", 1).unchanged
    assert put(local, "2013-01-02", 2).unchanged
    assert local.examine() == []
    assert content(local) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}


def test_a_write_past_the_store_is_found_and_a_revert_takes_it_away(local: SnapshotStore, tmp_path: Path) -> None:
    put(local, "2013-01-01", 1)
    good = put(local, "2013-01-02", 2).snapshot
    stray = frame(66).with_columns(partition=pl.lit("2013-01-02"))
    write_deltalake(tmp_path / "snapshots" / "uc" / "rows", stray, mode="append")
    (finding,) = local.examine()
    assert finding.name == "stray_write"
    assert finding.where == "uc/rows@3"
    done = local.revert(good, RUN, reason="somebody wrote to the table")
    assert content(local) == {"2013-01-01": [1.0], "2013-01-02": [2.0]}
    assert done.published == ()
    assert [commit.kind for commit in local.history("rows")] == ["revert", "publish", "publish"]


def test_publishing_a_partition_takes_a_strangers_rows_in_it_away(local: SnapshotStore, tmp_path: Path) -> None:
    put(local, "2013-01-02", 2)
    stray = frame(66).with_columns(partition=pl.lit("2013-01-02"))
    write_deltalake(tmp_path / "snapshots" / "uc" / "rows", stray, mode="append")
    put(local, "2013-01-02", 3)
    assert content(local) == {"2013-01-02": [3.0]}


def test_an_erasure_that_was_cut_short_is_found_and_finished(
    local: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(local, "2013-01-01", 1)
    put(local, "2013-01-01", 2)

    def die() -> None:
        raise KeyboardInterrupt

    interpose(monkeypatch, "purge.told", die)
    with pytest.raises(KeyboardInterrupt):
        local.purge(_erased(old.published[0].digest, local))
    (finding,) = local.examine()
    assert (finding.name, finding.repairable) == ("unfinished_purge", True)
    local.repair(finding)
    assert local.examine() == []
    assert len(local.held("rows")) == 1
    with pytest.raises(NotFoundError):
        local.repair(finding)


def _erased(digest: str, store: SnapshotStore) -> Tombstone:
    return tombstone("t1", *(part for part in store.held("rows") if part.digest == digest), kind="erased")


def test_a_sweep_thins_checkpoints_and_every_snapshot_still_reads(local: SnapshotStore, tmp_path: Path) -> None:
    snapshots = [put(local, "2013-01-01", value).snapshot for value in range(25)]
    log = tmp_path / "snapshots" / "uc" / "rows" / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    assert len(local.sweep(_LATER, dry_run=False)) == 1
    assert [path.name[:20] for path in log.glob("*.checkpoint.parquet")] == [f"{19:020}"]
    store = open_store("delta", tmp_path)
    assert [store.scan(each).collect().get_column("value").to_list() for each in snapshots] == [
        [float(value)] for value in range(25)
    ]
    assert len(store.history("rows")) == 25


def test_files_of_strangers_in_a_table_are_never_swept(local: SnapshotStore, tmp_path: Path) -> None:
    put(local, "2013-01-01", 1)
    odd = _file(tmp_path, "2013-01-01").with_name("part-00000-of-somebody.parquet")
    odd.write_bytes(b"not ours")
    assert local.sweep(_LATER, dry_run=False) == []
    assert odd.exists()


def test_any_delta_reader_sees_the_published_rows(local: SnapshotStore, tmp_path: Path) -> None:
    put(local, "2013-01-01", 1)
    put(local, "2013-01-02", 2)
    table = DeltaTable(tmp_path / "snapshots" / "uc" / "rows")
    rows = pl.DataFrame(table.to_pyarrow_table()).sort("partition")
    assert rows.select("partition", "value").rows() == [("2013-01-01", 1.0), ("2013-01-02", 2.0)]


def test_this_machines_copy_on_s3_is_verified_each_time_and_goes_with_the_staged_file(
    seaweed: Seaweed, tmp_path: Path
) -> None:
    store = open_store("delta-s3", tmp_path)
    staged = stage(store, "2013-01-01", 1)
    copy = store.local(staged)
    assert copy == tmp_path / "cache" / f"{staged.digest}.parquet"
    copy.write_bytes(b"tampered with")
    assert store.read_staged(staged).collect().equals(frame(1))
    copy.unlink()
    assert store.local(staged) == copy
    store.publish("rows", [staged], [audit(staged)], RUN)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_sweep_on_s3_aborts_unfinished_uploads(seaweed: Seaweed, tmp_path: Path) -> None:
    store = open_store("delta-s3", tmp_path)
    area = stage(store, "2013-01-01", 1).area
    key = area.removeprefix(f"s3://{BUCKET}/") + "/unfinished.parquet"
    client = boto3.client("s3")
    client.create_multipart_upload(Bucket=BUCKET, Key=key)
    assert any("unfinished upload" in each for each in store.sweep(_LATER, dry_run=False))
    assert client.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", []) == []
    assert store.sweep(_LATER) == []


def test_a_bucket_that_does_not_exist_is_not_found(seaweed: Seaweed, tmp_path: Path) -> None:
    store = DeltaStore("s3://no-such-bucket/prefix", "uc", tmp_path)
    with pytest.raises(NotFoundError, match="no such bucket"):
        store.head("rows")
    with pytest.raises(NotFoundError, match="no such bucket"):
        store.pins()


def test_wrong_credentials_are_named(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-one")
    store = open_store("delta-s3", tmp_path)
    for call in (lambda: store.head("rows"), store.pins):
        with pytest.raises(UnavailableError, match="AWS_ credentials") as caught:
            call()
        assert "not-the-one" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.backends.delta_s3._ATTEMPTS", 1)
    head = put(open_store("delta-s3", tmp_path), "2013-01-01", 1).snapshot
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_store("delta-s3", tmp_path)
    calls = (
        lambda: store.head("rows"),
        lambda: store.scan(head),
        lambda: stage(store, "2013-01-02", 2),
        lambda: store.pin("name", head, reason="never stored"),
        store.tombstones,
        lambda: store.sweep(_LATER),
    )
    for call in calls:
        with pytest.raises(UnavailableError):
            call()

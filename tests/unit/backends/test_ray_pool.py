"""What a run on Ray does without a cluster: models and pieces on disks that processes share, and are killed beside."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import artifacts
from pipelines.backends.ray_pieces import forget, keep, kept
from pipelines.backends.ray_worker import pack, raised, unpacked
from pipelines.errors import ConflictError, IntegrityError, OvernightError
from pipelines.parquet import digest_of
from pipelines.records import Shard
from pipelines.settings import Settings

SHARD = Shard(partitions=("2024-01-01", "2024-01-02"))
FILES = [(day, digest_of(content), content) for day, content in (("2024-01-01", b"one"), ("2024-01-02", b"two"))]


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, str]:
    """A sealed folder and its digest."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(os.urandom(50_000))
    (folder / "deep" / "card.md").write_text("ß", "utf-8")
    return folder, artifacts.seal(folder)


def test_the_same_model_is_the_same_archive_whenever_it_was_written(model: tuple[Path, str]) -> None:
    folder, _ = model
    first = pack(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    (folder / "model.onnx").chmod(0o600)
    assert pack(folder) == first


def test_workers_that_begin_at_once_unpack_a_model_once(model: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = model
    packed = pack(folder)
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(lambda _: unpacked(packed, digest, tmp_path / "node"), range(16)))
    assert len({(path, path.stat().st_ino) for path in found}) == 1
    artifacts.verify(found[0], digest)
    assert sorted(path.name for path in found[0].parent.iterdir()) == [digest, f"{digest}.lock"]


def test_a_model_that_was_spoiled_on_a_node_is_unpacked_again(model: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = model
    there = unpacked(pack(folder), digest, tmp_path / "node")
    (there / "model.onnx").write_bytes(b"spoiled")
    (there / "added").touch()
    artifacts.verify(unpacked(pack(folder), digest, tmp_path / "node"), digest)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "model.onnx"])
def test_an_archive_that_is_not_the_model_leaves_nothing_on_the_node(
    model: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    _, digest = model
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises((IntegrityError, tarfile.FilterError)):
        unpacked(content.getvalue(), digest, tmp_path / "node")
    assert [path.name for path in (tmp_path / "node" / "models").iterdir()] == [f"{digest}.lock"]
    assert not (tmp_path / "node" / "outside").exists()


def test_a_node_forgets_models_that_no_run_uses_any_more(model: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = model
    models = tmp_path / "node" / "models"
    for name, age in (("old", 2 * 24 * 3600), ("recent", 3600)):
        (models / name).mkdir(parents=True)
        os.utime(models / name, (time.time() - age,) * 2)
    unpacked(pack(folder), digest, tmp_path / "node")
    assert {path.name for path in models.iterdir() if path.is_dir()} == {"recent", digest}


def test_a_shard_that_was_kept_is_found_again_with_its_bytes(tmp_path: Path) -> None:
    assert kept(tmp_path, SHARD) is None
    keep(tmp_path, SHARD.model_dump_json(), FILES)
    piece = kept(tmp_path, SHARD)
    assert piece is not None
    assert {day: Path(path).read_bytes() for day, path in piece.files.items()} == {
        FILES[0][0]: b"one",
        FILES[1][0]: b"two",
    }
    assert kept(tmp_path, Shard(partitions=SHARD.partitions[:1])) is None


@pytest.mark.parametrize("harm", ["file gone", "file torn", "note torn", "another cut"])
def test_a_shard_whose_files_are_not_whole_is_scored_again(tmp_path: Path, harm: str) -> None:
    keep(tmp_path, SHARD.model_dump_json(), FILES)
    note, file = tmp_path / "2024-01-01-000000000000.json", tmp_path / "2024-01-02-000000000000.parquet"
    match harm:
        case "file gone":
            file.unlink()
        case "file torn":
            file.write_bytes(b"tw")
        case "note torn":
            note.write_bytes(note.read_bytes()[:30])
        case _:
            told = json.loads(note.read_text("utf-8"))
            note.write_text(json.dumps({**told, "shard": {"partitions": ["2024-01-01"], "rows": 5}}), "utf-8")
    assert kept(tmp_path, SHARD) is None
    keep(tmp_path, SHARD.model_dump_json(), FILES)
    assert kept(tmp_path, SHARD) is not None


def test_bytes_that_changed_on_their_way_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not those that were sent"):
        keep(tmp_path, SHARD.model_dump_json(), [("2024-01-01", digest_of(b"one"), b"oen")])
    assert kept(tmp_path, SHARD) is None


def test_pieces_that_nobody_came_back_for_are_removed(tmp_path: Path) -> None:
    for name, days in (("a" * 32, 4), ("b" * 32, 2), ("not of a plan", 9)):
        keep(tmp_path / name, SHARD.model_dump_json(), FILES)
        os.utime(tmp_path / name, (time.time() - days * 24 * 3600,) * 2)
    forget(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"b" * 32, "not of a plan"}


def test_an_error_is_raised_by_its_name_and_no_name_reaches_past_our_own() -> None:
    told = raised({"error": "ConflictError", "text": "uc: won by another"})
    assert type(told) is ConflictError
    assert str(told) == "uc: won by another"
    for strange in ("SystemExit", "explain", "annotations"):
        assert type(raised({"error": strange, "text": "x"})) is OvernightError


def test_addresses_travel_and_secrets_do_not(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path / "var",
        lakefs_endpoint="http://lakefs:8000",
        lakefs_access_key_id="who",
        lakefs_secret_access_key="canary",  # type: ignore[arg-type]
        optuna_storage="postgresql://me:canary@db/optuna",  # type: ignore[arg-type]
    )
    told = settings.travelling
    assert told["snapshots_uri"] == str(tmp_path / "var" / "snapshots")
    assert told["lakefs_endpoint"] == "http://lakefs:8000"
    assert "canary" not in json.dumps(told)
    assert "who" not in told.values()
    elsewhere = Settings.model_validate({**told, "home": tmp_path / "elsewhere"})
    assert elsewhere.snapshots == settings.snapshots
    hidden = Settings(home=tmp_path, lakefs_endpoint="http://me:canary@lakefs:8000", snapshots_uri="s3://lake/uc")
    assert hidden.travelling["snapshots_uri"] == "s3://lake/uc"
    assert "canary" not in json.dumps(hidden.travelling)

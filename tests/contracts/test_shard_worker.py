"""A process elsewhere scores from the same store: addresses come with the work, keys from its own environment."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipelines import shard_worker
from pipelines.errors import OvernightError
from pipelines.records import ScorePlan
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase
from pipelines.steps.scoring import plan, score_shard
from tests.cases import REPOSITORY
from tests.contracts.stores import RUN
from tests.servers.lakefs import server_of
from tests.servers.seaweed import BUCKET
from tests.unit.steps.sharded import made_up, publish, seal
from tests.unit.training.conftest import make_spec, write

DAY = "2024-01-01"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[UseCase, Any, Path]:
    root = tmp_path_factory.mktemp("shard-worker")
    spec = make_spec("binary", model="lightgbm")
    return spec, seal(spec, write(root / "data", "binary"), root / "model"), root / "model"


def settings(backend: str, root: Path) -> Settings:
    """Those of the process that plans."""
    home = root / "planner"
    if backend == "delta-s3":
        return Settings(
            home=home, snapshots_uri=f"s3://{BUCKET}/{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
        )
    if not backend.startswith("lakefs"):
        return Settings(home=home)
    server = server_of(backend)
    return Settings(
        project=REPOSITORY,
        home=home,
        lakefs_endpoint=server.endpoint,
        lakefs_access_key_id=server.access_key_id,
        lakefs_secret_access_key=server.secret_access_key,  # type: ignore[arg-type]
        lakefs_storage=server.storage,
        lakefs_prefix=f"t{hashlib.sha256(f'{server.session} {root}'.encode()).hexdigest()[:16]}-",
    )


def test_a_shard_is_the_same_bytes_from_the_same_store_elsewhere(
    backend: str, model: tuple[UseCase, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, version, artifact = model
    lake = backend.startswith("lakefs")
    spec = spec.model_copy(update={"snapshot": "lakefs" if lake else "delta"})
    planner = Runtime(spec, settings(backend, tmp_path), RUN)
    publish(planner.store, "rows", {DAY: made_up(300, 1)})
    resolved: ScorePlan = plan(spec, planner.store, version, [DAY], RUN)
    (shard,) = resolved.shards
    expected = score_shard(spec, planner.store, artifact, resolved, shard, tmp_path / "here").files
    told = planner.settings.travelling
    asked = (spec.model_dump_json(), resolved.model_dump_json(), shard.model_dump_json(), told, artifact)

    monkeypatch.setenv("OVERNIGHT_HOME", str(tmp_path / "elsewhere"))
    if lake:
        with pytest.raises(OvernightError):  # without keys of its own it gets nowhere
            shard_worker.score(*asked, tmp_path / "keyless", 1)
        server = server_of(backend)
        monkeypatch.setenv("OVERNIGHT_LAKEFS_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY", server.secret_access_key)
    files = shard_worker.score(*asked, tmp_path / "there", 1)
    assert {key: Path(path).read_bytes() for key, path in files.items()} == {
        key: Path(path).read_bytes() for key, path in expected.items()
    }

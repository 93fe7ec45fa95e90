"""What is loaded is what was registered and signed: everything else is refused before it is parsed."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import artifacts
from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.backends.model_signature import ModelSigning
from pipelines.errors import IntegrityError, NotFoundError, OvernightError, SchemaMismatch, SpecError
from pipelines.records import ModelRef
from pipelines.scoring.engine import Engine
from pipelines.settings import Settings
from tests.registries import OF_REGISTRATION, OF_TRAINING, open_registry, sealed, toy_spec

SPEC = toy_spec()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one registered version, its key, and the artifact: made once, copied by each test."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copytree(sealed(root / "made"), root / "artifact")
    registry = open_registry(SPEC.name, f"sqlite:///{root / 'mlflow' / 'mlflow.db'}", root / "cache")
    run_id = registry.start_training(SPEC, OF_TRAINING)
    registry.log_artifact(run_id, root / "artifact", {})
    model = registry.register(SPEC, run_id, root / "artifact", OF_REGISTRATION)
    (root / "model.json").write_text(model.model_dump_json())
    return root


@pytest.fixture
def uri(root: Path) -> str:
    """The store itself: what a test spoils, it puts back (see `spoiled`)."""
    return f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"


@pytest.fixture
def registry(root: Path, uri: str, tmp_path: Path) -> MlflowRegistry:
    return open_registry(SPEC.name, uri, tmp_path / "cache", root / "home")


@pytest.fixture
def model(root: Path) -> ModelRef:
    return ModelRef.model_validate_json((root / "model.json").read_bytes())


@contextlib.contextmanager
def spoiled(folder: Path) -> Iterator[None]:
    """Puts a folder back as it was."""
    kept = folder.with_name(f"{folder.name}-as-it-was")
    shutil.copytree(folder, kept)
    try:
        yield
    finally:
        shutil.rmtree(folder)
        kept.rename(folder)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def of_run(root: Path, place: str) -> Path:
    """Where the registered run holds something."""
    run_id = ModelRef.model_validate_json((root / "model.json").read_bytes()).run_id
    return root / "mlflow" / "artifacts" / run_id / "artifacts" / place


def test_a_version_has_every_tag_that_it_must_have_and_two_signatures(registry: MlflowRegistry, root: Path) -> None:
    from pipelines.backends.mlflow_names import REQUIRED

    (entry,) = registry.registered()
    assert set(REQUIRED) <= set(entry.tags)
    assert all(entry.tags[name] for name in REQUIRED)
    assert entry.tags["overnight.code_dirty"] == "false"
    assert entry.tags["overnight.seed"] == "7", "the run's own word"
    files = {path.name for path in of_run(root, "signature").iterdir()}
    assert files == {f"{entry.tags[tag]}.json" for tag in ("overnight.signature", "overnight.mlflow_signature")}
    run = registry._mlflow().get_run(entry.model.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [entry.tags["overnight.model_id"]]
    assert "overnight.writing" not in run.data.tags
    assert registry.sweep(dry_run=True) == ()


@pytest.mark.parametrize("name", [*OF_REGISTRATION, "overnight.seed", "overnight.code_version", "overnight.dag_run"])
def test_no_version_without_any_of_the_tags(registry: MlflowRegistry, root: Path, name: str) -> None:
    key = {"overnight.training_key": f"{sum(name.encode()):064x}"}
    run_id = registry.start_training(SPEC, {tag: OF_TRAINING[tag] for tag in OF_TRAINING if tag != name} | key)
    registry.log_artifact(run_id, root / "artifact", {})
    given = {tag: OF_REGISTRATION[tag] for tag in OF_REGISTRATION if tag != name}
    with pytest.raises(IntegrityError, match=f"no version without {name}"):
        registry.register(SPEC, run_id, root / "artifact", given)
    assert [entry.model.run_id for entry in registry.registered() if entry.model.run_id == run_id] == []
    assert registry.sweep(dry_run=True) == (), "nothing was begun"


def _flip(folder: Path) -> None:
    served = folder / "model.onnx"
    served.write_bytes(served.read_bytes()[:-1] + b"\x00")


def _truncate(folder: Path) -> None:
    served = folder / "model.onnx"
    served.write_bytes(served.read_bytes()[:100])


def _forge(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"other weights")
    artifacts.seal(folder)


def _swap(folder: Path) -> None:
    card, graph = folder / "model.json", folder / "model.onnx"
    card.rename(folder / "x")
    graph.rename(card)
    (folder / "x").rename(graph)


@pytest.mark.parametrize("spoil", [_flip, _truncate, _forge, _swap])
@pytest.mark.parametrize("where", ["store", "cache"])
def test_a_file_that_was_changed_is_refused(
    spoil: Callable[[Path], None], where: str, registry: MlflowRegistry, model: ModelRef, root: Path
) -> None:
    if where == "cache":
        spoil(registry.fetch(model))
        with pytest.raises(IntegrityError):
            registry.fetch(model)
        assert registry.fetch(model).is_dir(), "the next call fetches it anew"
        return
    folder = of_run(root, f"artifact/{model.digest[:16]}")
    with spoiled(folder):
        spoil(folder)
        with pytest.raises(IntegrityError):
            registry.fetch(model)


@pytest.mark.parametrize("how", ["symlink", "hard link", "added pickle", "folder of another"])
def test_links_and_added_files_in_the_cache_are_refused_and_never_parsed(
    how: str, registry: MlflowRegistry, model: ModelRef, tmp_path: Path
) -> None:
    folder, canary = registry.fetch(model), tmp_path / "canary"
    served = folder / "model.onnx"
    if how == "added pickle":
        (folder / "model.pkl").write_bytes(pickle.dumps(Evil(canary)))
    elif how == "folder of another":
        folder.rename(tmp_path / "real")
        folder.symlink_to(tmp_path / "real")
    else:
        served.rename(tmp_path / "elsewhere.onnx")
        link = os.symlink if how == "symlink" else os.link
        link(tmp_path / "elsewhere.onnx", served)
    with pytest.raises(IntegrityError):
        registry.fetch(model)
    assert not canary.exists()


def test_bytes_that_are_put_there_after_the_check_are_never_used(
    registry: MlflowRegistry, model: ModelRef, root: Path, tmp_path: Path
) -> None:
    folder = registry.fetch(model)
    other = Path(shutil.copytree(root / "artifact", tmp_path / "other"))
    (other / "model.json").write_text("{}")
    artifacts.seal(other)  # a folder that is whole in itself
    shutil.rmtree(folder)
    other.rename(folder)
    with pytest.raises(IntegrityError, match="is not the one that was sealed"):
        Engine(folder, digest=model.digest)


@pytest.mark.parametrize("how", ["tampered", "of another key", "missing", "of another artifact", "of another use case"])
def test_without_a_trusted_signature_of_this_artifact_nothing_is_loaded(
    how: str, registry: MlflowRegistry, model: ModelRef, root: Path, uri: str, tmp_path: Path
) -> None:
    client = registry._mlflow()
    signature = registry.registered()[0].tags["overnight.signature"]
    folder = of_run(root, "signature")
    path = folder / f"{signature}.json"
    good = path.read_bytes()
    mine, theirs = ModelSigning(Settings(home=root / "home")), ModelSigning(Settings(home=tmp_path / "theirs"))
    named = Path(shutil.copytree(root / "artifact", tmp_path / SPEC.name))
    with spoiled(folder):
        if how == "tampered":
            path.write_bytes(good.replace(b'"sig": "', b'"sig": "A', 1).replace(b'"sig":"', b'"sig":"A', 1))
        elif how == "missing":
            path.unlink()
        elif how == "of another key":
            theirs.sign(named, path)
        elif how == "of another artifact":
            (named / "model.json").write_text("{}")
            artifacts.seal(named)
            mine.sign(named, path)
        else:
            mine.sign(named.rename(tmp_path / "another_use_case"), path)
        try:
            if how != "missing":  # whoever can write files can write tags
                import hashlib

                told = hashlib.sha256(path.read_bytes()).hexdigest()
                path.rename(path.with_name(f"{told}.json"))
                client.set_model_version_tag(SPEC.name, "1", "overnight.signature", told)
            with pytest.raises((IntegrityError, NotFoundError)):
                registry.fetch(model)
        finally:
            client.set_model_version_tag(SPEC.name, "1", "overnight.signature", signature)
    assert registry.fetch(model).is_dir()


def test_a_version_of_before_models_were_signed_is_refused_until_a_person_vouches_for_it(
    registry: MlflowRegistry, model: ModelRef
) -> None:
    client = registry._mlflow()
    signature = registry.registered()[0].tags["overnight.signature"]
    client.delete_model_version_tag(SPEC.name, "1", "overnight.signature")
    try:
        with pytest.raises(IntegrityError, match=r"not signed.*train anew.*--sign 1"):
            registry.fetch(model)
        registry.vouch(model, "made by our own run of last week")
        assert registry.fetch(model).is_dir()
        tags = registry.registered()[0].tags
        assert tags["overnight.vouched"] == "made by our own run of last week"
        assert tags["overnight.signature"] != signature
    finally:
        client.set_model_version_tag(SPEC.name, "1", "overnight.signature", signature)


def test_a_python_function_with_a_pickle_that_somebody_registered_is_never_loaded(
    registry: MlflowRegistry, model: ModelRef, root: Path, tmp_path: Path
) -> None:
    client, canary = registry._mlflow(), tmp_path / "canary"
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Evil(canary)))
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
    )
    plain = client.create_model_version(SPEC.name, folder.as_uri())
    digest = artifacts.seal(folder)
    run_id = client.create_run(client.get_run(model.run_id).info.experiment_id).info.run_id
    client.log_artifacts(run_id, str(folder), f"artifact/{digest[:16]}")
    told = {**registry.registered()[0].tags, "overnight.digest": digest, "overnight.run_id": run_id}
    ours = client.create_model_version(SPEC.name, folder.as_uri(), run_id=run_id, tags=told)
    traversing = client.create_model_version(SPEC.name, folder.as_uri(), tags={**told, "overnight.digest": "../../x"})
    try:
        with pytest.raises(NotFoundError, match="did not register it"):
            registry.get(int(plain.version))
        with pytest.raises(NotFoundError, match="did not register it"):
            registry.get(int(traversing.version))
        with pytest.raises(OvernightError):
            registry.fetch(registry.get(int(ours.version)))
        with pytest.raises(IntegrityError, match="it was promoted as a model of run"):
            registry.resolve(int(ours.version), model.run_id)
    finally:
        for version in (plain, ours, traversing):
            client.delete_model_version(SPEC.name, version.version)
    assert not canary.exists()


def test_a_graph_with_links_to_files_outside_is_not_read_even_when_it_is_signed(
    root: Path, uri: str, tmp_path: Path
) -> None:
    """A training that was made to write such a graph: nothing outside the folder is opened."""
    import onnx

    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\x00" * 4096)
    folder = Path(shutil.copytree(root / "artifact", tmp_path / "artifact"))
    (folder / "digests.json").unlink()
    graph = onnx.load(folder / "model.onnx")
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "64")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    digest = artifacts.seal(folder)
    with pytest.raises(IntegrityError):
        Engine(folder, digest=digest)


def test_a_model_whose_inputs_are_not_the_snapshots_columns_is_refused_naming_the_column(
    registry: MlflowRegistry, model: ModelRef
) -> None:
    import polars as pl

    engine = Engine(registry.fetch(model), digest=model.digest)
    frame = pl.DataFrame({"wide": [1.0], "narrow": [0.0], "gaps": [5.0], "colour": ["red"], "shape": ["round"]})
    assert engine.score(frame).shape == (1,)
    with pytest.raises(SchemaMismatch, match="there is no 'gaps'"):
        engine.score(frame.drop("gaps"))
    with pytest.raises(SchemaMismatch, match="'wide' is String"):
        engine.score(frame.with_columns(wide=pl.lit("1.0")))


@pytest.mark.parametrize("name", ["../x", "%2e%2e", "a b", "x" * 300, "", "A", "champion/../../x", "v1\n"])
def test_names_that_are_none_are_refused_before_any_request(name: str, registry: MlflowRegistry, uri: str) -> None:
    class Nobody:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("MLflow was asked")

    registry._client = Nobody()
    with pytest.raises(SpecError, match="not a name"):
        registry.set_alias(name, 1)
    with pytest.raises(SpecError, match="not a name"):
        registry.alias(name)
    with pytest.raises(SpecError, match="not a name"):
        open_registry(name, uri, Path("/nowhere/cache"))
    with pytest.raises(SpecError, match="is no tag"):
        registry.annotate("0" * 32, {f"overnight.{name}x": "value"} if name != "" else {"": "value"})
    with pytest.raises(SpecError, match="is no tag"):
        registry.start_training(SPEC, {f"{name}tag": "value"})
    for model in (
        ModelRef(name=name, version=1, run_id="0" * 32, digest="0" * 64),
        ModelRef(name=SPEC.name, version=1, run_id=name, digest="0" * 64),
        ModelRef(name=SPEC.name, version=1, run_id="0" * 32, digest=name),
    ):
        with pytest.raises((NotFoundError, IntegrityError)):
            registry.fetch(model)
    with pytest.raises(IntegrityError, match="no SHA-256"):
        registry.start_training(SPEC, {"overnight.training_key": f"' or 1=1 {name}"})


def test_a_cached_champion_is_loaded_while_mlflow_is_away_and_without_its_library(
    registry: MlflowRegistry, model: ModelRef, root: Path, tmp_path: Path
) -> None:
    registry.fetch(model)
    code = """
import sys
from pathlib import Path
from tests.registries import open_registry
from pipelines.scoring.engine import Engine
uri, cache, home, version, run_id = sys.argv[1:]
registry = open_registry("toy_binary", uri, Path(cache), Path(home))
model = registry.resolve(int(version), run_id)
Engine(registry.fetch(model), digest=model.digest)
assert "mlflow" not in sys.modules
print(model.id)
"""
    away = registry._uri
    command = [sys.executable, "-c", code, away, str(tmp_path / "cache"), str(root / "home"), "1", model.run_id]
    hidden = root / "mlflow-away"
    (root / "mlflow").rename(hidden)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        hidden.rename(root / "mlflow")
    assert done.stdout == "toy_binary@1\n", done.stderr


def test_anybody_verifies_what_pyfunc_loads(registry: MlflowRegistry, root: Path, uri: str, tmp_path: Path) -> None:
    """The commands of ADR 0019."""
    tags, local = registry.registered()[0].tags, tmp_path / "model"
    download = [sys.executable, "-m", "mlflow", "artifacts", "download", "--dst-path", str(local)]
    download += ["--artifact-uri", f"models:/{tags['overnight.model_id']}"]
    subprocess.run(
        download, cwd=tmp_path, env={**os.environ, "MLFLOW_TRACKING_URI": uri}, check=True, capture_output=True
    )
    place = f"signature/{tags['overnight.mlflow_signature']}.json"
    signature = registry._mlflow().download_artifacts(tags["overnight.run_id"], place, str(tmp_path))
    command = [sys.executable, "-m", "model_signing", "verify", "key", "--signature", signature]
    command += ["--public_key", str(root / "home" / "keys" / "signing.pub.pem"), str(local)]
    command += ["--ignore-paths", str(local / "registered_model_meta")]  # MLflow adds it to its downloads
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    graph = local / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0

"""Inside a Ray worker: the model is unpacked once a node, one shard is scored, and its files go back as bytes.

Few imports: how many threads Polars has is said before it is imported.
"""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import artifacts, errors
from pipelines.errors import IntegrityError, OvernightError

#: Seconds after which a node forgets a model.
_UNUSED = 24 * 3600.0
#: What a shard came to: `files`, each with its name, BLAKE3 and bytes; or `error` and `text`, class and text of ours.
Answer = dict[str, Any]


def pack(folder: Path) -> bytes:
    """A verified artifact folder as one archive: equal folders, equal bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return content.getvalue()


def unpacked(packed: Any, digest: str, scratch: Path) -> Path:
    """The model's folder on this node: unpacked by the first of its workers, verified by every one of them.

    Args:
        packed: what `pack` gave (any buffer).
        digest: of the artifact.
        scratch: folder of this node.

    Raises:
        IntegrityError: these bytes are not the plan's model.
    """
    target = scratch / "models" / digest
    target.parent.mkdir(parents=True, exist_ok=True)
    # The kernel lets go of the lock when a worker is killed.
    with (target.parent / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists() and not _is_whole(target, digest):
            shutil.rmtree(target)
        if not target.exists():
            with artifacts.building(target) as folder:
                with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
                    archive.extractall(folder, filter="data")
                artifacts.verify(folder, digest)
            _forget(target.parent)
    os.utime(target)
    return target


def _forget(models: Path) -> None:
    """Removes models that no run has used for a day."""
    for folder in models.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _UNUSED:
            shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        artifacts.verify(folder, digest)
    except IntegrityError:
        return False
    return True


def work(job: Mapping[str, Any], packed: Any, shard: str, threads: int) -> Answer:
    """Scores one shard. Errors of ours are answers: Ray would wrap them.

    Args:
        job: what all shards have in common: `function`, `spec`, `plan`, `digest` and `settings`.
        packed: the model, as `pack` gave it.
        shard: JSON.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    from pipelines.parquet import digest as blake3

    module, _, name = job["function"].partition(":")
    try:
        with _room() as (scratch, out):
            artifact = unpacked(packed, job["digest"], scratch)
            function = getattr(importlib.import_module(module), name)
            files = function(job["spec"], job["plan"], shard, job["settings"], artifact, out, threads)
            return {"files": [(key, blake3(Path(path)), _content(Path(path))) for key, path in files.items()]}
    except OvernightError as error:
        return {"error": type(error).__name__, "text": str(error)}


def raised(told: Mapping[str, Any]) -> OvernightError:
    """The error that `error` and `text` tell of."""
    kind = getattr(errors, str(told["error"]), OvernightError)
    known = isinstance(kind, type) and issubclass(kind, OvernightError)
    return (kind if known else OvernightError)(str(told["text"]))


def _content(path: Path) -> Any:
    """As an array, which is handed over without being copied once more."""
    import numpy as np

    return np.fromfile(path, dtype=np.uint8)


@contextmanager
def _room() -> Iterator[tuple[Path, Path]]:
    """The node's folder in Ray's own temporary one, which goes with the session; and a folder for one shard in it."""
    import ray

    node: Any = ray._private.worker._global_node
    session = Path(node.get_session_dir_path())
    scratch = session / "overnight" / str(ray.get_runtime_context().get_node_id())[:16]
    for left in scratch.glob("shard-*"):
        if not Path(f"/proc/{left.name.split('-')[1]}").exists():  # of a worker that was killed
            shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"shard-{os.getpid()}-", dir=scratch) as out:
        yield scratch, Path(out)

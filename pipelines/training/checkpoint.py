"""Checkpoints: files from which a killed training goes on as if nothing had happened.

A checkpoint is one safetensors file: its tensors, and all else as JSON in its header. Nothing is pickled. Its name
tells its number, its stage and its own SHA-256; it appears under that name whole or not at all (a temporary file,
fsync, rename, fsync of the folder), and a file whose bytes are not those of its name, or that belongs to another
training, is passed over with a line in the log. The two newest of a stage under way are kept, and one of each
finished stage.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipelines.training.job import Job

_log = logging.getLogger(__name__)
_KEPT = 2
#: Libraries whose versions decide a training's numbers.
_LIBRARIES = ("torch", "tabm", "rtdl_num_embeddings", "numpy")
_NAME = re.compile(r"(?P<number>\d{8})-(?P<stage>[a-z0-9_]+)-(?P<kind>part|done)-(?P<digest>[0-9a-f]{64})\.safetensors")
_TEMPORARY = ".writing"
#: How a tensor, a mapping and a tuple are written in JSON.
_TENSOR, _MAP, _TUPLE = "$tensor", "$map", "$tuple"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    number: int
    stage: str
    finished: bool
    digest: str


class Store:
    """The checkpoints of one training in a folder of its own.

    Args:
        key: what is trained, on which data, by which code; files of another key are not used.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key

    def save(self, stage: str, state: Mapping[str, Any], *, finished: bool = False) -> Path:
        """Writes a checkpoint, and removes those that it makes useless.

        Args:
            state: tensors, numbers, text, None, and lists, tuples and mappings of them.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        content = pack({"key": self._key, "state": dict(state)})
        number = max((file.number for file in self._files()), default=0) + 1
        kind = "done" if finished else "part"
        path = self._folder / f"{number:08d}-{stage}-{kind}-{hashlib.sha256(content).hexdigest()}.safetensors"
        write(path, content)
        self._sweep(stage, finished)
        return path

    def newest(self, stage: str) -> bytes | None:
        """The newest good checkpoint of a stage, packed: `unpack` gives it back under `state`."""
        for file in sorted(self._files(stage), key=lambda file: file.number, reverse=True):
            try:
                content = file.path.read_bytes()
            except OSError as error:
                _log.warning("checkpoint %s is passed over: %s", file.path.name, error)
                continue
            if reason := self._refused(content, file.digest):
                _log.warning("checkpoint %s is passed over: %s", file.path.name, reason)
            else:
                return content
        return None

    def _refused(self, content: bytes, digest: str) -> str | None:
        if hashlib.sha256(content).hexdigest() != digest:
            return "its bytes are not those that were written"
        try:
            key = unpack(content)["key"]
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            return f"it is no checkpoint: {error!r}"
        return None if key == self._key else "it is another training's"

    def forget(self, stage: str) -> None:
        """Removes a stage's checkpoints: it begins again."""
        for file in self._files(stage):
            file.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes everything: the artifact is complete."""
        for file in self._files():
            file.path.unlink(missing_ok=True)
        for path in (*self._folder.glob(f"*{_TEMPORARY}"), *self._folder.glob("*.rows.json")):
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def batch_rows(self, stage: str) -> int | None:
        """The halved batch that memory was too small for otherwise, when `halve` noted one."""
        try:
            noted = json.loads((self._folder / f"{stage}.rows.json").read_text("utf-8"))
            return int(noted["batch_rows"]) if noted["key"] == self._key else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the note %s.rows.json is passed over: %s", stage, error)
            return None

    def halve(self, stage: str, batch_rows: int) -> None:
        """Notes that a stage goes on, from its beginning, with so many rows a batch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        noted = {"key": self._key, "batch_rows": batch_rows}
        write(self._folder / f"{stage}.rows.json", json.dumps(noted).encode())
        self.forget(stage)

    def _sweep(self, stage: str, finished: bool) -> None:
        parts = sorted((file for file in self._files(stage) if not file.finished), key=lambda file: file.number)
        for file in parts if finished else parts[:-_KEPT]:
            file.path.unlink(missing_ok=True)
        # A note of halved rows may be another process's, being written just now.
        for path in self._folder.glob(f"*.safetensors.*{_TEMPORARY}"):
            path.unlink(missing_ok=True)

    def _files(self, stage: str | None = None) -> Iterator[_File]:
        for path in self._folder.glob("*.safetensors"):
            if (match := _NAME.fullmatch(path.name)) and stage in (None, match["stage"]):
                yield _File(path, int(match["number"]), match["stage"], match["kind"] == "done", match["digest"])


def identity(job: Job) -> str:
    """What a checkpoint must agree with: what is trained, on which bytes, by which code and libraries.

    On how many processes, threads and machines is not part of it: those may change from try to try.
    """
    digest = hashlib.sha256()
    spec = job.spec.model_dump(mode="json", include={"name", "label", "features", "training"})
    for name in ("trainer", "sagemaker", "processes", "checkpoint_minutes", "search"):
        del spec["training"][name]
    digest.update(json.dumps(spec, sort_keys=True).encode())
    for path in sorted(job.data.glob("*.parquet")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    for module in sorted(resources.files(__package__).iterdir(), key=lambda module: module.name):
        if module.name.endswith(".py"):
            digest.update(f"{module.name} {hashlib.sha256(module.read_bytes()).hexdigest()}\n".encode())
    digest.update(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    return digest.hexdigest()


def write(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, also after the process is killed."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pack(state: Mapping[str, Any]) -> bytes:
    """A tree of tensors and plain values as the bytes of a safetensors file."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_plain(dict(state), tensors))
    return save(tensors, {"tree": tree})


def unpack(content: bytes) -> dict[str, Any]:
    """What `pack` was given, bit for bit; the tensors lie in the processor's memory."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tree: dict[str, Any] = _rich(json.loads(header["__metadata__"]["tree"]), load(content))
    return tree


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}"
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {_MAP: [[key, _plain(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(inner, tensors) for inner in value]}
    if isinstance(value, list):
        return [_plain(inner, tensors) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _rich(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_rich(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_rich(inner, tensors) for inner in value[_TUPLE])
    return {key: _rich(inner, tensors) for key, inner in value[_MAP]}

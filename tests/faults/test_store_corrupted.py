"""A staged file that is not what was audited is never published, however it came to be so."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import IntegrityError, NotFoundError
from tests.contracts.stores import RUN, audit, content, frame, lakefs_store, open_store, put, stage
from tests.faults.harness import on_failpoints, record, tamper


def _flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def _another(raw: bytes) -> bytes:
    file = io.BytesIO()
    frame(8, 9).write_parquet(file)
    return file.getvalue()


_CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": _flipped,
    "cut short": lambda raw: raw[:-1],
    "made empty": lambda _: b"",
    "made longer": lambda raw: raw + b"0",
    "replaced by another valid file": _another,
    "removed": lambda _: None,
}


_PLACES = [("delta", "store"), ("delta-s3", "store")] + [
    (backend, where) for backend in ("lakefs", "lakefs-s3") for where in ("store", "blocks below it")
]


@pytest.mark.parametrize(("backend", "where"), _PLACES, indirect=["backend"])
def test_a_staged_file_that_was_tampered_with_is_refused_and_staging_again_helps(
    backend: str, where: str, tmp_path: Path
) -> None:
    deep = where != "store"
    store = lakefs_store(backend, tmp_path, deadline=5.0) if deep else open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    for number, (change, make) in enumerate(_CHANGES.items()):
        before = record(store)
        staged = stage(store, "2013-01-01", 2, number)
        tamper(store, staged, make, deep=deep)
        refused = NotFoundError if change == "removed" else IntegrityError
        with pytest.raises(refused):
            store.publish("rows", [staged], [audit(staged)], RUN)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # on this machine there may be a good copy
        with pytest.raises(refused):
            store.read_staged(staged).collect()
        with pytest.raises(refused):  # the same call again is no way round
            store.publish("rows", [staged], [audit(staged)], RUN)
        assert record(store) == before, change
        put(store, "2013-01-01", 2, number)
        assert content(store) == {"2013-01-01": [2.0, float(number)]}, change


@pytest.mark.parametrize("backend", ["delta-s3", "lakefs", "lakefs-s3"], indirect=True)
def test_a_staged_file_that_changes_right_after_it_was_verified_is_not_published(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others can write to the store. On a local disk they could as well write to what is published."""
    store = open_store(backend, tmp_path)
    put(store, "2013-01-01", 1)
    staged = stage(store, "2013-01-01", 2, 3)
    tampered = []

    def hook(name: str) -> None:
        if name == "publish.verified" and not tampered:
            tampered.append(name)
            tamper(store, staged, _another, deep=False)

    on_failpoints(monkeypatch, hook)
    try:
        store.publish("rows", [staged], [audit(staged)], RUN)
        wanted = [2.0, 3.0]
    except IntegrityError:
        wanted = [1.0]
    assert tampered
    assert content(store) == {"2013-01-01": wanted}

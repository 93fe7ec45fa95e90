"""lakeFS: what isolation costs beside the bytes, and what one partition of many costs to read.

Runs on the server that OVERNIGHT_LAKEFS_ENDPOINT and its credentials name, in repositories of its own that it deletes
again; without one it says so and measures nothing. The limits are the bare upload, and the small table's read.
Prediction, written before measuring: branch, commit and merge are some 40 ms whatever lies in them, under 5% of a
100 MB upload only where that takes 0.8 s or more, and about 5% of a whole publish, which also encodes the rows and
reads the bytes back; a named partition is looked up, not listed, so reading one of 1,000 costs what one of 10 costs.
"""

from __future__ import annotations

import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, publish, seconds
from pipelines.backends.lakefs import open_store
from pipelines.backends.lakefs_client import MAIN, Repository
from pipelines.backends.lakefs_http import Server
from pipelines.backends.lakefs_layout import repository_name
from pipelines.parquet import digester, write
from pipelines.ports import Draft, SnapshotStore
from pipelines.settings import Settings

_BYTES = 100_000_000
_SMALL, _LARGE = 10, 1_000
_TURNS = 5


def _frame(rows: int, seed: int, columns: int = 10) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    return pl.DataFrame({f"c{index}": generator.random(rows) for index in range(columns)})


def _overhead(repository: Repository, file: Path) -> tuple[float, float, list[float]]:
    """Medians of upload + branch + commit + merge, and of the upload alone, in the same turns."""
    whole, upload, calls = [], [], []
    for turn in range(_TURNS):
        begun = time.perf_counter()
        branch = f"run-bench-{turn}"
        main = repository.head(MAIN)
        assert main is not None
        repository.create_branch(branch, main)
        ready = time.perf_counter()
        repository.upload(branch, f"bench/{turn}.parquet", file)
        there = time.perf_counter()
        repository.commit(branch, "bench")
        repository.merge(branch, "bench", {"overnight.audit": "0" * 64})
        done = time.perf_counter()
        whole.append(done - begun)
        upload.append(there - ready)
        calls.append(whole[-1] - upload[-1])
    return statistics.median(whole), statistics.median(upload), calls


def _publishes(store: SnapshotStore, repository: Repository, frames: list[pl.DataFrame], folder: Path) -> list[float]:
    """Medians of a whole publish, and of its work on bytes alone: encode, upload, read back."""
    ours, peer = [], []
    repository.create_branch("run-bench-bare", MAIN)
    for turn, frame in enumerate(frames):
        begun = time.perf_counter()
        publish(store, Draft(partition="large", frame=frame), run=f"publish {turn}")
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        file, digest = folder / "bare.parquet", digester()
        write(frame, file)
        repository.upload("run-bench-bare", "bench/bare.parquet", file)
        for piece in repository.stream("run-bench-bare", "bench/bare.parquet"):
            digest.update(piece)
        peer.append(time.perf_counter() - begun)
    return [statistics.median(ours), statistics.median(peer)]


def _read(store: SnapshotStore) -> float:
    head = store.head("rows")
    assert head is not None
    return float(store.scan(head, ["p00005"], ["c0"]).sum().collect().get_column("c0").item())


def measure() -> list[Result]:
    """100 MB a commit; one partition of 1,000 against one of 10."""
    import lakefs

    given = Settings()
    if given.lakefs_endpoint is None or given.lakefs_access_key_id is None or given.lakefs_secret_access_key is None:
        print("no lakeFS server: set OVERNIGHT_LAKEFS_ENDPOINT and its credentials", file=sys.stderr)
        return []
    names = []
    secret = given.lakefs_secret_access_key
    client = lakefs.Client(
        host=given.lakefs_endpoint, username=given.lakefs_access_key_id, password=secret.get_secret_value()
    )
    with tempfile.TemporaryDirectory() as folder:

        def store(use_case: str, prefix: str = f"bench{secrets.token_hex(4)}-") -> SnapshotStore:
            names.append(repository_name(use_case, prefix))
            return open_store(use_case, given.model_copy(update={"home": Path(folder), "lakefs_prefix": prefix}))

        try:
            large, small = store("large"), store("small")
            for opened, partitions in ((small, _SMALL), (large, _LARGE)):
                publish(opened, *(Draft(partition=f"p{n:05d}", frame=_frame(1_000, n)) for n in range(partitions)))
            reads = [
                seconds(lambda: _read(store("large")), repeats=7),
                seconds(lambda: _read(store("small")), repeats=7),
            ]
            file = Path(folder) / "file.parquet"
            write(_frame(_BYTES // 80, 1), file)
            server = Server(
                endpoint=given.lakefs_endpoint, access_key_id=given.lakefs_access_key_id, secret_access_key=secret
            )
            repository = Repository(server, names[0])
            whole, upload, calls = _overhead(repository, file)
            base = _frame(_BYTES // 80, 2)
            frames = [base.with_columns(c0=_frame(base.height, seed, 1)["c0"]) for seed in range(_TURNS)]
            other, bare = store("whole"), Repository(server, names[-1])
            publish(other, Draft(partition="first", frame=base.head(10)))
            publishes = _publishes(other, bare, frames, Path(folder))
        finally:
            for name in dict.fromkeys(names):
                lakefs.Repository(name, client=client).delete()
    return [
        Result(
            name="lakefs_isolation_at_100_mb",
            ours=whole,
            peer=upload,
            unit="s",
            goal=round(1 / 1.05, 3),
            note=f"branch + upload + commit + merge of {_BYTES / 1e6:.0f} MB; peer: the upload in the same turns; the "
            f"calls beside it took {min(calls) * 1000:.0f} to {max(calls) * 1000:.0f} ms",
        ),
        Result(
            name="lakefs_publish_at_100_mb",
            ours=publishes[0],
            peer=publishes[1],
            unit="s",
            goal=round(1 / 1.05, 3),
            note=f"stage + audit check + publish of {_BYTES / 1e6:.0f} MB; peer: its work on the bytes alone: encode, "
            "upload, read back",
        ),
        Result(
            name="lakefs_read_one_partition_of_1000",
            ours=reads[0],
            peer=reads[1],
            unit="s",
            goal=0.5,
            note=f"store opened, head, one column of one partition; peer: the same with {_SMALL} partitions",
        ),
    ]

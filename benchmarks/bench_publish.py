"""Publishing: our staged, audited commit against delta-rs's own partition overwrite and a bare Parquet write.

The limit is the bare write of the same Parquet file. Prediction, written before measuring: staging is that write plus
one SHA-256 pass (about 1 GB/s), publishing hashes once more, links and commits: within 1.3x of the bare write plus
50 ms, and several times faster than delta-rs's defaults, whose dictionary encoding is slow on distinct floats.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, seconds
from pipelines.backends.delta import DeltaStore
from pipelines.ports import Draft
from pipelines.records import Check, RunInfo, StagedPartition, ValidationReport

_ROWS, _COLUMNS = 500_000, 20


def _audit(staged: StagedPartition) -> ValidationReport:
    return ValidationReport(
        use_case=staged.use_case,
        table=staged.table,
        partition=staged.partition,
        digest=staged.digest,
        suite="bench",
        suite_digest="0" * 64,
        rows=staged.rows,
        passed=True,
        checks=(Check(name="bench", passed=True, observed="a benchmark"),),
    )


def measure() -> list[Result]:
    """One partition of distinct floats, overwritten."""
    from deltalake import write_deltalake

    generator = np.random.default_rng(7)
    frames = [pl.DataFrame({f"c{index}": generator.random(_ROWS) for index in range(_COLUMNS)}) for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = DeltaStore(root / "ours", "bench", root / "cache")
        turns = {"ours": 0, "delta": 0}

        def ours() -> None:
            turns["ours"] += 1
            run = RunInfo(run_id=str(turns["ours"]))
            draft = Draft(partition="2013-01-01", frame=frames[turns["ours"] % 4])
            (staged,) = store.stage("rows", [draft], run)
            store.publish("rows", [staged], [_audit(staged)], run)

        def delta() -> None:
            turns["delta"] += 1
            frame = frames[turns["delta"] % 4].with_columns(pl.lit("2013-01-01").alias("partition"))
            write_deltalake(
                str(root / "peer"),
                frame,
                partition_by=["partition"],
                mode="overwrite",
                predicate="partition = '2013-01-01'" if turns["delta"] > 1 else None,
            )

        def bare() -> None:
            frames[0].write_parquet(root / "bare.parquet", compression="zstd")

        delta()
        mine, theirs, limit = seconds(ours), seconds(delta), seconds(bare)
    size = f"{_ROWS:,} rows x {_COLUMNS} distinct float columns"
    return [
        Result(
            name="publish_vs_delta_rs",
            ours=mine,
            peer=theirs,
            unit="s",
            goal=5,
            note=f"stage + audit check + publish of {size}; peer: write_deltalake overwrite, its defaults",
        ),
        Result(
            name="publish_vs_bare_parquet",
            ours=mine,
            peer=limit,
            unit="s",
            goal=round(1 / 1.3, 2),
            note=f"the same; peer: polars.write_parquet of {size}, the limit",
        ),
    ]

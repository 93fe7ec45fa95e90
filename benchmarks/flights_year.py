"""The flights of 2013 as training sets: landing zone, snapshots and features as in a night, without a scheduler."""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from benchmarks.harness import publish
from include.landing import flights as landing
from pipelines import features
from pipelines.backends.delta import DeltaStore
from pipelines.backends.files import Files
from pipelines.errors import MissingInput
from pipelines.partitions import span
from pipelines.ports import STATIC, Draft
from pipelines.settings import Settings
from pipelines.spec import UseCase, load_spec
from pipelines.steps.features import build_features, labelled

_SPEC = Path(__file__).resolve().parents[1] / "include" / "use_cases" / "flights.yaml"
_CHUNK = 64
#: Raised when this file writes other rows for the same spec and feature function.
_FORMAT = 1


def spec() -> UseCase:
    """The use case as it ships."""
    return load_spec(_SPEC)


def year(use_case: UseCase) -> pl.DataFrame:
    """Every labelled flight: `partition`, key, event time, features and `label`, in partition order.

    Kept under <home>/bench, by a digest of what the features depend on.
    """
    assert use_case.features.function is not None
    source = inspect.getsource(inspect.getmodule(features.load(use_case.features.function)))  # type: ignore[arg-type]
    told = use_case.model_dump_json(include={"tables", "features", "label"})
    digest = hashlib.sha256(f"{_FORMAT}{told}{source}".encode()).hexdigest()[:16]
    path = Settings().home / "bench" / f"{use_case.name}-{digest}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.half")
        _build(use_case).write_parquet(half, compression="zstd")
        half.replace(path)
    return pl.read_parquet(path)


def _build(use_case: UseCase) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        landing.lay_out(root / "landing")
        source, store = Files(root / "landing"), DeltaStore(root / "snapshots", use_case.name, root / "cache")
        days = span(landing.FIRST, landing.LAST, "day")
        tables = dict.fromkeys(("rows", use_case.label.table, *use_case.context))
        heads = {}
        for table in tables:
            publish(store, *_drafts(use_case, source, table, days), table=table)
            head = store.head(table)
            assert head is not None
            heads[table] = head
        pieces = []
        for start in range(0, len(days), _CHUNK):
            chunk = days[start : start + _CHUNK]
            labels = labelled(use_case, store.scan(heads[use_case.label.table], chunk))
            built = build_features(use_case, store, heads, chunk)
            pieces.append(
                built.join(labels, on=["partition", *use_case.rows.key], how="inner", maintain_order="left").collect()
            )
        return pl.concat(pieces)


def _drafts(use_case: UseCase, source: Files, table: str, days: list[str]) -> Iterator[Draft]:
    for key in [STATIC] if use_case.tables[table].static else days:
        try:
            yield Draft(partition=key, frame=source.read(use_case, table, key).frame)
        except MissingInput:
            continue


def split(frame: pl.DataFrame, month: int, validation_days: int, folder: Path) -> Path:
    """Writes one rolling training set: every day before the month, the last `validation_days` of them for validation,
    and the month as the holdout.

    Args:
        month: of 2013, 2 to 12.

    Returns:
        The folder.
    """
    first, last = f"2013-{month:02d}-01", f"2013-{month:02d}-31"
    before = sorted(frame.filter(pl.col("partition") < first)["partition"].unique())
    edge = before[-validation_days]
    partition = pl.col("partition")
    folder.mkdir(parents=True, exist_ok=True)
    frame.filter(partition < edge).write_parquet(folder / "train.parquet")
    frame.filter((partition >= edge) & (partition < first)).write_parquet(folder / "validation.parquet")
    frame.filter((partition >= first) & (partition <= last)).write_parquet(folder / "holdout.parquet")
    return folder

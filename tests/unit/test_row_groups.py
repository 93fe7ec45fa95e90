"""Files put one behind the other are the bytes of one file that was written in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import parquet, row_groups
from pipelines.parquet import Writer

GROUP = 32
NOTES = ("counts", "unknown")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", GROUP)


def _frame(rows: int, seed: int, text: str = "é") -> pl.DataFrame:
    """Every kind of column that predictions have, with nulls."""
    rng = np.random.default_rng(seed)
    score = pl.Series("score", rng.random(rows, np.float32))
    return pl.DataFrame(
        {
            "id": [f"{seed}-{row}-{text}" for row in range(rows)],
            "score": score,
            "late": score > 0.5,
            "class": pl.Series(rng.choice(["a", "b"], rows), dtype=pl.String),
            "gap": pl.Series([None if row % 3 else row for row in range(rows)], dtype=pl.Int64),
            "never": pl.Series([None] * rows, dtype=pl.Float64),
            "at": pl.Series([1_700_000_000_000_000] * rows).cast(pl.Datetime("us", "UTC")),
        }
    )


def _written(frame: pl.DataFrame, path: Path, note: str) -> Path:
    with Writer(path, frame.schema, ("class", "late", "at")) as file:
        if frame.height:
            file.write(frame)
        file.close(dict.fromkeys(NOTES, note))
    return path


@settings(max_examples=40, deadline=None)
@given(groups=st.lists(st.integers(0, 20), min_size=1, max_size=5), rest=st.integers(0, GROUP), seed=st.integers(0, 99))
def test_joined_files_are_the_bytes_of_one(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], rest: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("join")
    sizes = [count * GROUP for count in groups]
    sizes[-1] += rest
    frame = _frame(sum(sizes), seed)
    starts = np.cumsum([0, *sizes])
    files = [
        _written(frame.slice(start, size), folder / f"{number}.parquet", f"note {number}")
        for number, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "_COPIED", 1000)
        rows = row_groups.join(files, folder / "joined", dict.fromkeys(NOTES, "of all"))
    assert rows == frame.height
    whole = _written(frame, folder / "whole", "of all")
    assert (folder / "joined").read_bytes() == whole.read_bytes()
    assert pl.read_parquet(folder / "joined").equals(frame)


def test_other_readers_read_what_was_joined(tmp_path: Path) -> None:
    frame = _frame(5 * GROUP + 3, 1)
    files = [_written(frame.slice(at, 2 * GROUP), tmp_path / f"{at}", "") for at in range(0, frame.height, 2 * GROUP)]
    row_groups.join(files, tmp_path / "joined", {"counts": "é"})
    file = pq.ParquetFile(tmp_path / "joined")
    assert file.metadata.num_row_groups == 6
    assert pl.DataFrame(pl.from_arrow(file.read())).equals(frame)
    assert pl.DataFrame(pl.from_arrow(file.read_row_group(4))).equals(frame.slice(4 * GROUP, GROUP))
    assert parquet.notes(tmp_path / "joined")["counts"] == "é"
    found = pl.scan_parquet(tmp_path / "joined").filter(pl.col("gap") == 5 * GROUP + 2).collect()
    assert found.height == (1 if (5 * GROUP + 2) % 3 == 0 else 0)


def _other(tmp_path: Path, kind: str) -> Path:
    frame, path = _frame(GROUP, 2), tmp_path / "other"
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    if kind == "a rest":
        return _written(frame.head(GROUP - 1), path, "")
    if kind == "another column":
        return _written(frame.with_columns(pl.lit(1).alias("more")), path, "")
    if kind == "another writer":
        frame.write_parquet(path)
        return path
    options: dict[str, Any] = {
        "page indices": {"write_page_index": True},
        "a bloom filter": {"bloom_filter_options": {"id": True}},
    }[kind]
    pq.write_table(table, path, compression="snappy", use_dictionary=["class", "late", "at"], **options)
    return path


@pytest.mark.parametrize("kind", ["a rest", "another column", "another writer", "page indices", "a bloom filter"])
def test_what_a_copy_would_not_make_the_bytes_of_one_file_is_not_joined(tmp_path: Path, kind: str) -> None:
    last = _written(_frame(GROUP, 3), tmp_path / "last", "")
    assert row_groups.join([_other(tmp_path, kind), last], tmp_path / "joined", {}) is None
    assert not (tmp_path / "joined").exists()


def test_a_file_that_is_cut_off_is_no_parquet_file(tmp_path: Path) -> None:
    whole = _written(_frame(GROUP, 3), tmp_path / "whole", "").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="not a Parquet file"):
        row_groups.join([tmp_path / "cut"], tmp_path / "joined", {})


def test_a_piece_that_shrinks_while_it_is_copied_is_noticed(tmp_path: Path) -> None:
    file = _written(_frame(GROUP, 3), tmp_path / "piece", "")
    with file.open("rb") as source, (tmp_path / "out").open("wb") as out, pytest.raises(ValueError, match="shorter"):
        row_groups._copy(source, out, file.stat().st_size + 1)


def test_no_row_is_decoded_for_a_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [_written(_frame(GROUP, seed), tmp_path / str(seed), "") for seed in (1, 2)]
    monkeypatch.setattr(pl, "scan_parquet", None)
    monkeypatch.setattr(pa, "Table", None)
    assert row_groups.join(files, tmp_path / "joined", {}) == 2 * GROUP

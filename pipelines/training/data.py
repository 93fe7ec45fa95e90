"""A Parquet file becomes columns in memory, checked against the spec. Shapes: n rows, m numeric, c categorical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.errors import TrainingError, explain
from pipelines.spec import UseCase

#: Finite float64 values past float32's range become infinite here, and the model clips those.
F32 = NDArray[np.float32]
#: Rows that are read at a time.
_PIECE_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Table:
    """Features as they were landed, and labels. Nothing is filled in and nothing is scaled."""

    numeric: F32
    """[n, m]; NaN where null."""
    categorical: tuple[pa.DictionaryArray, ...]
    """c columns of n strings, null where null."""
    label: F32
    """[n]; 0 or 1, a class index, or a value in its own unit."""
    weight: F32 | None = None
    """[n], not negative; None where the spec names no sample weight."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """These rows, in this order."""
        index = pa.array(rows)
        categorical = tuple(column.take(index) for column in self.categorical)
        weight = None if self.weight is None else self.weight[rows]
        return Table(self.numeric[rows], categorical, self.label[rows], weight)

    def feeds(self, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """What ONNX Runtime is fed: a float32 [n] or string [n] array a column, null strings as ""."""
        fed: dict[str, NDArray[np.generic]] = {
            name: np.ascontiguousarray(self.numeric[:, i]) for i, name in enumerate(numeric)
        }
        for name, column in zip(categorical, self.categorical, strict=True):
            words = np.array(["", *column.dictionary.to_pylist()], dtype=object)
            fed[name] = words[pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) + 1]
        return fed


def read(spec: UseCase, path: Path, *, groups: Sequence[int] | None = None, features: bool = True) -> Table:
    """Reads one of the three files of a training set.

    Args:
        groups: the file's row groups to read; all of them when absent.
        features: whether the features are read; without them the table has labels alone.

    Raises:
        TrainingError: the file or a column is missing, a column has a type that it may not have, there are no rows,
            a label is null, not finite or outside its classes, or a weight is null, negative or not finite.
    """
    weighted = spec.training.sample_weight is not None
    columns = [*(spec.features.columns if features else ()), "label", *(["weight"] if weighted else [])]
    words: list[tuple[pa.DictionaryArray, ...]] = []
    begin = 0
    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in columns if name not in file.schema_arrow.names]:
                raise TrainingError(explain(str(path), f"columns are missing: {', '.join(missing)}"))
            chosen = range(file.num_row_groups) if groups is None else groups
            # Piece by piece: the file's bytes, Arrow's columns and our arrays of all rows at once would take four
            # times the memory of what is kept.
            rows = sum(file.metadata.row_group(group).num_rows for group in chosen)
            label = np.empty(rows, np.float32)
            weight = np.empty(rows, np.float32) if weighted else None
            numeric = np.empty((rows, len(spec.features.numeric) if features else 0), np.float32)
            # One row group at a time: given several, the reader keeps the bytes of all of them.
            for batch in (part for group in chosen for part in file.iter_batches(_PIECE_ROWS, [group], columns)):
                table, piece = pa.Table.from_batches([batch]), slice(begin, begin + len(batch))
                label[piece] = _floats(table["label"], path, "label")
                if weight is not None:
                    weight[piece] = _floats(table["weight"], path, "weight")
                if features:
                    numeric[piece], strings = decode(spec, table, path)
                    words.append(strings)
                begin += len(batch)
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingError(explain(str(path), f"not a readable Parquet file: {error}")) from None
    if not rows:
        raise TrainingError(explain(str(path), "there are no rows", remedy="train on more partitions"))
    _check_label(spec, label, path)
    if weight is not None:
        _check_weight(weight, path)
    return Table(numeric, tuple(_unified(parts) for parts in zip(*words, strict=True)), label, weight)


def decode(spec: UseCase, table: pa.Table, path: Path) -> tuple[F32, tuple[pa.DictionaryArray, ...]]:
    """The features of a table that was read from `path`, as in `Table`.

    Raises:
        TrainingError: a column has a type that it may not have.
    """
    numeric = np.empty((len(table), len(spec.features.numeric)), np.float32)
    for i, name in enumerate(spec.features.numeric):
        numeric[:, i] = _floats(table[name], path, name)
    return numeric, tuple(_strings(table[name], path, name) for name in spec.features.categorical)


def _unified(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """One column of one vocabulary, in the order in which its words first come."""
    unified = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    return unified.chunk(0) if isinstance(unified, pa.ChunkedArray) else unified


def _floats(column: pa.ChunkedArray, path: Path, name: str) -> F32:
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    ):
        raise TrainingError(explain(f"{path} column {name!r}", f"it holds {kind}", allowed="numbers and booleans"))
    with np.errstate(over="ignore"):
        values = column.cast(pa.float64()).to_numpy().astype(np.float32)
    return np.asarray(values, np.float32)


def _check_weight(weight: F32, path: Path) -> None:
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        raise TrainingError(
            explain(
                f"{path} column 'weight'",
                f"{int(bad.sum())} of {len(weight)} weights are null, negative or not finite, such as {weight[bad][0]}",
                allowed="finite numbers from 0",
                remedy="correct the column that training.sample_weight names",
            )
        )
    if not weight.any():
        raise TrainingError(explain(f"{path} column 'weight'", f"all {len(weight)} weights are 0"))


def _strings(column: pa.ChunkedArray, path: Path, name: str) -> pa.DictionaryArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    ):
        raise TrainingError(explain(f"{path} column {name!r}", f"it holds {kind}", allowed="strings"))
    return column.cast(pa.large_string()).combine_chunks().dictionary_encode()


def _check_label(spec: UseCase, label: F32, path: Path) -> None:
    classes = {"binary": 2, "multiclass": len(spec.label.classes), "regression": 0}[spec.label.task]
    good = np.isin(label, np.arange(classes)) if classes else np.isfinite(label)
    if not good.all():
        allowed = f"0 to {classes - 1}" if classes else "finite numbers"
        raise TrainingError(
            explain(
                f"{path} column 'label'",
                f"{int((~good).sum())} of {len(label)} labels are not allowed, such as {label[~good][0]}",
                allowed=f"{allowed} ({spec.label.task})",
            )
        )


def read_unlabelled(spec: UseCase, path: Path) -> Table:
    """Reads unlabelled.parquet: the features alone. Its labels are NaN, and nothing may read them.

    Raises:
        TrainingError: as `read`.
    """
    columns = list(spec.features.columns)
    try:
        schema = pq.read_schema(path)
        if missing := [name for name in columns if name not in schema.names]:
            raise TrainingError(explain(str(path), f"columns are missing: {', '.join(missing)}"))
        table = pq.read_table(path, columns=columns).combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingError(explain(str(path), f"not a readable Parquet file: {error}")) from None
    numeric = np.empty((len(table), len(spec.features.numeric)), np.float32)
    for i, name in enumerate(spec.features.numeric):
        numeric[:, i] = _floats(table[name], path, name)
    categorical = tuple(_strings(table[name], path, name) for name in spec.features.categorical)
    return Table(numeric, categorical, np.full(len(table), np.nan, np.float32))

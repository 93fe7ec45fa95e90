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


@dataclass(frozen=True, slots=True)
class Table:
    """Features as they were landed, and labels. Nothing is filled in and nothing is scaled."""

    numeric: F32
    """[n, m]; NaN where null."""
    categorical: tuple[pa.DictionaryArray, ...]
    """c columns of n strings, null where null."""
    label: F32
    """[n]; 0 or 1, a class index, or a value in its own unit."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """These rows, in this order."""
        index = pa.array(rows)
        return Table(self.numeric[rows], tuple(column.take(index) for column in self.categorical), self.label[rows])

    def feeds(self, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """What ONNX Runtime is fed: a float32 [n] or string [n] array a column, null strings as ""."""
        fed: dict[str, NDArray[np.generic]] = {
            name: np.ascontiguousarray(self.numeric[:, i]) for i, name in enumerate(numeric)
        }
        for name, column in zip(categorical, self.categorical, strict=True):
            words = np.array(["", *column.dictionary.to_pylist()], dtype=object)
            fed[name] = words[pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) + 1]
        return fed


def read(spec: UseCase, path: Path) -> Table:
    """Reads one of the three files of a training set.

    Raises:
        TrainingError: the file or a column is missing, a column has a type that it may not have, there are no rows,
            or a label is null, not finite or outside its classes.
    """
    columns = [*spec.features.columns, "label"]
    try:
        schema = pq.read_schema(path)
        if missing := [name for name in columns if name not in schema.names]:
            raise TrainingError(explain(str(path), f"columns are missing: {', '.join(missing)}"))
        table = pq.read_table(path, columns=columns).combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingError(explain(str(path), f"not a readable Parquet file: {error}")) from None
    if not len(table):
        raise TrainingError(explain(str(path), "there are no rows", remedy="train on more partitions"))
    numeric = np.empty((len(table), len(spec.features.numeric)), np.float32)
    for i, name in enumerate(spec.features.numeric):
        numeric[:, i] = _floats(table[name], path, name)
    categorical = tuple(_strings(table[name], path, name) for name in spec.features.categorical)
    label = _floats(table["label"], path, "label")
    _check_label(spec, label, path)
    return Table(numeric, categorical, label)


def _floats(column: pa.ChunkedArray, path: Path, name: str) -> F32:
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    ):
        raise TrainingError(explain(f"{path} column {name!r}", f"it holds {kind}", allowed="numbers and booleans"))
    with np.errstate(over="ignore"):
        values = column.cast(pa.float64()).to_numpy().astype(np.float32)
    return np.asarray(values, np.float32)


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

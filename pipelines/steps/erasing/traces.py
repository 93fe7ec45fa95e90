"""How a subject is recognised: in typed rows, in files of any form, and in plain text."""

from __future__ import annotations

import csv
import io
import json
from functools import cached_property
from pathlib import Path

import polars as pl

from pipelines.spec import ColumnType, UseCase
from pipelines.steps.erasing.subject import KINDS, Subject, columns_of
from pipelines.steps.erasing.words import Words, decoded, forms_of, inflated
from pipelines.steps.predictions import PREDICTIONS
from pipelines.tabular.values import POLARS_TYPES, readable

MARK = "__subject"
_BY_KEY = "__key"


class Traces:
    """A subject, and the keys of the rows that ever carried its value, in any stored version."""

    def __init__(self, spec: UseCase, subject: Subject, keys: pl.DataFrame | None = None) -> None:
        """Takes the keys that were found so far.

        Args:
            keys: `partition` and the key columns of `rows`.
        """
        self._spec = spec
        self.subject = subject
        types = {name: POLARS_TYPES[spec.rows.columns[name].type] for name in spec.rows.key}
        self.keys = pl.DataFrame(schema={"partition": pl.String(), **types}) if keys is None else keys.unique()

    def __len__(self) -> int:
        return self.keys.height

    def with_keys(self, keys: pl.DataFrame) -> Traces:
        """The same subject with more keys."""
        return Traces(self._spec, self.subject, pl.concat([self.keys, keys]))

    # -- typed rows ----------------------------------------------------------------------------------------------

    def has_value(self, table: str) -> bool:
        """Whether a table has the subject's column itself."""
        return table in self.subject.values

    def has_key(self, table: str) -> bool:
        """Whether a table has every key column of `rows`, so that its rows belong to rows."""
        return set(self._spec.rows.key) <= set(columns_of(self._spec, table))

    def columns(self, table: str) -> list[str]:
        """What `marked` looks at."""
        names = [self.subject.column] if self.has_value(table) else []
        return list(dict.fromkeys([*names, *(self._spec.rows.key if self.has_key(table) else ())]))

    def may_hold(self, table: str, partition: str) -> bool:
        """Whether a partition needs to be read at all."""
        if self.has_value(table):
            return True
        return self.has_key(table) and not (self._of_rows(table) and partition not in self._partitions)

    def marked(self, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Adds the column `MARK`: whether a row is the subject's, by its value or by the key of a row that ever had it.

        A key identifies a row within its partition, so rows, labels and predictions are matched by both; rows of other
        tables that hold the key belong to it in any partition.

        Args:
            rows: `partition` and at least those of `columns` that the file has.
        """
        names = rows.collect_schema().names()
        found = pl.lit(False)
        if self.has_value(table) and self.subject.column in names:
            found = pl.col(self.subject.column).eq_missing(pl.lit(self.subject.values[table]))
        key = list(self._spec.rows.key)
        if self.has_key(table) and set(key) <= set(names) and len(self):
            on = ["partition", *key] if self._of_rows(table) else key
            known = self.keys.select(on).unique().lazy().with_columns(pl.lit(True).alias(_BY_KEY))
            rows = rows.join(known, on=on, how="left", maintain_order="left")
            return rows.with_columns((found | pl.col(_BY_KEY).fill_null(False)).alias(MARK)).drop(_BY_KEY)
        return rows.with_columns(found.alias(MARK))

    def _of_rows(self, table: str) -> bool:
        return table in ("rows", self._spec.label.table, PREDICTIONS)

    @cached_property
    def _partitions(self) -> set[str]:
        return set(self.keys.get_column("partition"))

    # -- text ----------------------------------------------------------------------------------------------------

    @cached_property
    def _value(self) -> Words:
        return Words([form for spelling in self.subject.spellings for form in forms_of(spelling)])

    @cached_property
    def _key_texts(self) -> list[tuple[str, ...]]:
        """The parts of each key that have one spelling."""
        telling = [name for name in self._spec.rows.key if self._spec.rows.columns[name].type in KINDS]
        return [tuple(map(str, key)) for key in self.keys.select(telling).unique().iter_rows()] if telling else []

    def names(self, text: str) -> bool:
        """Whether a text holds the value itself as a whole word."""
        return self._value.found_in(text)

    def mentioned(self, text: str) -> bool:
        """Whether a text holds the value, or a key, as a whole word. Cautious: a 7 of another meaning counts."""
        return self.names(text) or any(
            all(Words(forms_of(part)).found_in(text) for part in parts) for parts in self._key_texts if parts
        )

    # -- files ---------------------------------------------------------------------------------------------------

    def in_file(self, data: bytes, table: str | None = None, partition: str = "", cap: int = 2**30) -> bool | None:
        """Whether a file holds the subject; None when it cannot be read to its end, so that nobody can say.

        Args:
            data: the file as it lies there: text, Parquet, or either within gzip.
            table: whose file it is; without one it is searched as text.
            cap: decompressed bytes after which reading stops.
        """
        whole = True
        if data[:2] == b"\x1f\x8b":
            data, whole = inflated(data, cap)
        if data[:4] == b"PAR1":
            return self._in_parquet(data, table, partition)
        texts = list(decoded(data))
        if self.subject.text is not None and any(map(self.names, texts)):
            return True
        found = self._in_records(texts[0], table, partition) if table in self._spec.tables else None
        if found is None:
            found = any(map(self.mentioned, texts))
        return True if found else (False if whole else None)

    def in_copy(self, path: Path) -> bool:
        """Whether a derived file that may be deleted, such as a training set or a cached copy, holds the subject.

        Cautious: one that cannot be read counts, and of a file without a `partition` column every key counts.
        """
        data = path.read_bytes()
        if data[:4] != b"PAR1":
            return self.in_file(data) is not False
        try:
            frame = pl.read_parquet(io.BytesIO(data))
        except (pl.exceptions.PolarsError, OSError):
            return True
        on = [name for name in self.keys.columns if name in frame.columns]
        if set(self._spec.rows.key) <= set(on):
            known = self.keys.with_columns(pl.col(name).cast(frame.schema[name], strict=False) for name in on)
            if not frame.join(known, on=on, how="semi").is_empty():
                return True
        column = self.subject.column
        if column in frame.columns:
            own = frame.get_column(column)
            for value in self.subject.values.values():
                typed = pl.Series([value]).cast(own.dtype, strict=False)
                if typed.null_count() == 0 and own.is_in(typed.implode()).any():
                    return True
        return self._in_parquet(data, None, "") is not False

    def _in_parquet(self, data: bytes, table: str | None, partition: str) -> bool | None:
        try:
            frame = pl.read_parquet(io.BytesIO(data))
            words = frame.select(pl.selectors.string(include_categorical=True).cast(pl.String))
        except (pl.exceptions.PolarsError, OSError):
            return None
        if table in self._spec.tables and self._in_typed(self._typed(frame, table), table, partition):
            return True
        return self.subject.text is not None and any(
            any(map(self.names, column.drop_nulls().unique())) for column in words.iter_columns()
        )

    def _in_records(self, text: str, table: str, partition: str) -> bool | None:
        """Whether a record of a text file is the subject's; None when the file is not quite what the spec describes,
        so that the value may be where nobody expects it."""
        about, wanted = self._spec.tables[table], self.columns(table)
        if not wanted:
            return False
        try:
            if about.format == "jsonl":
                records = [json.loads(line) for line in text.splitlines() if line.strip()]
                columns = {name: [_word(record[name]) for record in records] for name in wanted}
            else:
                header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=about.delimiter, strict=True)
                places = {name: header.index(name) for name in wanted}
                if any(len(row) != len(header) for row in rows):
                    return None
                columns = {name: [row[place] for row in rows] for name, place in places.items()}
        except (ValueError, KeyError, TypeError, csv.Error):
            return None
        nulls = list(about.null_values)
        raw = pl.DataFrame(columns, schema=dict.fromkeys(wanted, pl.String))
        raw = raw.select(pl.when(~pl.col(name).is_in(nulls)).then(pl.col(name)) for name in wanted)
        typed = self._typed(raw, table)
        if any(typed[name].null_count() > raw[name].null_count() for name in wanted):
            return None
        return self._in_typed(typed, table, partition)

    def _typed(self, frame: pl.DataFrame, table: str) -> pl.DataFrame:
        kinds = {name: columns_of(self._spec, table)[name].type for name in self.columns(table)}
        present = [name for name in kinds if name in frame.columns]
        return frame.select(_as_type(name, kinds[name], frame.schema[name]) for name in present)

    def _in_typed(self, typed: pl.DataFrame, table: str, partition: str) -> bool:
        named = typed.lazy().with_columns(pl.lit(partition).alias("partition"))
        return not self.marked(table, named).filter(pl.col(MARK)).collect().is_empty()


def _as_type(name: str, kind: ColumnType, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return readable(name, kind)
    return pl.col(name).cast(POLARS_TYPES[kind], strict=False)


def _word(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value)

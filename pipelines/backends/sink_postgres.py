"""Predictions as rows of a table in PostgreSQL, through psycopg 3.

One transaction a partition: a lock, what is there by `overnight_deliveries`, the partition's rows out, the new ones in
(COPY, a bounded batch at a time), the row of `overnight_deliveries`, commit. Readers have the former rows or the new
ones. A connection that is lost while it commits leaves it open which: the next call finds the key, or delivers again.

    <schema>.<table>                   partition text, then the columns of the delivery
    <schema>.overnight_deliveries      (use_case, delivery, partition) -> key, rows, model version, snapshot, run

The tables are made when they are absent, and columns that are new are added; a column of another type is refused. The
role needs USAGE and CREATE on the schema, or, where somebody else makes the tables, SELECT, INSERT, UPDATE and DELETE.
Nothing of rows or of the address is in an error: the server's own words may quote either, so only its code is told.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, LiteralString, NoReturn

import polars as pl

from pipelines.backends.sink_rows import flat, is_nested
from pipelines.errors import OvernightError, SchemaMismatch, ServiceRefused, SpecError, UnavailableError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Consignment
from pipelines.records import Delivered
from pipelines.spec import PostgresDelivery
from pipelines.spec.delivery import LEDGER

if TYPE_CHECKING:
    from psycopg import Connection, Cursor, Error
    from pydantic import SecretStr

PARTITION = "partition"
#: Bytes of a name in PostgreSQL: a longer one would be cut off without a word.
_NAME_BYTES = 63
_CONNECT_SECONDS = 10
#: A client that vanished must not hold a partition's lock for long, nor may one wait for ever.
_GUARDS: tuple[LiteralString, ...] = (
    "SET LOCAL lock_timeout = '300s'",
    "SET LOCAL idle_in_transaction_session_timeout = '300s'",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL client_encoding = 'UTF8'",
    "SET LOCAL synchronous_commit = on",
)
_TYPES: Mapping[Any, str] = {
    pl.Boolean: "boolean",
    pl.Int8: "smallint",
    pl.Int16: "smallint",
    pl.UInt8: "smallint",
    pl.Int32: "integer",
    pl.UInt16: "integer",
    pl.Int64: "bigint",
    pl.UInt32: "bigint",
    pl.UInt64: "numeric(20,0)",
    pl.Float32: "real",
    pl.Float64: "double precision",
    pl.String: "text",
    pl.Enum: "text",
    pl.Categorical: "text",
    pl.Date: "date",
    pl.Time: "time without time zone",
}
_LEDGER_COLUMNS: Mapping[str, str] = {
    "use_case": "text NOT NULL",
    "delivery": "text NOT NULL",
    "partition": "text NOT NULL",
    "key": "text NOT NULL",
    "table_name": "text NOT NULL",
    "rows": "bigint NOT NULL",
    "model_version": "bigint NOT NULL",
    "snapshot": "text NOT NULL",
    "digest": "text NOT NULL",
    "run_id": "text NOT NULL",
    "dag_id": "text NOT NULL",
    "delivered_at": "timestamp with time zone NOT NULL",
}
#: Classes of SQLSTATE that pass by themselves: connection, resources, locks, operator's intervention, system.
_PASSING = ("08", "40", "53", "55", "57", "58", "XX")
#: What may be told of an address. A `/` or `@` in a password that is not percent-encoded makes other parts of it.
_HOST = re.compile(r"[A-Za-z0-9_.,:/-]*")
_PORT = re.compile(r"[0-9,]*")
_DATABASE = re.compile(r"[A-Za-z0-9_.$-]*")
_LOGIN = (
    "authentication failed",
    "does not exist",
    "pg_hba",
    "permission denied",
    "no password supplied",
    "not permitted",
)


class PostgresSink:
    """Delivers rows into a table."""

    def __init__(self, delivery: PostgresDelivery, address: SecretStr) -> None:
        """Connects to nothing.

        Args:
            address: `postgresql://user:word@host:port/database`.

        Raises:
            SpecError: the address is of another kind.
        """
        self._delivery = delivery
        self._address = address
        database, self._impatient = _read(delivery, address)
        self.where = f"{database} {delivery.db_schema}.{delivery.table}"
        """Host, database and table; no user, no password, nothing of the address's parameters."""

    def deliver(self, consignment: Consignment) -> Delivered:
        """See `Sink.deliver`."""
        columns = _columns(self.where, consignment.schema)
        with self._connected() as connection:
            with connection.transaction(), connection.cursor() as cursor:
                for guard in _GUARDS:
                    cursor.execute(guard)
                state, rows = _Transaction(self.where, self._delivery, cursor, consignment, columns).run()
            failpoint("deliver.committed")
        return Delivered(
            delivery=consignment.delivery,
            sink="postgres",
            partition=consignment.prediction.partition,
            key=consignment.key,
            rows=rows,
            where=self.where,
            state=state,
        )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        import psycopg

        options: dict[str, Any] = {
            "autocommit": True,  # transactions are begun by name
            "application_name": "overnight",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        if not self._impatient:
            options["connect_timeout"] = _CONNECT_SECONDS
        try:
            with psycopg.connect(self._address.get_secret_value(), **options) as connection:
                yield connection
        except psycopg.Error as error:
            self._refuse(error)

    def _refuse(self, error: Error) -> NoReturn:
        """Tells what kind of failure it was, and none of its words."""
        state, words = error.sqlstate, str(error)
        named = f"{type(error).__name__}{f' (SQLSTATE {state})' if state else ''}"
        if column := error.diag.column_name:
            named += f" in column {column}"
        raised: OvernightError
        if state is None and any(word in words for word in _LOGIN):
            remedy = "check user, password and database of the target, and what the server lets in"
            raised = ServiceRefused(explain(self.where, f"the server did not let us in: {named}", remedy=remedy))
        elif state is None or state[:2] in _PASSING:
            raised = UnavailableError(explain(self.where, f"the database did not answer as it should: {named}"))
        else:
            remedy = "the server's log has the whole message; see what the role may do, and the table's constraints"
            raised = ServiceRefused(explain(self.where, f"the database refused: {named}", remedy=remedy))
        raise raised from None


class _Transaction:
    """What happens between BEGIN and COMMIT."""

    def __init__(
        self,
        where: str,
        delivery: PostgresDelivery,
        cursor: Cursor,
        consignment: Consignment,
        columns: Mapping[str, str],
    ) -> None:
        from psycopg import sql

        self._where, self._schema, self._name = where, delivery.db_schema, delivery.table
        self._cursor, self._consignment, self._columns = cursor, consignment, columns
        self._table = sql.Identifier(self._schema, self._name)
        self._ledger = sql.Identifier(self._schema, LEDGER)
        told = consignment.prediction
        self._id = (consignment.use_case, consignment.delivery, told.partition)

    def run(self) -> tuple[Literal["delivered", "unchanged"], int]:
        """Delivers; gives the rows that are there."""
        self._lock(f"{self._name} partition {self._id[2]}")
        if (rows := self._known()) is not None:
            return "unchanged", rows
        self._prepare()
        self._refuse_strangers()
        rows = self._replace()
        failpoint("deliver.copied")
        self._note(rows)
        return "delivered", rows

    def _execute(self, text: LiteralString, *values: object, **names: Any) -> None:
        from psycopg import sql

        # Without values a `%` in a column's name is no placeholder.
        self._cursor.execute(sql.SQL(text).format(**names), values or None)

    def _one(self) -> Any:
        found = self._cursor.fetchone()
        return None if found is None else found[0]

    def _lock(self, what: str) -> None:
        """Held until the transaction ends, however it does."""
        name = f"overnight {self._schema}.{what}"
        self._execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", name)

    def _held(self, table: str) -> dict[str, str]:
        """Type by column; empty when there is no such table."""
        self._execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum",
            self._schema,
            table,
        )
        return dict(self._cursor.fetchall())

    def _known(self) -> int | None:
        """The rows of this key, if it was delivered and nothing since."""
        if not self._held(LEDGER) or not self._held(self._name):
            return None
        self._execute(
            "SELECT rows FROM {ledger} WHERE (use_case, delivery, partition) = (%s, %s, %s) AND key = %s "
            "AND table_name = %s",
            *self._id,
            self._consignment.key,
            self._name,
            ledger=self._ledger,
        )
        rows = self._one()
        return None if rows is None else int(rows)

    def _prepare(self) -> None:
        """Makes tables that are absent, and adds columns that are new."""
        if not self._wanting(self._held(self._name)) and self._held(LEDGER):
            return
        self._lock("tables")  # of several that would make them, one does
        if not self._held(LEDGER):
            self._make(self._ledger, _LEDGER_COLUMNS, "PRIMARY KEY (use_case, delivery, partition)")
        held = self._held(self._name)
        if not held:
            self._make(self._table, {PARTITION: "text NOT NULL", **self._columns})
            self._execute("CREATE INDEX ON {table} (partition)", table=self._table)
            return
        from psycopg import sql

        for name, kind in self._wanting(held).items():
            column, type_ = sql.Identifier(name), sql.SQL(kind)
            self._execute(
                "ALTER TABLE {table} ADD COLUMN {column} {type}", table=self._table, column=column, type=type_
            )

    def _make(self, table: Any, columns: Mapping[str, str], more: LiteralString = "") -> None:
        from psycopg import sql

        each = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
        inner = sql.SQL(", ").join([*each, *([sql.SQL(more)] if more else [])])
        self._execute("CREATE TABLE {table} ({inner})", table=table, inner=inner)

    def _wanting(self, held: Mapping[str, str]) -> dict[str, str]:
        """Columns that the table has not.

        Raises:
            SchemaMismatch: it has one of another type, or is another kind of table.
        """
        if held and held.get(PARTITION) != "text":
            what = f"the table has no column {PARTITION!r} of type text, so it is none of a delivery"
            raise SchemaMismatch(explain(self._where, what, remedy="name another table in the delivery"))
        wrong = [
            f"{name} is {held[name]}, the predictions' is {kind}"
            for name, kind in self._columns.items()
            if name in held and held[name] != kind
        ]
        if wrong:
            remedy = "name another table, or change the column there"
            raise SchemaMismatch(explain(self._where, f"columns of another type: {'; '.join(wrong)}", remedy=remedy))
        return {name: kind for name, kind in self._columns.items() if name not in held}

    def _refuse_strangers(self) -> None:
        """A partition's rows are replaced by its name: two deliveries in one table would remove each other's."""
        self._execute(
            "SELECT use_case || ': ' || delivery FROM {ledger} WHERE table_name = %s "
            "AND (use_case, delivery) <> (%s, %s) LIMIT 1",
            self._name,
            *self._id[:2],
            ledger=self._ledger,
        )
        if (other := self._one()) is not None:
            remedy = f"name another table; if the delivery was renamed, correct its rows in {self._schema}.{LEDGER}"
            raise ServiceRefused(explain(self._where, f"the table is that of {other}", remedy=remedy))

    def _replace(self) -> int:
        """The partition's rows out, the new ones in; gives how many these are."""
        from psycopg import sql

        partition = self._id[2]
        self._execute("DELETE FROM {table} WHERE partition = %s", partition, table=self._table)
        columns = sql.SQL(", ").join(map(sql.Identifier, [PARTITION, *self._columns]))
        copy = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT csv)").format(table=self._table, columns=columns)
        rows = 0
        with self._cursor.copy(copy) as stream:
            for frame in self._consignment.rows():
                front = frame.select(pl.lit(partition).alias(PARTITION), pl.all())
                # Every text in quotes: `\.` on a line of its own would end the data.
                stream.write(flat(front).write_csv(include_header=False, quote_style="non_numeric").encode())
                rows += frame.height
        return rows

    def _note(self, rows: int) -> None:
        told, run = self._consignment.prediction, self._consignment.run
        self._execute(
            "INSERT INTO {ledger} (use_case, delivery, partition, key, table_name, rows, model_version, snapshot, "
            "digest, run_id, dag_id, delivered_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now()) "
            "ON CONFLICT (use_case, delivery, partition) DO UPDATE SET key = excluded.key, "
            "table_name = excluded.table_name, rows = excluded.rows, model_version = excluded.model_version, "
            "snapshot = excluded.snapshot, digest = excluded.digest, run_id = excluded.run_id, "
            "dag_id = excluded.dag_id, delivered_at = excluded.delivered_at",
            *self._id,
            self._consignment.key,
            self._name,
            rows,
            told.model_version,
            told.snapshot.id,
            told.digest,
            run.run_id,
            run.dag_id,
            ledger=self._ledger,
        )


def _read(delivery: PostgresDelivery, address: SecretStr) -> tuple[str, bool]:
    """Host and database of an address, for a person, and whether it says how long a connection may take.

    Raises:
        SpecError: it is none, or a special character in its password made something else of it.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    text = address.get_secret_value()
    if text.startswith(("postgresql://", "postgres://")):
        with contextlib.suppress(psycopg.Error, ValueError):  # they quote it
            said = conninfo_to_dict(text)
            host, port, name = (str(said.get(part) or "") for part in ("host", "port", "dbname"))
            if _HOST.fullmatch(host) and _PORT.fullmatch(port) and _DATABASE.fullmatch(name):
                return f"postgresql://{host}{f':{port}' if port else ''}/{name}", "connect_timeout" in said
    raise SpecError(
        explain(
            f"delivery {delivery.name}",
            f"target {delivery.target!r} is no address of a PostgreSQL database",
            allowed="postgresql://user:word@host:port/database, with special characters percent-encoded",
            remedy="correct it in OVERNIGHT_TARGETS",
        )
    )


def _columns(where: str, schema: pl.Schema) -> dict[str, str]:
    """The type of each column in PostgreSQL.

    Raises:
        SchemaMismatch: a type or a name that it has not.
    """
    found = {}
    for name, dtype in schema.items():
        if len(name.encode()) > _NAME_BYTES or "\0" in name or not name:
            raise SchemaMismatch(explain(where, f"a column's name is too long: {name[:80]!r}", allowed="63 bytes"))
        kind = _TYPES.get(dtype.base_type())
        if isinstance(dtype, pl.Datetime):
            kind = f"timestamp {'with' if dtype.time_zone is not None else 'without'} time zone"
        elif is_nested(dtype):
            kind = "jsonb"
        if kind is None:
            raise SchemaMismatch(explain(where, f"column {name!r} is {dtype}, for which there is no type here"))
        found[name] = kind
    return found

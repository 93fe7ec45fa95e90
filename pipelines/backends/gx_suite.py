"""What a table's spec asks of its partitions, as Great Expectations expectations."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from pipelines.errors import SpecError, explain
from pipelines.ports import STATIC
from pipelines.spec import Table, UseCase

#: Arguments that hold values of the column itself.
_VALUES = frozenset({"min_value", "max_value", "value_set", "value"})
#: Arguments of every expectation that say nothing about data, or that would soften or hide a verdict.
_RESERVED = frozenset(
    {"batch_id", "catch_exceptions", "condition_parser", "description", "id", "meta", "notes", "rendered_content"}
    | {"result_format", "severity", "table", "windows"}
)
_START, _END = {"$PARAMETER": "start"}, {"$PARAMETER": "end"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One expectation by its name in a spec, with its arguments as Great Expectations takes them."""

    expect: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def column(self) -> str | None:
        """The column or columns that it is about, for a person."""
        if one := self.kwargs.get("column"):
            return str(one)
        pair = [self.kwargs[name] for name in ("column_A", "column_B") if name in self.kwargs]
        many = pair or (self.kwargs.get("column_list") or [] if "table_columns" not in self.expect else [])
        return ", ".join(many) or None

    def at(self, bounds: Mapping[str, datetime]) -> Rule:
        """The rule with the partition's own first instant and end put in."""
        return Rule(
            expect=self.expect,
            kwargs={
                name: bounds[value["$PARAMETER"]] if value in (_START, _END) else value
                for name, value in self.kwargs.items()
            },
        )

    @property
    def bounded(self) -> bool:
        """Whether it has another form for each partition."""
        return any(value in (_START, _END) for value in self.kwargs.values())


def rules(spec: UseCase, table: str, *, static: bool = False) -> tuple[Rule, ...]:
    """Everything that must hold, checked against the library; see `asked`.

    Raises:
        SpecError: an expectation does not exist, its arguments do not fit, or it names a column that is not there.
    """
    if table in spec.tables:
        shape = spec.tables[table]
        for each in shape.expectations:
            _check(f"{spec.name}/{table}", shape, each.expect, each.kwargs)
    return asked(spec, table, static=static)


def asked(spec: UseCase, table: str, *, static: bool = False) -> tuple[Rule, ...]:
    """Everything that must hold: what follows from the table's spec first, then its own expectations.

    Without the library, which costs seconds to import: for whoever only needs the suite's digest.

    Args:
        static: the partition is the whole of a static table, so no bounds of event time apply.

    Raises:
        SpecError: there is no such table.
    """
    if table not in spec.tables:
        raise SpecError(explain(spec.name, f"there is no table {table!r}", allowed=", ".join(spec.tables)))
    shape = spec.tables[table]
    never_null = {name for name, column in shape.columns.items() if not column.nullable} | set(shape.key)
    if shape.event_time:
        never_null.add(shape.event_time)
    derived = [
        Rule(expect="table_columns_to_match_ordered_list", kwargs={"column_list": list(shape.columns)}),
        Rule(expect="table_row_count_to_be_between", kwargs={"min_value": shape.min_rows, "max_value": shape.max_rows}),
        *(
            Rule(expect="column_values_to_not_be_null", kwargs={"column": name})
            for name in shape.columns
            if name in never_null
        ),
        Rule(expect="column_values_to_be_unique", kwargs={"column": shape.key[0]})
        if len(shape.key) == 1
        else Rule(expect="compound_columns_to_be_unique", kwargs={"column_list": list(shape.key)}),
    ]
    if shape.event_time and not static:
        derived.append(
            Rule(
                expect="column_values_to_be_between",
                kwargs={"column": shape.event_time, "min_value": _START, "max_value": _END, "strict_max": True},
            )
        )
    own = [_rule(shape, each.expect, each.kwargs) for each in shape.expectations]
    return (*derived, *(rule for rule in own if rule not in derived))


def rules_digest(chosen: tuple[Rule, ...]) -> str:
    """SHA-256 of the canonical JSON of every rule, in order."""
    listed = [[rule.expect, rule.kwargs] for rule in chosen]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def is_static(partition: str) -> bool:
    """Whether a partition key is the one of a static table."""
    return partition == STATIC


@functools.cache
def catalogue() -> dict[str, type[Any]]:
    """Every expectation of Great Expectations, by its name in a spec (without the leading `expect_`)."""
    import great_expectations.expectations as library

    classes = [getattr(library, name) for name in dir(library) if name.startswith("Expect")]
    named = {str(getattr(cls, "expectation_type", "")): cls for cls in classes}
    return {name.removeprefix("expect_"): cls for name, cls in named.items() if name.startswith("expect_")}


def build(rule: Rule) -> Any:
    """The rule as an object of Great Expectations, ready to be run."""
    return catalogue()[rule.expect](**rule.kwargs)


def _rule(shape: Table, expect: str, kwargs: Mapping[str, Any]) -> Rule:
    given = {name: _instants(shape, kwargs, value) if name in _VALUES else value for name, value in kwargs.items()}
    return Rule(expect=expect, kwargs=given)


def _check(where: str, shape: Table, expect: str, kwargs: Mapping[str, Any]) -> None:
    """Checks one expectation of a spec against the library, as far as that is possible without data."""
    where = f"{where}: expectation {expect!r}"
    known = catalogue()
    if expect not in known:
        near = difflib.get_close_matches(expect.removeprefix("expect_"), known, n=3, cutoff=0.5) or sorted(known)
        raise SpecError(
            explain(
                where,
                "Great Expectations has no such expectation",
                allowed="for example " + ", ".join(near),
                remedy="write the name in snake case, without the leading expect_",
            )
        )
    fields = sorted(set(known[expect].__fields__) - _RESERVED)
    if stray := sorted(set(kwargs) - set(fields)):
        near = [match for name in stray for match in difflib.get_close_matches(name, fields, n=1)]
        raise SpecError(
            explain(
                where,
                f"no argument {', '.join(map(repr, stray))}",
                allowed=", ".join(fields),
                remedy=f"perhaps {', '.join(near)} was meant" if near else None,
            )
        )
    _refuse_code(where, kwargs)
    try:
        build(_rule(shape, expect, kwargs))
    except (ValueError, TypeError) as error:
        listed = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip() for item in listed)
        raise SpecError(explain(where, f"its arguments do not fit: {wrong}", allowed=", ".join(fields))) from None
    named = [kwargs.get(name) for name in ("column", "column_A", "column_B")]
    if "table_columns" not in expect:
        named.extend(kwargs.get("column_list") or ())
    if absent := [name for name in named if name is not None and name not in shape.columns]:
        near = difflib.get_close_matches(str(absent[0]), shape.columns, n=1)
        raise SpecError(
            explain(
                where,
                f"no column {', '.join(map(repr, absent))}",
                allowed=", ".join(shape.columns),
                remedy=f"perhaps {near[0]} was meant" if near else None,
            )
        )


def _refuse_code(where: str, value: Any) -> None:
    """Row conditions in text would be evaluated by pandas; suite parameters have nobody to set them."""
    if isinstance(value, Mapping):
        if isinstance(value.get("row_condition"), str) or "pass_through_filter" in value:
            raise SpecError(
                explain(where, "row_condition is text", allowed="a mapping of column, operator and parameter")
            )
        if "$PARAMETER" in value:
            raise SpecError(explain(where, "$PARAMETER has no value here", remedy="write the value itself"))
        for inner in value.values():
            _refuse_code(where, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_code(where, inner)


def _instants(shape: Table, kwargs: Mapping[str, Any], value: Any) -> Any:
    """Dates and times of YAML, quoted or not, as aware instants (UTC), where the column holds instants."""
    column = shape.columns.get(str(kwargs.get("column") or kwargs.get("column_A")))
    if column is None or column.type not in ("timestamp", "date"):
        return value
    if isinstance(value, list | tuple):
        return [_instants(shape, kwargs, inner) for inner in value]
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware if column.type == "timestamp" else aware.replace(tzinfo=None)
    return value

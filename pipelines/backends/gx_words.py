"""The verdicts of Great Expectations in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import polars as pl

from pipelines.backends.gx_suite import Rule
from pipelines.records import Check

_SHOWN_VALUES, _SHOWN_KEYS = 3, 5
_SETS = {"_not_": "none of", "contain_set": "all of, among others,", "equal_set": "exactly"}
_KEY_RULES = ("column_values_to_be_unique", "compound_columns_to_be_unique")


def check_of(rule: Rule, success: object, result: Mapping[str, Any], error: str | None, frame: pl.DataFrame) -> Check:
    """One expectation's verdict as a check.

    Args:
        success: what Great Expectations decided; anything but True is a failure.
        result: its `result` mapping.
        error: what the expectation raised, if it did: then it is a failure whatever `success` says.
        frame: the partition, from which repeated keys are listed.
    """
    passed = success is True and error is None
    if error is not None:
        observed = f"the expectation could not be evaluated: {error}"
    elif not passed and rule.expect in _KEY_RULES:
        observed = _repeated(rule, frame)
    elif rule.expect == "table_columns_to_match_ordered_list":
        observed = _columns(rule, frame)
    elif rule.expect == "table_row_count_to_be_between":
        observed = f"{result.get('observed_value', '?')} rows"
    elif "unexpected_count" in result:
        observed = _counted(result)
    else:
        observed = shown(result.get("observed_value", "no value"))
    return Check(name=rule.expect, column=rule.column, passed=passed, observed=observed, allowed=allowed(rule))


def allowed(rule: Rule) -> str:
    """What would pass."""
    kwargs = rule.kwargs
    if rule.expect == "table_columns_to_match_ordered_list":
        text = "exactly these columns, in this order: " + ", ".join(kwargs["column_list"])
    elif rule.expect.endswith("to_not_be_null"):
        text = "no nulls"
    elif rule.expect in _KEY_RULES:
        text = "each value once" if rule.expect.startswith("column_") else "each combination once"
    elif (low := kwargs.get("min_value")) is not None or kwargs.get("max_value") is not None:
        text = _range(low, kwargs.get("max_value"), bool(kwargs.get("strict_min")), bool(kwargs.get("strict_max")))
    elif "value_set" in kwargs:
        verb = next((words for part, words in _SETS.items() if part in rule.expect), "one of")
        text = f"{verb} {', '.join(shown(value) for value in kwargs['value_set'] or ())}"
    elif rule.expect == "column_value_lengths_to_equal":
        text = f"{kwargs['value']} characters"
    elif "regex" in kwargs:
        text = f"{'does not match' if '_not_' in rule.expect else 'matches'} {kwargs['regex']}"
    else:
        rest = {name: value for name, value in kwargs.items() if not name.startswith("column") and name != "mostly"}
        text = ", ".join(f"{name} {shown(value)}" for name, value in rest.items())
        text = text or rule.expect.replace("_", " ")
    mostly = kwargs.get("mostly", 1)
    return text if mostly == 1 else f"{text}, for at least {mostly:.4g} of the values"


def shown(value: object) -> str:
    """A value for a person: short, exact enough, and unmistakable."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple | set):
        return ", ".join(shown(inner) for inner in value)
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _range(low: object, high: object, strict_low: bool, strict_high: bool) -> str:
    left = None if low is None else f"{'above' if strict_low else 'at least'} {shown(low)}"
    right = None if high is None else f"{'below' if strict_high else 'at most'} {shown(high)}"
    return " and ".join(part for part in (left, right) if part)


def _counted(result: Mapping[str, Any]) -> str:
    rows, bad = int(result.get("element_count") or 0), int(result.get("unexpected_count") or 0)
    empty = int(result.get("missing_count") or 0)
    nulls = f", {empty} null" if empty else ""
    if not bad:
        return f"{rows - empty} values, all as allowed{nulls}"
    values = [value for value in _distinct(result.get("partial_unexpected_list") or ()) if value is not None]
    listed = ", ".join(shown(value) for value in values[:_SHOWN_VALUES]) + (
        ", ..." if len(values) > _SHOWN_VALUES else ""
    )
    share = bad / max(rows - empty, 1)
    return f"{bad} of {rows - empty} values ({share:.2%}) are not as allowed{nulls}" + (f": {listed}" if values else "")


def _distinct(values: Iterable[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(repr(value), value)
    return list(seen.values())


def _repeated(rule: Rule, frame: pl.DataFrame) -> str:
    columns = list(rule.kwargs.get("column_list") or [rule.kwargs["column"]])
    twice = frame.drop_nulls(columns).group_by(columns, maintain_order=True).len("times").filter(pl.col("times") > 1)
    listed = [
        "/".join(str(row[name]) for name in columns) + f" ({row['times']} times)"
        for row in twice.head(_SHOWN_KEYS).iter_rows(named=True)
    ]
    more = ", ..." if twice.height > _SHOWN_KEYS else ""
    keys = "key occurs" if twice.height == 1 else "keys occur"
    return f"{twice.height} {keys} more than once: {', '.join(listed)}{more}"


def _columns(rule: Rule, frame: pl.DataFrame) -> str:
    wanted, found = rule.kwargs["column_list"], frame.columns
    if found == wanted:
        return f"{len(found)} columns, as the spec names them"
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    parts = [f"missing {', '.join(missing)}"] if missing else []
    parts += [f"not in the spec: {', '.join(extra)}"] if extra else []
    return "; ".join(parts) or f"another order: {', '.join(found)}"

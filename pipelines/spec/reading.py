"""Reads a spec from YAML: no aliases, no repeated keys, no surprises."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.errors import SpecError, explain
from pipelines.spec.drills import Drills, Together
from pipelines.spec.use_case import UseCase

_Model = TypeVar("_Model", bound=BaseModel)
_MAX_SPEC_BYTES = 256 * 1024


_DEFAULT_SUITES = "../expectations"
#: Sections that a policy is made of.
_POLICY = ("drift", "retraining")


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses what YAML allows and a spec never needs: aliases (they multiply) and repeated keys.

    On libyaml where PyYAML was built with it: every task reads its spec when it starts, and this is ten times quicker.
    """

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node in self.constructed_objects or node in self.recursive_objects:  # an alias is its anchor's node again
            raise yaml.YAMLError("aliases are not allowed")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        times = Counter(str(key.value) for key, _ in node.value)
        if twice := sorted(key for key, count in times.items() if count > 1):
            raise yaml.YAMLError(f"key given twice: {', '.join(twice)}")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise SpecError(explain(str(path), "the file is too large", allowed=f"{_MAX_SPEC_BYTES} bytes"))
        return yaml.load(path.read_text("utf-8"), Loader=_SafeLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise SpecError(explain(str(path), "there is no such file", remedy="check the use case's name")) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: bad UTF-8, a date that does not exist
        raise SpecError(explain(str(path), f"not a YAML file that a spec may be: {error}")) from None


def _with_suites(raw: Any, folder: Path) -> Any:
    """Puts the expectations of the suites that tables name in front of their own."""
    if not isinstance(raw, dict) or not isinstance(raw.get("tables"), dict):
        return raw
    tables: dict[Any, Any] = {}
    for name, table in raw["tables"].items():
        tables[name] = table
        suite = table.get("suite") if isinstance(table, dict) else None
        if isinstance(suite, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,47}", suite):
            shared = _read_yaml(folder / f"{suite}.yaml")
            tables[name] = {**table, "expectations": [*(shared or []), *(table.get("expectations") or [])]}
    return {**raw, "tables": tables}


def load_spec(path: Path) -> UseCase:
    """Reads and checks one use case.

    Args:
        path: a YAML file; suites are looked up in `../expectations` beside its folder.

    Raises:
        SpecError: with one line for each thing that is wrong, naming the key, the value and what is allowed.
    """
    raw = _with_suites(_read_yaml(path), path.parent / _DEFAULT_SUITES)
    if not isinstance(raw, dict):
        raise SpecError(explain(str(path), "a spec is a mapping of keys", remedy="start from include/use_cases"))
    spec = _checked(raw, path, "`overnight check` reads it again")
    if spec.name != path.stem:
        raise SpecError(explain(str(path), f"name is {spec.name!r}", allowed=f"the file's own: {path.stem!r}"))
    return spec


def load_policy(path: Path, spec: UseCase) -> UseCase:
    """A use case with the sections `drift` and `retraining` of another file.

    Args:
        path: a YAML file of these sections, or a whole spec of the same use case, of which nothing else is taken. A
            section that it lacks stays as it is.

    Raises:
        SpecError: it has neither section, another key, or values that are not allowed; or is of another use case.
    """
    raw = _read_yaml(path)
    sections = {name: raw[name] for name in _POLICY if name in raw} if isinstance(raw, dict) else {}
    if not sections:
        raise SpecError(explain(str(path), "there is no policy in it", allowed=" and ".join(_POLICY)))
    if "name" in raw and raw["name"] != spec.name:
        raise SpecError(explain(str(path), f"it is of {raw['name']!r}", allowed=f"{spec.name!r}, or no name"))
    if "name" not in raw and (stray := sorted(map(str, set(raw) - set(_POLICY)))):
        raise SpecError(explain(str(path), f"no part of a policy: {', '.join(stray)}", allowed=" and ".join(_POLICY)))
    return _checked({**spec.model_dump(mode="json"), **sections}, path, "correct the policy")


def load_drills(path: Path, spec: UseCase) -> Drills:
    """Reads the drills of a use case.

    Raises:
        SpecError: no such file, a wrong value, or a table or column that the use case does not have.
    """
    raw = _read_yaml(path)
    found = _validated(Drills, raw, path, "correct the drills")
    faults = [
        (name, each)
        for name, drill in found.drills.items()
        for each in (drill.fault.faults if isinstance(drill.fault, Together) else (drill.fault,))
    ]
    for name, fault in faults:
        table = getattr(fault, "table", "rows")
        where = f"{path}: drills.{name}.fault"
        if table not in spec.tables or spec.tables[table].static:
            allowed = ", ".join(key for key, each in spec.tables.items() if not each.static)
            raise SpecError(explain(where, f"no table {table!r} that comes by partition", allowed=allowed))
        if stray := set(getattr(fault, "columns", ())) - set(spec.tables[table].columns):
            what = f"no column {', '.join(sorted(stray))} in {table}"
            raise SpecError(explain(where, what, allowed=", ".join(spec.tables[table].columns)))
    return found


def _checked(raw: dict[str, Any], path: Path, remedy: str) -> UseCase:
    return _validated(UseCase, raw, path, remedy)


def _validated(model: type[_Model], raw: Any, path: Path, remedy: str) -> _Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            where = ".".join(str(part) for part in problem["loc"]) or "spec"
            given = problem.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            lines.append(f"{where}: {problem['msg']}{shown}")
        raise SpecError(explain(str(path), "; ".join(lines), remedy=remedy)) from None

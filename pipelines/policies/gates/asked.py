"""What a gate asks for: which keys of the spec it reads, and what they say. The rule itself is watched, so this
cannot go out of date."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from pipelines.policies.gates import RULES
from pipelines.records import Evaluation
from pipelines.spec import UseCase


def asked(name: str, evaluation: Evaluation, spec: UseCase) -> dict[str, Any]:
    """The keys below `gates` and `training` that a rule read when it judged this evaluation, with their values.

    A rule that ends early, for want of a champion say, has read fewer. What it raises is the gate's own affair.
    """
    read: dict[str, Any] = {}
    try:
        RULES[name](evaluation, cast("UseCase", _Watched(spec, "", read)))
    except Exception:
        return read
    return read


class _Watched:
    """A spec, or a section of it, that notes what is read."""

    def __init__(self, section: BaseModel, path: str, read: dict[str, Any]) -> None:
        self._section, self._path, self._read = section, path, read

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._section, name), f"{self._path}{name}"
        if isinstance(value, BaseModel):
            return _Watched(value, f"{path}.", self._read)
        if path.startswith(("gates.", "training.")):
            self._read[path] = value
        return value

"""Addresses of deliveries in the environment, and deliveries in a spec."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.errors import SpecError
from pipelines.settings import Settings
from pipelines.spec import UseCase
from tests.cases.handed import CANARY
from tests.cases.orders import SPEC


def test_targets_are_read_from_json_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_TARGETS", f'{{"crm": "postgresql://u:{CANARY}@h/d"}}')
    settings = Settings()
    assert settings.target("crm").get_secret_value() == f"postgresql://u:{CANARY}@h/d"
    assert CANARY not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    with pytest.raises(SpecError, match=r"no target 'other'\. Allowed: crm\. Remedy: set it in OVERNIGHT_TARGETS"):
        settings.target("other")
    monkeypatch.setenv("OVERNIGHT_TARGETS", "")
    with pytest.raises(SpecError, match="none is set"):
        Settings().target("crm")


@pytest.mark.parametrize(
    "given",
    [
        f"postgresql://u:{CANARY}@h/d",
        f'"{CANARY}"',
        f'["{CANARY}"]',
        f'{{"a": {{"b": "{CANARY}"}}}}',
        f'{{"a": "{CANARY}"',
    ],
)
def test_targets_that_cannot_be_read_are_not_told(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_TARGETS", given)
    with pytest.raises(ValidationError, match="must be a JSON object of names and addresses") as caught:
        Settings()
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


FILES = {"name": "a", "sink": "files", "target": "t"}
TABLE = {"name": "b", "sink": "postgres", "target": "t", "table": "scores"}
HOOK = {"name": "c", "sink": "webhook", "target": "t"}


@pytest.mark.parametrize(
    ("deliveries", "what"),
    [
        ([FILES, {**FILES, "name": "b"}], "two go to one place"),
        ([TABLE, {**TABLE, "name": "c"}], "two go to one place"),
        ([FILES, FILES], "a name is given twice"),
        ([{**FILES, "columns": ["x", "x"]}], "a column is given twice"),
        ([{**FILES, "columns": ["partition"]}], "leave it out"),
        ([{**FILES, "folder": "../up"}], "folder"),
        ([{**TABLE, "table": "overnight_deliveries"}], "choose another name"),
        ([{**TABLE, "table": 'x"; DROP'}], "table"),
        ([{**HOOK, "columns": ["x"]}], "hands over no rows"),
        ([{**HOOK, "timeout": 0}], "timeout"),
        ([{**FILES, "sink": "pigeon"}], "pigeon"),
        ([{**FILES, "address": "s3://x"}], "address"),
    ],
)
def test_deliveries_that_cannot_be_are_refused_with_the_spec(deliveries: list[dict[str, Any]], what: str) -> None:
    raw = {**SPEC.model_dump(mode="json"), "delivery": deliveries}
    with pytest.raises(ValidationError, match=what):
        UseCase.model_validate(raw)


def test_deliveries_to_places_of_their_own_are_good() -> None:
    others = [{**FILES, "name": "d", "folder": "other"}, {**TABLE, "name": "e", "table": "more"}]
    raw = {**SPEC.model_dump(mode="json"), "delivery": [FILES, TABLE, HOOK, *others]}
    assert len(UseCase.model_validate(raw).delivery) == 5

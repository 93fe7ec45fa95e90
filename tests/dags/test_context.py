"""Which partitions a run is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import SpecError
from pipelines.spec import UseCase, load_spec

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def spec() -> UseCase:
    return load_spec(PROJECT / "include" / "use_cases" / "flights.yaml")


def _asked(spec: UseCase, key: str | None, **params: Any) -> Any:
    from usecase_dags.context import asked

    return asked(spec, key, params)


def test_a_partition_key_names_one_partition(spec: UseCase) -> None:
    found = _asked(spec, "2013-09-01", partition=None)
    assert (found.partitions, found.ranged, found.label) == (["2013-09-01"], False, "2013-09-01")


def test_the_forms_partition_does_when_there_is_no_key(spec: UseCase) -> None:
    assert _asked(spec, None, partition="2013-09-01").partitions == ["2013-09-01"]


def test_a_range_of_the_form_is_inclusive(spec: UseCase) -> None:
    found = _asked(spec, None, **{"from": "2013-08-30", "to": "2013-09-01"})
    assert found.partitions == ["2013-08-30", "2013-08-31", "2013-09-01"]
    assert (found.ranged, found.label) == (True, "2013-08-30..2013-09-01")


def test_a_range_of_one_is_still_a_range_and_starts_nothing(spec: UseCase) -> None:
    assert _asked(spec, None, **{"from": "2013-08-30", "to": "2013-08-30"}).ranged


@pytest.mark.parametrize(
    ("key", "params", "said"),
    [
        (None, {}, "none was named"),
        (None, {"from": "2013-08-30"}, "half a range"),
        ("2013-09-01", {"from": "2013-08-30", "to": "2013-08-31"}, "more than one way"),
        ("2013-09-01", {"partition": "2013-09-02"}, "more than one way"),
        ("2013-9-1", {}, "is not a day key"),
        (None, {"partition": "../../etc"}, "is not a day key"),
        (None, {"from": "2013-09-02", "to": "2013-09-01"}, "runs backwards"),
    ],
)
def test_what_names_no_partitions_is_refused_with_the_reason(
    spec: UseCase, key: str | None, params: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        _asked(spec, key, **params)

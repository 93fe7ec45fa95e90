"""What came of a drill against what was written down: each claim can fail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.policies.verdicts import judge
from pipelines.records import Alert, PlayedNight, RetrainDecision
from pipelines.spec.drills import Verdict

_NOW = datetime(2024, 5, 1, tzinfo=UTC)


def alert(kind: str) -> Alert:
    return Alert(
        kind=kind, state="open", use_case="x", partition="p", since=_NOW, at=_NOW, what="w", remedy="r", run="d/r"
    )  # fmt: skip


def night(number: int, *told: str, retrain: bool = False, trained: int | None = None, **other: Any) -> PlayedNight:
    decision = RetrainDecision(use_case="x", as_of="p", retrain=retrain, reasons=(), champion=1, id=f"{number}")
    return PlayedNight(
        night=number, partition=f"p{number}", began=tuple(map(alert, told)), decision=decision, trained=trained,
        champion=trained or other.pop("champion", 1), **other,
    )  # fmt: skip


def claims(verdict: dict[str, Any], *nights: PlayedNight) -> dict[str, bool]:
    return {claim.said: claim.held for claim in judge(Verdict.model_validate(verdict), nights)}


@pytest.mark.parametrize(
    ("nights", "held"),
    [
        ([night(0), night(1, "inputs"), night(2)], True),
        ([night(0), night(1), night(2, "inputs")], True),
        ([night(0), night(1), night(2), night(3, "inputs")], False),
        ([night(0, "inputs"), night(1), night(2)], False),
        ([night(0), night(1, "scores")], False),
    ],
    ids=["at once", "in time", "too late", "before the fault", "never"],
)
def test_an_alert_is_told_in_time_and_not_before_the_fault(nights: list[PlayedNight], held: bool) -> None:
    assert claims({"alerts": {"inputs": 2}}, *nights)["inputs is told by night 2"] is held


def test_silence_messages_and_what_is_over() -> None:
    verdict = {"silent": ["decay"], "most_messages": 2, "over": ["inputs"]}
    loud = night(1, "decay", "inputs", "scores", open=("inputs",))
    assert claims(verdict, night(0), loud) == {
        "nobody is told of decay": False,
        "inputs is over at the end": False,
        "2 incidents are told of at most": False,
        "no retraining": True,
        "the champion is the same": True,
        "no data is held back": True,
    }
    assert all(claims(verdict, loud.model_copy(update={"began": ()}), night(2, "inputs", "scores")).values())


def test_retrainings_and_champions() -> None:
    asked = [night(0), night(1), night(2, retrain=True, trained=2), night(3, champion=2)]
    found = claims({"retrain": 2, "champion": "changed", "most_retrainings": 1}, *asked)
    assert all(found.values())
    assert not claims({"retrain": 1}, *asked)["a retraining by night 1"]
    assert claims({}, *asked)["no retraining"] is claims({}, *asked)["the champion is the same"] is False
    again = claims({"retrain": 2, "most_retrainings": 1, "champion": "same"}, *asked, night(4, retrain=True))
    assert again["1 retrainings at most"] is again["the champion is the same"] is False
    assert not claims({"retrain": 2}, night(0, retrain=True), night(1))["a retraining by night 2"], "before the fault"
    assert "the champion is another" not in claims({"retrain": 2, "champion": "either"}, *asked)


def test_data_that_is_held_back_before_the_fault_is_not_its_doing() -> None:
    held, calm = night(1, quarantined=("rows/p1",)), night(0, quarantined=("rows/p0",))
    assert claims({"quarantined": True}, night(0), held)["the data is held back"]
    assert not claims({"quarantined": True}, calm, night(1))["the data is held back"]
    assert not claims({}, night(0), held)["no data is held back"]


def test_a_verdict_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="both told and silent: decay"):
        Verdict.model_validate({"alerts": {"decay": 1}, "silent": ["decay"]})

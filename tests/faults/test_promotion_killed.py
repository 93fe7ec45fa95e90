"""kill -9 at every failpoint of gate, register, promote and rollback, then the same again: as if nothing had been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.cases.champions import Champions
from tests.faults.promoters import Promoters

_FOLLOW = ("follow.read", "follow.champion", "follow.previous", "follow.noted")
_GATES = "overnight.gate"
#: What is done, and where it can die. Before each, version 1 and then 2 are promoted, so that 3 is the challenger.
_CASES: dict[str, tuple[Sequence[Any], tuple[str, ...]]] = {
    "gate": (("gate", "night", 3), ("gate.told", "follow.read", "follow.challenger")),
    "register": (("register", "night"), ("register.made", "register.tidied", "follow.read", "follow.challenger")),
    "promote": (
        ("promote", "night", 3, 2),
        ("stage.written", "publish.linked", "publish.committed", "promote.appended", *_FOLLOW, "follow.challenger"),
    ),
    "rollback": (("rollback", "night", "worse"), ("publish.linked", "promote.appended", *_FOLLOW)),
}


def outcome(champions: Champions) -> dict[str, Any]:
    """Everything that is left for readers."""
    runtime = champions.runtime("reader")
    state = runtime.alias_state()
    assert not state.moved, state.told
    tags = {training.run_id: training.tags.get(_GATES) for training in runtime.registry.trainings()}
    return {
        "log": [entry.model_dump(exclude={"trained_by"}) for entry in runtime.promotions()],
        "aliases": state.found,
        "followed": state.followed,
        "versions": [model.version for model in runtime.registry.versions()],
        "gates": [tags[model.run_id] for model in runtime.registry.versions()],
    }


def prepare(registered: Champions, folder: Any) -> Champions:
    champions = registered.copy(folder)
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    return champions


@pytest.fixture(scope="module")
def prepared(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Champions:
    return prepare(registered, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def clean(
    prepared: Champions, promoters: Promoters, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What each leaves when nobody disturbs it."""
    found = {}
    for name, (action, _) in _CASES.items():
        champions = prepared.copy(tmp_path_factory.mktemp(name))
        (said,) = promoters.act(champions, action)
        assert said.startswith("done"), said
        found[name] = outcome(champions)
    return found


@pytest.mark.parametrize(("name", "point"), [(name, point) for name, (_, points) in _CASES.items() for point in points])
def test_killed_and_done_again_it_is_as_if_nothing_had_been(
    name: str,
    point: str,
    prepared: Champions,
    clean: dict[str, dict[str, Any]],
    promoters: Promoters,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    mine = prepared.copy(tmp_path_factory.mktemp("mine"))
    action = _CASES[name][0]
    assert promoters.act(mine, action, failpoint=point) == ["killed"], f"did not reach {point}"
    (said,) = promoters.act(mine, action)
    assert said.startswith("done"), said
    assert outcome(mine) == clean[name]


def test_a_rollback_by_hand_that_was_cut_off_goes_back_once(
    prepared: Champions, promoters: Promoters, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A command is another run each time: it is known by its reason, and by aliases that did not follow yet."""
    mine = prepared.copy(tmp_path_factory.mktemp("mine"))
    assert promoters.act(mine, ("rollback", "cli-1", "worse"), failpoint="follow.champion") == ["killed"]
    assert promoters.act(mine, ("rollback", "cli-2", "worse")) == ["done 3"]
    assert len(mine.runtime().promotions()) == 3
    assert outcome(mine)["aliases"]["champion"] == 1


def test_aliases_that_a_killed_promotion_left_behind_are_moved_by_the_next_look(
    prepared: Champions, promoters: Promoters, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = prepared.copy(tmp_path_factory.mktemp("mine"))
    assert promoters.act(mine, ("promote", "night", 3, 2), failpoint="promote.appended") == ["killed"]
    runtime = mine.runtime()
    assert runtime.registry.alias("champion") == 2
    assert runtime.champion() == runtime.candidate(3), "scoring follows the log at once"
    assert runtime.alias_state().found == {"champion": 3, "previous": 2, "challenger": None}

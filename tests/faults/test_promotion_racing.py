"""Promoters and followers at the same time: one champion, a log in the order of its epochs, aliases that equal it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence

import pytest

from pipelines.errors import ConflictError
from pipelines.steps import aliases
from tests.cases.champions import Champions
from tests.faults.promoters import Promoters


def settled(champions: Champions) -> dict[str, int | None]:
    state = champions.runtime("reader").alias_state()
    assert not state.moved, state.told
    assert state.followed == state.epoch
    return state.found


@pytest.mark.parametrize("versions", [(1, 2, 3), (2,)], ids=["of different versions", "of one version"])
def test_of_eight_promoters_at_once_one_wins_and_seven_are_told(
    versions: tuple[int, ...], champions: Champions, promoters: Promoters
) -> None:
    chosen = list(itertools.islice(itertools.cycle(versions), 8))
    actions = [("promote", f"run {number}", version, None) for number, version in enumerate(chosen)]
    outcomes = promoters.act(champions, *actions)
    won = [number for number, said in enumerate(outcomes) if said == "done 1"]
    (entry,) = champions.runtime().promotions()
    assert entry.epoch == 1
    assert int(entry.run.run_id.split()[1]) in won
    # Who came late with the same version found it champion already, which is no error.
    assert all(chosen[number] == entry.version for number in won)
    lost = [said for said in outcomes if said != "done 1"]
    assert len(won) == 1 or len(versions) == 1
    assert all(said.startswith("ConflictError") for said in lost), lost
    waiting = None if entry.version == 3 else 3
    assert settled(champions) == {"champion": entry.version, "previous": None, "challenger": waiting}


def test_the_log_is_in_the_order_of_its_epochs_however_many_promote_and_roll_back(
    champions: Champions, promoters: Promoters
) -> None:
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    actions = [
        ("promote", "a", 3, 2),
        ("rollback", "b", "worse"),
        ("promote", "c", 3, 2),
        ("rollback", "d", "much worse"),
        ("restore", "e"),
    ]
    outcomes = promoters.act(champions, *actions)
    log = champions.runtime().promotions()
    assert [entry.epoch for entry in log] == list(range(1, len(log) + 1))
    assert all(after.previous == before.version for before, after in itertools.pairwise(log))
    made = {said.split()[1] for said in outcomes[:4] if said.startswith("done")}
    assert {str(entry.epoch) for entry in log[2:]} <= made
    assert all(said.startswith(("done", "ConflictError", "NotFoundError")) for said in outcomes), outcomes
    assert settled(champions)["champion"] == log[-1].version


class Follower(threading.Thread):
    """A follower that stops at every failpoint until it is told to go on."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work, self._go, self._waits = work, threading.Semaphore(0), threading.Semaphore(0)
        self.dies_at: int | None = None
        self.steps, self.done, self.error = 0, False, None  # type: ignore[var-annotated]

    def run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self.done = True
        self._waits.release()

    def pause(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise _Killed
        self._waits.release()
        self._go.acquire()

    def step(self) -> None:
        if not self.done:
            self._go.release()
            assert self._waits.acquire(timeout=60)


class _Killed(BaseException):
    """A follower that goes no further."""


def play(monkeypatch: pytest.MonkeyPatch, order: Sequence[int], cast: Sequence[Follower]) -> None:
    """Runs followers in this order of steps, then whoever is left to the end."""

    def at(name: str) -> None:
        thread = threading.current_thread()
        if isinstance(thread, Follower):
            thread.pause()

    monkeypatch.setattr(aliases, "failpoint", at)
    for follower in cast:
        follower.start()
    for who in order:
        cast[who].step()
    for follower in cast:
        while not follower.done:
            follower.step()


#: A slow follower of epoch 1 stops at each of its steps; one of epoch 2 comes and takes so many of its own.
_SLOW = range(1, 6)


@pytest.mark.parametrize("slow", _SLOW)
@pytest.mark.parametrize("fast", [2, 4, 20])
def test_a_slow_follower_never_leaves_an_older_champion_behind(
    slow: int, fast: int, champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as still:
        still.setattr("pipelines.steps.promotion.follow", lambda *_: None)
        champions.promote(1, "first")

    def newer() -> None:
        champions.promote(2, "second", over=1)

    cast = [Follower(champions.runtime("slow").restore_aliases), Follower(newer)]
    play(monkeypatch, [0] * slow + [1] * fast, cast)
    assert [follower.error for follower in cast] == [None, None]
    assert settled(champions) == {"champion": 2, "previous": 1, "challenger": 3}


@pytest.mark.parametrize("at", _SLOW)
def test_a_slow_follower_that_dies_after_a_newer_one_is_reported_and_mended(
    at: int, champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have set an old alias with its last breath: that is seen, and the next follower mends it."""
    with monkeypatch.context() as still:
        still.setattr("pipelines.steps.promotion.follow", lambda *_: None)
        champions.promote(1, "first")
    cast = [
        Follower(champions.runtime("slow").restore_aliases),
        Follower(lambda: champions.promote(2, "second", over=1)),
    ]
    cast[0].dies_at = at + 1
    with monkeypatch.context() as patch:
        play(patch, [0] * at + [1] * 40, cast)
    assert cast[1].error is None
    assert isinstance(cast[0].error, _Killed) or cast[0].error is None
    state = champions.runtime().alias_state()
    assert state.epoch == 2
    assert champions.runtime().champion() == champions.runtime().candidate(2)
    assert champions.runtime().restore_aliases().found == {"champion": 2, "previous": 1, "challenger": 3}
    assert settled(champions)["champion"] == 2


def test_a_follower_that_never_catches_up_says_so(champions: Champions, monkeypatch: pytest.MonkeyPatch) -> None:
    champions.promote(1, "first")
    runtime = champions.runtime()
    move = runtime.registry.set_alias

    def undone(name: str, version: int | None, **options: bool) -> None:
        move(name, 2 if name == "champion" else version, **options)

    monkeypatch.setattr(runtime.registry, "set_alias", undone)
    runtime.registry.set_alias("champion", 2)
    with pytest.raises(ConflictError, match="moved on all the while"):
        runtime.restore_aliases()

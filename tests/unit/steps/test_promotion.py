"""Promotion and rollback on a real store and a real MLflow: what is refused, what is a no-op, what the log keeps."""

from __future__ import annotations

from tests.cases.champions import Champions


def test_first(champions: Champions) -> None:
    entry = champions.promote(1)
    assert entry.epoch == 1
    state = champions.runtime().alias_state()
    assert state.found == {"champion": 1, "previous": None, "challenger": 3}
    assert not state.moved

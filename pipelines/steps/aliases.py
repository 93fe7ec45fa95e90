"""The registry's aliases follow the promotion log, for people and for MLflow's clients. Nothing here reads them.

An alias is last-writer-wins, so a slow follower could set an older champion after a newer one. The fence: a follower
reads everything again after every write, and ends only when the log and the registry ask for nothing more; so whoever
writes last has seen the newest log. It notes the epoch that it followed (on the registered model, after the aliases)
and never follows a lower one. A note that is behind the log says that a follower died on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from pipelines.errors import ConflictError, IntegrityError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import AliasState, Promotion
from pipelines.spec import UseCase
from pipelines.steps.promotions import before, promotions

ALIASES = ("champion", "previous", "challenger")
#: Tags of a training's run: the verdict of its newest gates, and what a person said.
GATE, APPROVAL = "overnight.gate", "overnight.approval"
REFUSED, REJECTED = "refused", "rejected"
#: Rounds of a follower. Each one past the second means that somebody else promoted or registered meanwhile.
_ROUNDS = 50
_log = logging.getLogger(__name__)


def alias_state(spec: UseCase, store: SnapshotStore, registry: ModelRegistry) -> AliasState:
    """Where the aliases are and where they belong. Changes nothing.

    Raises:
        IntegrityError: the log is broken, or is behind what the registry has followed.
    """
    # In this order: the log is then at least as new as the note.
    followed = registry.epoch()
    log = promotions(store)
    epoch = log[-1].epoch if log else 0
    if followed > epoch:
        raise IntegrityError(
            explain(
                "promotion log",
                f"it ends with epoch {epoch}, but the registry's aliases have followed epoch {followed}",
                remedy="see that the snapshots and the MLflow server belong together; where the log was restored from "
                "a backup on purpose, delete the tag overnight.epoch of the registered model",
            )
        )
    expected: dict[str, int | None] = {
        "champion": log[-1].version if log else None,
        "previous": _still_there(registry, before(log)),
        "challenger": _challenger(log, registry, staged=_staged(spec, "challenger")),
    }
    found = {name: registry.alias(name, staged=_staged(spec, name)) for name in ALIASES}
    return AliasState(expected=expected, found=found, epoch=epoch, followed=followed)


def follow(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, names: Sequence[str] = ALIASES) -> AliasState:
    """Moves the aliases to where they belong, whoever else does so at the same time.

    Args:
        names: those to move; the others stay where somebody may have put them by hand.

    Raises:
        ConflictError: others promoted or registered all the while; the next call may succeed.
        IntegrityError: see `alias_state`.
        NotFoundError: the champion's version is no longer registered.
    """
    for _ in range(_ROUNDS):
        state = alias_state(spec, store, registry)
        failpoint("follow.read")
        moved = [name for name in state.moved if name in names]
        noted = not state.unfinished or set(names) != set(ALIASES)
        if not moved and noted:
            return state
        try:
            for name in moved:
                registry.set_alias(name, state.expected[name], staged=_staged(spec, name))
                failpoint(f"follow.{name}")
            if not moved:
                registry.set_epoch(state.epoch)
                failpoint("follow.noted")
        except ConflictError:
            continue  # two followers wrote the same alias at the same moment
    raise ConflictError(explain("aliases", "the log moved on all the while they were moved", remedy="try again"))


def settle(spec: UseCase, store: SnapshotStore, registry: ModelRegistry) -> AliasState:
    """Finishes what a follower that died left, and reports what somebody moved by hand, which stays as it is."""
    state = alias_state(spec, store, registry)
    return follow(spec, store, registry) if state.unfinished else state


def warn_of_moves(spec: UseCase, store: SnapshotStore, registry: ModelRegistry) -> None:
    """Says in the log what the promotion at hand is about to put back."""
    state = alias_state(spec, store, registry)
    if state.moved and not state.unfinished:
        _log.warning("aliases were moved by hand and are put back: %s", state.told)


def _staged(spec: UseCase, alias: str) -> bool:
    """Whether an alias is of the versions that wait in staging: a challenger does, where there is staging."""
    return alias == "challenger" and "staging" in spec.stages


def _challenger(log: Sequence[Promotion], registry: ModelRegistry, *, staged: bool) -> int | None:
    """The newest version that is newer than every one that was promoted, and that nobody refused."""
    runs = {entry.trained_by for entry in log}
    numbers = {entry.version for entry in log if not entry.trained_by}  # entries of before runs were noted
    made = registry.versions(staged=staged)
    newest = max((each.version for each in made if each.run_id in runs or each.version in numbers), default=0)
    waiting = [each for each in made if each.version > newest]
    if not waiting:
        return None
    tags = {training.run_id: training.tags for training in registry.trainings()}
    return max((each.version for each in waiting if not is_refused(tags.get(each.run_id, {}))), default=None)


def is_refused(tags: Mapping[str, str]) -> bool:
    """Whether a gate or a person said no to a training.

    Args:
        tags: of its run.
    """
    return tags.get(GATE) == REFUSED or tags.get(APPROVAL, "").startswith(REJECTED)


def _still_there(registry: ModelRegistry, version: int | None) -> int | None:
    """A version that the registry still has: a former champion may have been deleted."""
    return version if version in {model.version for model in registry.versions()} else None

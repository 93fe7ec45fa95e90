"""Promotion and rollback on a real store and a real MLflow: what is refused, what is a no-op, what the log keeps."""

from __future__ import annotations

import json
import logging

import polars as pl
import pytest

from pipelines.errors import ConflictError, GateRefused, IntegrityError, NotFoundError
from pipelines.records import AliasState, Approval, Check, Promotion
from pipelines.steps.logs import append
from pipelines.steps.promotions import PROMOTIONS, before, promotions, rolled_back, strays
from tests.cases.champions import AS_OF, Champions

YES = Approval(by="ada", at="2024-05-09T08:00:00+00:00", approved=True)
NO = YES.model_copy(update={"approved": False})


def aliases(champions: Champions) -> dict[str, int | None]:
    state: AliasState = champions.runtime("reader").alias_state()
    assert not state.moved
    assert state.followed == state.epoch
    return state.found


def test_aliases_are_true_at_every_step(champions: Champions) -> None:
    assert aliases(champions) == {"champion": None, "previous": None, "challenger": 3}
    champions.promote(2, "one")
    assert aliases(champions) == {"champion": 2, "previous": None, "challenger": 3}
    champions.promote(3, "two", over=2)
    assert aliases(champions) == {"champion": 3, "previous": 2, "challenger": None}
    champions.promote(1, "three", over=3)
    assert aliases(champions) == {"champion": 1, "previous": 3, "challenger": None}
    champions.runtime("back").rollback(None, "worse")
    assert aliases(champions) == {"champion": 3, "previous": 2, "challenger": None}


def test_the_log_keeps_who_from_to_why_and_by_which_gates(champions: Champions) -> None:
    entry = champions.promote(1, approval=YES)
    (kept,) = promotions(champions.runtime().store)
    assert kept == entry
    assert kept.trained_by == champions.runtime().candidate(1).run_id
    assert kept.gates == champions.report.gates
    assert {gate.name for gate in kept.gates} >= {"bound", "champion"}
    assert (kept.approval, kept.run.run_id, kept.reason, kept.as_of) == (YES, "test", "because", AS_OF)


def test_an_entry_of_before_runs_gates_and_approvals_were_noted_is_still_read(champions: Champions) -> None:
    runtime = champions.runtime()
    told = {
        "epoch": 1,
        "kind": "promote",
        "version": 3,
        "previous": None,
        "reason": "old",
        "as_of": AS_OF,
        "run": {"run_id": "r", "dag_id": "d", "code_version": "c", "backfill": False},
    }
    write(champions, "e000001", json.dumps(told))
    assert runtime.promotions() == [Promotion.model_validate(told)]
    assert runtime.champion() == runtime.candidate(3)
    assert aliases(champions) == {"champion": 3, "previous": None, "challenger": None}


def write(champions: Champions, key: str, entry: str, epoch: int = 1) -> None:
    """An entry that was put into the table without a promotion."""
    runtime = champions.runtime("stranger")
    row = pl.DataFrame({"epoch": [epoch], "version": [3], "entry": [entry]})
    check = Check(name="looked", passed=True, observed="")
    append(runtime.store, runtime.spec.name, PROMOTIONS, key, row, [check], runtime.run, suite="s", suite_digest="0")


def test_a_partition_that_is_no_epoch_is_no_entry(champions: Champions) -> None:
    entry = champions.promote(1)
    write(champions, "notes", "{}")
    store = champions.runtime().store
    assert promotions(store) == [entry]
    assert strays(store) == ["notes"]
    assert champions.promote(2, "next", over=1).epoch == 2


@pytest.mark.parametrize(
    ("key", "said", "match"),
    [
        ("e000004", "{}", "expected e000002"),
        ("e000002", "{", "it is no promotion"),
        ("e000002", '{"epoch": 2}', "it is no promotion"),
        ("e000002", "the first again", "of epoch 1"),
    ],
)
def test_a_broken_log_is_never_guessed_at(champions: Champions, key: str, said: str, match: str) -> None:
    first = champions.promote(1)
    write(champions, key, first.model_dump_json() if said == "the first again" else said)
    runtime = champions.runtime()
    with pytest.raises(IntegrityError, match=f"(?s){key}, written by valves_train/stranger.*{match}"):
        runtime.champion()
    with pytest.raises(IntegrityError, match=key):
        champions.promote(2, "next", over=1)
    assert runtime.registry.alias("champion") == 1


def test_a_challenger_that_met_another_champion_must_meet_the_new_one(champions: Champions) -> None:
    champions.promote(1, "first")
    champions.promote(2, "one", over=1)
    with pytest.raises(ConflictError, match="compared with champion 1, but the champion is 2"):
        champions.promote(3, "two", over=1)
    assert aliases(champions) == {"champion": 2, "previous": 1, "challenger": 3}
    runtime = champions.runtime("two")
    trained, evaluation = runtime.examine(runtime.candidate(3))
    assert evaluation.champion_version == 2
    report = runtime.gate(trained, evaluation)
    assert report.passed, report.reason
    assert runtime.promote(runtime.candidate(3), evaluation, report, "again", AS_OF).version == 3


def test_what_is_champion_already_stays_it_and_nothing_is_written(champions: Champions) -> None:
    first = champions.promote(1)
    assert champions.promote(1, "another") == first
    assert champions.runtime("by hand").rollback(1, "to where we are") == first
    assert len(promotions(champions.runtime().store)) == 1


def test_an_evaluation_of_another_run_promotes_nothing(champions: Champions) -> None:
    runtime = champions.runtime()
    evaluation, report = champions.judged(runtime.candidate(1), None)
    with pytest.raises(GateRefused, match="the evaluation is of run"):
        runtime.promote(runtime.candidate(2), evaluation, report, "x", AS_OF)
    with pytest.raises(GateRefused):
        runtime.promote(runtime.candidate(1), evaluation, report.model_copy(update={"passed": False}), "x", AS_OF)
    assert promotions(runtime.store) == []


def test_a_version_that_was_rolled_back_comes_back_by_hand_alone(champions: Champions) -> None:
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    champions.runtime("back").rollback(None, "it hurt")
    with pytest.raises(GateRefused, match=r"taken back in epoch 3 \(it hurt\)"):
        champions.promote(2, "second", over=1)
    assert champions.promote(3, "third", over=1).version == 3
    assert champions.promote(2, "a person", over=3, by_hand=True, approval=YES).epoch == 5


def test_manual_promotion_needs_a_persons_yes(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("manual"), promotion="manual")
    with pytest.raises(GateRefused, match="nobody approved it"):
        champions.promote(3)
    with pytest.raises(GateRefused, match="ada rejected it"):
        champions.promote(3, approval=NO)
    assert promotions(champions.runtime().store) == []
    assert champions.promote(3, approval=YES).approval == YES


def test_a_version_that_a_person_or_a_gate_refused_is_no_challenger(champions: Champions) -> None:
    runtime = champions.runtime()
    runtime.answered(runtime.candidate(3).run_id, NO, "rejected by ada")
    assert aliases(champions)["challenger"] == 2
    trained, evaluation = runtime.examine(runtime.candidate(2))
    worse = evaluation.challenger.model_copy(update={"metrics": {"auc": 0.1}})
    assert not runtime.gate(trained, evaluation.model_copy(update={"challenger": worse})).passed
    assert aliases(champions)["challenger"] == 1
    assert runtime.gate(trained, evaluation).passed
    assert aliases(champions)["challenger"] == 2


def test_a_rollback_goes_to_former_champions_only(champions: Champions) -> None:
    runtime = champions.runtime()
    with pytest.raises(NotFoundError, match="no earlier champion"):
        runtime.rollback(None, "x")
    champions.promote(1, "first")
    champions.promote(3, "second", over=1)
    with pytest.raises(NotFoundError, match=r"version 2 was not champion.*Allowed: 1"):
        runtime.rollback(2, "x")
    entry = runtime.rollback(1, "x", YES)
    assert (entry.kind, entry.version, entry.previous, entry.approval) == ("rollback", 1, 3, YES)
    assert entry.trained_by == runtime.candidate(1).run_id
    assert runtime.rollback(1, "x") == entry
    assert runtime.rollback(None, "a retry of the same run") == entry


def test_a_former_champion_whose_bytes_are_spoiled_does_not_come_back(champions: Champions) -> None:
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    runtime = champions.runtime("back")
    (runtime.registry.fetch(runtime.candidate(1)) / "model.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError):
        runtime.rollback(None, "x")
    assert aliases(champions)["champion"] == 2


def test_an_alias_that_a_person_moved_is_noticed_and_the_next_promotion_says_that_it_puts_it_back(
    champions: Champions, caplog: pytest.LogCaptureFixture
) -> None:
    champions.promote(1, "first")
    runtime = champions.runtime()
    runtime.registry.set_alias("champion", 3)
    runtime.registry.set_alias("challenger", None)
    state = runtime.alias_state()
    assert state.moved == ("champion", "challenger")
    assert state.told == (
        "champion is at 3, the promotion log says 1; challenger is at nothing, the promotion log says 3"
    )
    assert runtime.champion() == runtime.candidate(1), "scoring follows the log"
    assert runtime.registry.alias("champion") == 3, "looking changes nothing"
    with caplog.at_level(logging.WARNING):
        champions.promote(2, "second", over=1)
    assert "champion is at 3" in caplog.text
    assert aliases(champions) == {"champion": 2, "previous": 1, "challenger": 3}


def test_an_alias_on_a_version_that_does_not_exist_is_noticed_and_put_right(champions: Champions) -> None:
    champions.promote(1, "first")
    runtime = champions.runtime()
    runtime.registry._mlflow()._get_registry_client().store.set_registered_model_alias(runtime.spec.name, "champion", 2)
    sql(champions, "update registered_model_aliases set version = 999 where alias = 'champion'")
    assert champions.runtime().alias_state().found["champion"] == 999
    assert champions.runtime().restore_aliases().found["champion"] == 1


def sql(champions: Champions, words: str) -> None:
    import sqlite3

    with sqlite3.connect(champions.home / "mlflow" / "mlflow.db") as database:
        database.execute(words)


def test_aliases_never_follow_a_log_that_is_behind_what_they_followed(champions: Champions) -> None:
    """Snapshots and MLflow server that do not belong together, or a log from a backup."""
    champions.promote(1, "first")
    runtime = champions.runtime()
    runtime.registry.set_epoch(7)
    with pytest.raises(IntegrityError, match=r"ends with epoch 1, but .* followed epoch 7"):
        champions.promote(2, "second", over=1)
    assert len(promotions(runtime.store)) == 1
    assert runtime.registry.alias("champion") == 1


def test_a_note_that_is_no_number_is_reported(champions: Champions) -> None:
    champions.promote(1, "first")
    sql(champions, "update registered_model_tags set value = 'two' where key = 'overnight.epoch'")
    with pytest.raises(IntegrityError, match="'two' is no epoch"):
        champions.runtime().alias_state()


def entry(epoch: int, version: int, *, kind: str = "promote", previous: int | None = None) -> Promotion:
    return Promotion.model_validate(
        {
            "epoch": epoch,
            "kind": kind,
            "version": version,
            "previous": previous,
            "reason": "r",
            "as_of": AS_OF,
            "run": {"run_id": "r"},
            "trained_by": f"run {version}",
        }
    )


def test_previous_is_the_champion_before_with_rollbacks_undone() -> None:
    log = [entry(1, 1), entry(2, 2, previous=1), entry(3, 3, previous=2)]
    assert before(log) == 2
    log.append(entry(4, 2, kind="rollback", previous=3))
    assert before(log) == 1
    assert before(log[:1]) is None
    assert before([]) is None


def test_a_rollback_marks_the_version_and_the_run_that_it_left() -> None:
    log = [entry(1, 1), entry(2, 2, previous=1), entry(3, 1, kind="rollback", previous=2)]
    assert rolled_back(log, 2, "another") == log[2]
    assert rolled_back(log, 7, "run 2") == log[2], "another version of the same training"
    assert rolled_back(log, 1, "run 1") is None

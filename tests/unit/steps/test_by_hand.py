"""A registered version before the gates again, and the rollback that brings everything of a champion back."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from pipelines.errors import GateRefused
from pipelines.records import Approval
from pipelines.runtime import Runtime
from pipelines.steps import holdouts
from pipelines.steps.by_hand import candidate
from tests.cases.champions import AS_OF, DAYS, Champions

PERSON = Approval(by="ada", at="2024-05-12T08:00:00+00:00", approved=True)


def test_a_candidate_is_what_was_trained(champions: Champions) -> None:
    runtime = champions.runtime()
    trained = candidate(runtime.registry, runtime.candidate(1), runtime.settings.work)
    assert trained.digest == runtime.candidate(1).digest
    assert trained.training_set.as_of == AS_OF
    assert (Path(trained.training_set.folder) / "train.parquet").is_file(), "its rows are still at hand"
    assert trained.scorecards == champions.evaluation.others


def test_the_newest_holdout_is_newer_than_what_either_learned_and_the_same_bytes_every_time(
    champions: Champions,
) -> None:
    runtime = champions.runtime()
    champions.promote(1, "first")
    _, evaluation = runtime.examine(runtime.candidate(2))
    holdout = evaluation.holdout
    assert holdout.partitions == (DAYS[9], DAYS[10]), "labels of the last day have not matured"
    assert holdout.as_of == DAYS[11]
    assert all(each < holdout.partitions[0] for each in evaluation.learned.values())
    assert {ref.table for ref in holdout.snapshots} == {"rows", "labels"}
    assert evaluation.champion_version == 1
    assert evaluation.champion is not None
    assert evaluation.champion.rows == evaluation.challenger.rows == holdout.rows
    again = runtime.examine(runtime.candidate(2))[1].holdout
    assert again == holdout


def test_how_good_it_was_on_what_it_learned_is_known_when_those_rows_are_gone(champions: Champions) -> None:
    runtime = champions.runtime()
    trained, with_rows = runtime.examine(runtime.candidate(1))
    shutil.rmtree(trained.training_set.folder)
    _, without = runtime.examine(runtime.candidate(1))
    assert with_rows.sanity is not None
    assert without.sanity is not None
    assert without.sanity.seen_metric == with_rows.sanity.seen_metric is not None
    assert without.sanity.collapse == with_rows.sanity.collapse


def test_the_newest_holdout_is_written_as_a_training_sets_own_is(champions: Champions) -> None:
    runtime = champions.runtime()
    own = holdouts.of_training(runtime.build_training_set(DAYS[11]))
    newest = holdouts.newest(runtime.spec, runtime.store, DAYS[11], [DAYS[8]], runtime.settings.work)
    assert newest.digest == own.digest
    assert newest.partitions == own.partitions
    assert pl.read_parquet(newest.path).columns == pl.read_parquet(own.path).columns


@pytest.mark.parametrize(("as_of", "learned"), [(DAYS[11], DAYS[9]), (AS_OF, DAYS[5]), (DAYS[1], "")])
def test_too_few_new_partitions_are_refused_with_numbers(champions: Champions, as_of: str, learned: str) -> None:
    runtime = champions.runtime()
    with pytest.raises(GateRefused, match=r"1 matured partitions are newer than .*training\.holdout, 2"):
        holdouts.newest(runtime.spec, runtime.store, as_of, [learned], runtime.settings.work)


def test_rows_without_labels_are_no_holdout(champions: Champions, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = champions.runtime()
    monkeypatch.setattr("pipelines.steps.parts.labelled", lambda *_: _nothing(runtime))
    with pytest.raises(GateRefused, match="has a label"):
        holdouts.newest(runtime.spec, runtime.store, DAYS[11], [], runtime.settings.work)
    assert not list((runtime.settings.work / runtime.spec.name / "sets").glob(".holdout-*"))


def _nothing(runtime: Runtime) -> pl.LazyFrame:
    head = runtime.store.head("labels")
    assert head is not None
    return runtime.store.scan(head).select("partition", "id", label=pl.lit(0.0, pl.Float32)).filter(pl.lit(False))


def score(runtime: Runtime, version: int | None = None) -> str:
    """Scores one day, anew where a version is named; the digest of what is published then."""
    day = DAYS[9]
    runtime.publish_scores(runtime.audit_scores(runtime.score([day], version)))
    head = runtime.store.head("predictions")
    assert head is not None
    return runtime.store.partitions(head)[day].digest


def test_a_rollback_brings_back_the_scores_and_the_drift_reference_byte_for_byte(champions: Champions) -> None:
    champions.promote(1, "first")
    runtime = champions.runtime()
    first, seen = score(runtime), runtime.observe(DAYS[11], 3)
    reference = (runtime.registry.fetch(runtime.model()) / "reference.json").read_bytes()
    entry, new = runtime.promote_by_hand(runtime.candidate(2), PERSON, "looks better")
    assert (entry.version, new, entry.approval) == (2, True, PERSON)
    second, meanwhile = score(runtime, 2), runtime.observe(DAYS[11], 3)
    assert second != first
    assert meanwhile.live != seen.live, "another model"
    assert (runtime.registry.fetch(runtime.model()) / "reference.json").read_bytes() != reference
    back = runtime.rollback(None, "it was not")
    assert back.version == 1
    assert score(runtime, 1) == first
    assert runtime.observe(DAYS[11], 3) == seen
    assert (runtime.registry.fetch(runtime.model()) / "reference.json").read_bytes() == reference
    assert [each.kind for each in runtime.promotions()] == ["promote", "promote", "rollback"]


def test_by_hand_the_gates_refuse_as_they_refuse_a_run(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("strict"), gates={"bound": 0.999})
    runtime = champions.runtime()
    with pytest.raises(GateRefused, match=r"bound: auc 0\.\d+, at least 0\.9990 is asked for"):
        runtime.promote_by_hand(runtime.candidate(3), PERSON, "please")
    assert runtime.promotions() == []
    assert runtime.alias_state().found["challenger"] == 2, "what a gate refused is no challenger any more"


def test_with_staging_a_version_waits_there_and_production_gets_it_by_promotion(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.cases.champions import again

    champions = registered.copy(tmp_path_factory.mktemp("staged"), stages=["staging", "production"])
    runtime = champions.runtime()
    for version in (1, 2, 3):
        runtime.registry.annotate(runtime.registry.get(version).run_id, {"overnight.note": "made before staging"})
    trained = candidate(runtime.registry, runtime.registry.get(1), runtime.settings.work)
    staged = []
    for name in ("one", "two"):
        made = again(runtime, trained, name)
        evaluation = champions.evaluation.model_copy(update={"challenger_run": made.run_id})
        staged.append(runtime.register(made, evaluation, champions.report))
    assert [model.name for model in staged] == [f"{runtime.spec.name}_staging"] * 2
    assert runtime.alias_state().found == {"champion": None, "previous": None, "challenger": 2}
    entry, _ = runtime.promote_by_hand(runtime.candidate(2), PERSON, "go")
    assert entry.trained_by == staged[1].run_id
    assert runtime.champion() == runtime.registry.get(entry.version)
    assert runtime.registry.get(entry.version).run_id == staged[1].run_id
    assert runtime.alias_state().found == {"champion": entry.version, "previous": None, "challenger": None}
    assert runtime.promote_by_hand(runtime.candidate(2), PERSON, "again") == (entry, False)

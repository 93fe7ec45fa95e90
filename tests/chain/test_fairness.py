"""A sensitive column that is no feature: judged where it must be, written nowhere; and what a model decides, from its
training to a rollback."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import onnx
import polars as pl
import pytest

from pipelines.ports import Draft
from pipelines.records import Evaluation, Gate, GateReport, TrainedModel
from pipelines.runtime import Runtime
from pipelines.scoring.engine import Engine
from pipelines.settings import Settings
from pipelines.spec import UseCase
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.reads import prediction_notes
from tests.cases import loans
from tests.chain.conftest import score
from tests.contracts.stores import audit

TRAINED_AS_OF, NIGHTS = loans.DAYS[9], loans.DAYS[10:]


def runtime_at(home: Path, spec: UseCase) -> Runtime:
    settings = Settings(project=home, landing=home, home=home / "var", code_version="test")
    return Runtime(spec, settings, loans.RUN)


def trained(runtime: Runtime, as_of: str = TRAINED_AS_OF) -> tuple[TrainedModel, Evaluation]:
    made = runtime.train(runtime.build_training_set(as_of))
    return made, runtime.evaluate(made)


def verdict(runtime: Runtime, made: TrainedModel, evaluation: Evaluation) -> Gate:
    report = runtime.gate(made, evaluation)
    (gate,) = (gate for gate in report.gates if gate.name == "fairness")
    assert report.passed <= gate.passed
    return gate


def promoted(runtime: Runtime, as_of: str = TRAINED_AS_OF) -> int:
    """A version that is champion, whatever the gates say: here their decisions are looked at."""
    made, evaluation = trained(runtime, as_of)
    report = GateReport(passed=True, gates=(Gate(name="none", passed=True, reason="a test"),))
    model = runtime.register(made, evaluation, report)
    return runtime.promote(model, evaluation, report, "test", as_of).version


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every day published, for trainings of which none becomes champion."""
    home = tmp_path_factory.mktemp("loans")
    loans.fill(runtime_at(home, loans.spec()).store)
    return home


@pytest.fixture(scope="module")
def championed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a champion, which is the only training there."""
    home = tmp_path_factory.mktemp("championed")
    loans.fill(runtime_at(home, loans.spec()).store)
    assert promoted(runtime_at(home, loans.spec())) == 1
    return home


@pytest.fixture
def home(championed: Path, tmp_path: Path) -> Path:
    """A copy for one test."""
    shutil.copytree(championed, tmp_path / "home")
    return tmp_path / "home"


def test_a_biased_model_is_refused_naming_the_column_and_an_unbiased_one_passes(filled: Path) -> None:
    biased = runtime_at(filled, loans.spec("granted", ("income", "postcode")))
    refused = verdict(biased, *trained(biased))
    assert not refused.passed
    told, _, listed = refused.reason.partition("; not judged")
    assert told.startswith("region: selection ratio 0."), told
    assert "(southvale 0." in told
    assert "northreach 0." in told
    assert listed.startswith(", fewer than 100 rows: null ")
    assert "member: selection ratio 0.9" in listed, "which is no feature either, and decides nothing"

    fair = runtime_at(filled, loans.spec())
    made, evaluation = trained(fair)
    assert verdict(fair, made, evaluation).passed, evaluation.fairness
    assert evaluation.fairness is not None
    groups = {found.column: found.groups for found in evaluation.fairness}
    assert [group.value for group in groups["region"]] == ["northreach", "southvale", None]
    assert [group.value for group in groups["member"]] == ["false", "true"]
    assert {sum(group.rows for group in found) for found in groups.values()} == {evaluation.holdout.rows}
    # By hand, from the rows as they were published.
    theirs = pl.concat([loans.day(key)[0].with_columns(partition=pl.lit(key)) for key in loans.DAYS[7:10]])
    frame = pl.read_parquet(evaluation.holdout.path)
    decided = frame.with_columns(prediction=Engine(Path(made.folder)).score(frame)).join(theirs, on="loan")
    threshold = Engine(Path(made.folder)).threshold
    rates = decided.group_by("region").agg((pl.col("prediction") >= threshold).mean())
    assert dict(rates.iter_rows()) == pytest.approx({g.value: g.selection_rate for g in groups["region"]})


def test_a_sensitive_column_is_in_no_file_of_a_training_nor_among_the_models_inputs(championed: Path) -> None:
    var = championed / "var"
    seen = 0
    for path in sorted(var.rglob("*")):
        if not path.is_file() or "snapshots" in path.relative_to(var).parts or path.suffix == ".db":
            continue
        seen += 1
        content = path.read_bytes()
        if path.suffix == ".parquet":
            frame = pl.read_parquet(io.BytesIO(content))
            assert not {"region", "member"} & set(frame.columns), path
            content = frame.write_csv().encode()
        for word in (b"region", b"member", b"northreach", b"southvale"):
            if path.name not in {"libraries.txt"}:
                assert word not in content, f"{word!r} in {path}"
        if path.name == "model.onnx":
            assert [told.name for told in onnx.load(str(path)).graph.input] == ["income"]
    assert seen > 10, "training set, artifact, and what MLflow keeps"


def test_too_many_values_are_refused_naming_the_bound(filled: Path) -> None:
    runtime = runtime_at(filled, loans.spec(gates={"fairness": {"columns": ["loan"]}}))
    made, evaluation = trained(runtime)
    assert evaluation.fairness is None
    gate = verdict(runtime, made, evaluation)
    assert not gate.passed
    assert "gates.fairness.columns: loan" in gate.reason
    assert "1500 distinct values" in gate.reason
    assert "at most 100" in gate.reason


def test_a_holdout_row_that_its_snapshot_has_not_is_refused(filled: Path) -> None:
    runtime = runtime_at(filled, loans.spec())
    made, evaluation = trained(runtime)
    part = Path(evaluation.holdout.path)
    rows = pl.read_parquet(part)
    try:
        rows.with_columns(loan=pl.col("loan") + "x").write_parquet(part)
        evaluation = runtime.evaluate(made)
    finally:
        rows.write_parquet(part)
    assert "not, each once, among those of" in evaluation.errors["fairness"]
    assert not verdict(runtime, made, evaluation).passed


def predictions(runtime: Runtime) -> pl.DataFrame:
    head = runtime.store.head(PREDICTIONS)
    assert head is not None
    return runtime.store.scan(head).collect()


def threshold(runtime: Runtime) -> float:
    """The champion's."""
    champion = runtime.champion()
    assert champion is not None
    found = Engine(runtime.registry.fetch(champion)).threshold
    assert found is not None
    return found


def decides(runtime: Runtime, night: str, cut: float) -> None:
    """The night's decisions are by this threshold, and its commit says so."""
    rows = predictions(runtime).filter(pl.col("partition") == night)
    assert rows.columns == ["partition", "loan", "score", "prediction", "model_version", "snapshot", "scored_at"]
    assert rows.get_column("prediction").equals(rows.get_column("score").cast(pl.Float64) >= cut, null_equal=False)
    assert 0 < rows.get_column("prediction").sum() < rows.height
    commit = next(each for each in runtime.store.history(PREDICTIONS) if night in each.partitions)
    assert commit.provenance["threshold"] == cut
    made = [link for link in runtime.trace(f"loans/rows/{night}").all("partition") if "threshold" in link.facts]
    assert [link.facts["threshold"] for link in made] == [cut]


def test_a_rollback_brings_back_the_threshold_with_the_champion(home: Path) -> None:
    first = runtime_at(home, loans.spec())
    prior = threshold(first)
    assert score(first, [NIGHTS[0]]) == ("published",)
    decides(first, NIGHTS[0], prior)
    bold = runtime_at(home, loans.spec(training={"threshold": 0.7}))
    assert promoted(bold) == 2
    assert threshold(bold) == pytest.approx(0.7, abs=1e-6)
    assert threshold(bold) != prior
    assert score(bold, [NIGHTS[1]]) == ("published",)
    decides(bold, NIGHTS[1], threshold(bold))
    bold.rollback(None, "too bold")
    assert threshold(bold) == prior
    assert score(bold, [NIGHTS[2]]) == ("published",)
    decides(bold, NIGHTS[2], prior)
    # The artifact decides, whichever way the spec looks now: each night replays as it was.
    assert [bold.replay(night).outcome for night in NIGHTS[:3]] == ["identical"] * 3


def publish_as_before(runtime: Runtime, night: str) -> None:
    """Predictions as they were published before there were decisions: neither these columns nor the threshold."""
    scored = runtime.score([night])
    frame = runtime.store.read_staged(scored.staged[0]).collect().drop("prediction", "snapshot", "scored_at")
    (staged,) = runtime.store.stage(PREDICTIONS, [Draft(partition=night, frame=frame)], loans.RUN)
    notes = dict(prediction_notes(runtime.store, scored, [staged]))
    del notes["threshold"]
    runtime.store.publish(PREDICTIONS, [staged], [audit(staged)], loans.RUN, provenance=notes)


def test_predictions_from_before_there_were_decisions_are_read_replayed_traced_watched_and_erased(home: Path) -> None:
    runtime = runtime_at(home, loans.spec())
    old, new = NIGHTS[0], NIGHTS[1]
    publish_as_before(runtime, old)
    assert "prediction" not in predictions(runtime).columns
    assert runtime.replay(old).outcome == "identical"
    # Nothing is scored again because of the new column.
    assert score(runtime, [old, new]) == ("unchanged", "published")
    decides(runtime, new, threshold(runtime))
    known = predictions(runtime).group_by("partition").agg(pl.col("prediction").null_count()).sort("partition")
    assert known.rows() == [(old, loans.ROWS), (new, 0)]
    assert [runtime.replay(night).outcome for night in (old, new)] == ["identical", "identical"]
    for night in (old, new):
        assert runtime.trace(f"loans/predictions/{night}").all("model")[0].id == "loans@1"
        row = runtime.trace(f"loans/predictions/{night}#l-{night}-3").root
        assert ("prediction" in row.facts) == (night == new), "a row is shown as it was published"
    seen = {entry.partition: entry.state for entry in runtime.observe(new, window=2).window}
    assert seen == {old: "observed", new: "observed"}
    runtime.erase(f"loan=l-{old}-3", "asked for", act=True)
    left = predictions(runtime).filter(pl.col("partition") == old)
    assert (left.height, left.get_column("prediction").null_count()) == (loans.ROWS - 1, loans.ROWS - 1)
    assert score(runtime, [old]) == ("unchanged",)
    assert runtime.replay(old).outcome == "erased"


def test_an_artifact_from_before_there_were_thresholds_decides_by_one_half(home: Path) -> None:
    runtime = runtime_at(home, loans.spec())
    folder = runtime.registry.fetch(runtime.model())
    engine = without_threshold(folder, home / "old")
    assert engine.threshold == 0.5
    assert threshold(runtime) != 0.5


def without_threshold(folder: Path, copy: Path) -> Engine:
    import json

    shutil.copytree(folder, copy)
    about: dict[str, Any] = json.loads((copy / "model.json").read_text("utf-8"))
    del about["threshold"], about["threshold_by"]
    (copy / "model.json").write_text(json.dumps(about), "utf-8")
    (copy / "digests.json").unlink()
    return Engine(copy)

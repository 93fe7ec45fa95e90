"""Reviews in the chain: written once, stored in MLflow, the description of the version, printed by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import IntegrityError
from pipelines.records import Evaluation, GateReport, TrainedModel
from pipelines.runtime import Runtime
from pipelines.steps.review import MAX_DESCRIPTION, description, find_card
from tests.cases import Case
from tests.chain.conftest import HISTORY, command_line

Evaluated = tuple[TrainedModel, Evaluation, GateReport]


@pytest.fixture
def evaluated(runtime: Runtime) -> Evaluated:
    """The champion's own training, found again, as its own challenger."""
    trained = runtime.train(runtime.build_training_set(HISTORY[1]))
    evaluation = runtime.evaluate(trained)
    return trained, evaluation, runtime.gate(trained, evaluation)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_review_is_stored_with_the_run_and_describes_its_version(
    runtime: Runtime, evaluated: Evaluated, trained_case: Case, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    out = runtime.review(*evaluated)
    run_id = evaluated[0].run_id
    assert out == runtime.settings.reports / "flights" / "models" / run_id
    made = files(out)
    assert {"model_card.md", "model_card.html", "comparison.html", "compression.html", "plots/roc.svg"} <= set(made)
    card = made["model_card.md"].decode()
    client = MlflowClient(runtime.settings.tracking_uri)
    stored = Path(client.download_artifacts(run_id, "review", str(tmp_path)))
    assert files(stored) == made
    told = client.get_model_version("flights", "1").description
    assert len(told) <= MAX_DESCRIPTION
    assert told.startswith(card[:500])
    assert f"artifacts of run {run_id}" in told
    assert "code**: test" in card
    assert find_card(runtime.spec, runtime.model(), runtime.settings.reports) == out / "model_card.md"
    shown = command_line(trained_case, tmp_path / "var", "card", "flights")
    assert shown.exit_code == 0, shown.output
    assert shown.output == card
    paths = command_line(trained_case, tmp_path / "var", "card", "flights", "--version", "1", "--path").output
    assert paths.splitlines()[2] == str(out / "comparison.html")


def test_a_repeat_changes_nothing_and_another_evaluation_replaces_the_whole(
    runtime: Runtime, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, evaluation, report = evaluated
    out = runtime.review(*evaluated)
    (out / "plots" / "stale.svg").write_text("from before")
    made = files(out)
    assert files(runtime.review(*evaluated)) == made

    other = evaluation.model_copy(update={"errors": {"fp32": "OSError: no second machine"}})
    runtime.review(trained, other, report)
    changed = files(out)
    assert "plots/stale.svg" not in changed
    assert b"no second machine" in changed["model_card.md"]

    def dies(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr(type(runtime.reviewer), "_put", dies)
    with pytest.raises(RuntimeError, match="half way"):
        runtime.review(*evaluated)
    assert files(out) == changed, "what was there stays until another is whole"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_artifact_that_was_touched_is_not_reviewed(runtime: Runtime, evaluated: Evaluated) -> None:
    graph = Path(evaluated[0].folder) / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"changed: model\.onnx"):
        runtime.review(*evaluated)
    assert not (runtime.settings.reports / "flights" / "models").exists()


def test_a_version_without_a_card_says_where_to_look(trained_case: Case, runtime: Runtime, tmp_path: Path) -> None:
    found = command_line(trained_case, tmp_path / "var", "card", "flights")
    assert found.exit_code == 1
    assert "among the artifacts of MLflow run" in found.output


def test_a_long_card_is_cut_between_sections() -> None:
    sections = [f"## Part {place}\n\n{'word ' * 150}" for place in range(20)]
    card = "\n\n".join(["# Title", *sections]) + "\n"
    told = description(card, "abc")
    assert len(told) <= MAX_DESCRIPTION
    body, _, rest = told.rpartition("\n\n")
    assert card.startswith(body)
    assert card[len(body) :].startswith("\n\n## ")
    assert "artifacts of run abc" in rest
    assert description("# Short\n", "abc") == "# Short\n"
    assert len(description("# Endless\n\n" + "x" * 9000, "abc")) <= MAX_DESCRIPTION

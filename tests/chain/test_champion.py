"""A champion of real flights: two trainings that finish together, a rollback by hand, and the log of it all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.errors import ConflictError
from pipelines.runtime import Runtime
from tests.cases import Case
from tests.cases.champions import again
from tests.chain.conftest import NIGHTS, command_line, ingest, runtime_of, score


def test_two_trainings_finish_together_and_a_person_has_the_last_word(
    runtime: Runtime, trained_case: Case, tmp_path: Path
) -> None:
    for night in NIGHTS[1:]:
        ingest(runtime, [night])
    before = scores(runtime)
    other = runtime_of(trained_case, tmp_path / "var", run_id="the other")
    ready = []
    as_of = NIGHTS[3]
    first = runtime.train(runtime.build_training_set(as_of))
    for each, trained in ((runtime, first), (other, again(other, first, "other code"))):
        evaluation = each.evaluate(trained)
        report = each.gate(trained, evaluation)
        assert report.passed, report.reason
        ready.append((each, trained, evaluation, report, each.register(trained, evaluation, report)))
    assert runtime.alias_state().found == {"champion": 1, "previous": None, "challenger": 3}

    one, _, evaluation, report, model = ready[0]
    assert one.promote(model, evaluation, report, "first", as_of).version == 2
    two, trained, evaluation, report, model = ready[1]
    with pytest.raises(ConflictError, match="compared with champion 1, but the champion is 2"):
        two.promote(model, evaluation, report, "second", as_of)
    assert two.evaluate(trained).champion_version == 2, "evaluated again, it meets the new champion"
    assert runtime.alias_state().found == {"champion": 2, "previous": 1, "challenger": 3}

    done = command_line(trained_case, tmp_path / "var", "rollback", "flights", "--reason", "the operators said so")
    assert done.exit_code == 0, done.output
    assert score(runtime, [NIGHTS[0]], version=1) == ("unchanged",)
    assert scores(runtime) == before
    done = command_line(trained_case, tmp_path / "var", "log", "flights")
    heads = [line.split()[1:3] for line in done.output.splitlines() if line[:5].strip().isdigit()]
    assert heads == [["promote", "flights@1"], ["promote", "flights@2"], ["rollback", "flights@1"]]
    assert "the operators said so" in done.output
    scored_by_hand(runtime, trained_case, tmp_path / "var")
    promotion = runtime.trace("flights@2").all("promotion")
    assert [link.facts["version"] for link in promotion] == [2]


def scored_by_hand(runtime: Runtime, case: Case, home: Path) -> None:
    """A backfill by the command line: each night by the model of then."""
    first, *rest = NIGHTS
    span = ("--from", first, "--to", NIGHTS[3])
    before = scores(runtime)
    done = command_line(case, home, "score", "flights", *span, "--model", "as-of")
    told = [line.split(":")[0] for line in done.output.splitlines()]
    assert told == [f"unchanged {first}", *(f"scored {night}" for night in rest)], done.output
    assert done.output.count("flights@1") == 4, "all ran before the promotion, or after the rollback"
    assert scores(runtime) == before
    done = command_line(case, home, "score", "flights", *span, "--model", "2")
    assert [line.split()[0] for line in done.output.splitlines()] == ["scored"] * 4, done.output
    assert scores(runtime) != before
    done = command_line(case, home, "score", "flights", *span, "--model", "as-of", "--anew", "--json")
    assert [entry["model"] for entry in json.loads(done.output)] == ["flights@1"] * 4
    done = command_line(case, home, "nights", "flights", *span, "--json")
    for night in json.loads(done.output):
        assert (night["input"], night["due"], night["scores"]["run"]["backfill"]) == ("ingested", None, True)
        assert night["scores"]["restated"] == 2
        assert night["rows"] == night["scores"]["rows"] > 0
    assert runtime.decisions() == [], "a backfill decides nothing"


def scores(runtime: Runtime) -> str:
    """Digest of the first night's published scores."""
    head = runtime.store.head("predictions")
    assert head is not None
    return runtime.store.partitions(head)[NIGHTS[0]].digest

"""The scoring DAG: what is handed over to mapped tasks, and what becomes of their pieces."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from pipelines.records import ModelRef, Piece, RunInfo, ScorePlan, Shard, SnapshotRef
from pipelines.spec import UseCase, load_spec
from pipelines.spec.delivery import FileDelivery, WebhookDelivery
from pipelines.spec.scoring import Scoring
from pipelines.spec.use_case import Queues
from pipelines.steps.scoring import shards

PROJECT = Path(__file__).resolve().parents[2]


def _spec(**changes: Any) -> UseCase:
    return load_spec(PROJECT / "include" / "use_cases" / "flights.yaml").model_copy(update=changes)


def _plan(rows: dict[str, int], most: int, version: int = 1) -> ScorePlan:
    return ScorePlan(
        model=ModelRef(name="flights", version=version, run_id="r", digest="d"),
        inputs=(SnapshotRef(store="delta", use_case="flights", table="rows", version="3"),),
        rows_in=rows,
        fingerprints=dict.fromkeys(rows, "f"),
        due=tuple(rows),
        shards=shards(rows, most),
        run=RunInfo(run_id="night"),
    )


def test_a_run_of_few_rows_hands_nothing_over() -> None:
    from usecase_dags.score import _handed_over

    spec = _spec(scoring=Scoring(shard_rows=100))
    assert _handed_over(spec, [_plan({"2013-09-01": 100}, 100)]) == []
    assert _handed_over(spec, [_plan({"2013-09-01": 50}, 100), _plan({"2013-09-02": 50}, 100, 2)]) == []
    assert _handed_over(spec, []) == []


def test_a_run_of_many_rows_hands_every_shard_of_every_model_over() -> None:
    from usecase_dags.score import _handed_over

    spec = _spec(scoring=Scoring(shard_rows=100))
    plans = [_plan({"2013-09-01": 150}, 100), _plan({"2013-09-02": 40, "2013-09-03": 50}, 100, 2)]
    assert _handed_over(spec, plans) == [
        {"plan": 0, "shard": 0, "label": "2013-09-01 rows 0..74"},
        {"plan": 0, "shard": 1, "label": "2013-09-01 rows 75..149"},
        {"plan": 1, "shard": 0, "label": "2013-09-02..2013-09-03"},
    ]
    assert _handed_over(_spec(scoring=Scoring(shard_rows=100, engine="ray")), plans) == [], "Ray splits it itself"


def test_pieces_go_to_the_plan_whose_shards_they_are_and_a_lost_one_is_noticed() -> None:
    from usecase_dags.score import _merged

    asked: list[tuple[int, list[Shard]]] = []
    runtime: Any = SimpleNamespace(
        stage_pieces=lambda plan, pieces: asked.append((plan.model.version, [piece.shard for piece in pieces]))
    )
    plans = [_plan({"2013-09-01": 150}, 100), _plan({"2013-09-02": 40}, 100, 2)]
    parts = [{"plan": 0, "shard": 0}, {"plan": 0, "shard": 1}, {"plan": 1, "shard": 0}]
    every = [plans[part["plan"]].shards[part["shard"]] for part in parts]
    pieces = [{"record": Piece(shard=shard, files={}).model_dump(mode="json")} for shard in every]
    told = [plan.model_dump(mode="json") for plan in plans]
    _merged(runtime, told, parts, pieces)
    assert asked == [(1, every[:2]), (2, every[2:])]
    with pytest.raises(ValueError, match="shorter"):
        _merged(runtime, told, parts, pieces[:2])


def test_no_more_shards_of_a_run_are_scored_at_once_than_the_spec_says() -> None:
    from usecase_dags import score

    task = score.build(_spec(scoring=Scoring(parallel=3))).get_task("predictions.shard")
    assert task.partial_kwargs["max_active_tis_per_dagrun"] == 3


def test_what_needs_a_gpu_goes_to_the_queue_that_the_spec_names_and_nothing_else_does() -> None:
    from usecase_dags import score, train

    def queues(**named: str) -> dict[str, str]:
        spec = _spec(queues=Queues(**named))
        tasks = [task for dag in (score.build(spec), train.build(spec)) for task in dag.tasks]
        return {task.task_id.split(".")[-1]: task.queue for task in tasks}

    plain, asked = queues(), queues(score="gpus", train="large-gpus")
    wanted = {"score": "gpus", "shard": "gpus", "search": "large-gpus", "train": "large-gpus"}
    assert len(set(plain.values())) == 1
    assert asked == plain | wanted


@pytest.mark.parametrize("name", ["", "two words", "-first"])
def test_a_queue_has_a_name_that_brokers_take(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Queues(score=name)


def test_each_delivery_is_a_task_of_its_own_and_without_any_there_is_none() -> None:
    from usecase_dags import score

    spec = _spec(
        delivery=(
            FileDelivery(name="lake", target="bucket", sink="files"),
            WebhookDelivery(name="pager", target="ops", sink="webhook"),
        )
    )
    dag = score.build(spec)
    task = dag.get_task("predictions.deliver")
    assert task.upstream_task_ids == {"predictions.publish"}
    assert task.op_kwargs_expand_input.value == {"name": ["lake", "pager"]}
    assert "*lake* (files), *pager* (webhook)" in dag.doc_md
    assert "predictions.deliver" not in score.build(_spec()).task_ids


@pytest.mark.parametrize("model", ["champion", "as-of", "1", "12"])
def test_the_form_takes_a_model_by_each_of_its_names(model: str) -> None:
    from usecase_dags import score

    param = score.build(_spec()).params.get_param("model")
    assert param.resolve() == "champion"
    jsonschema.validate(model, param.schema)


@pytest.mark.parametrize("model", ["", "0", "01", "-1", "1.5", "latest", "champion ", 3, None])
def test_the_form_refuses_any_other_model(model: Any) -> None:
    from usecase_dags import score

    param = score.build(_spec()).params.get_param("model")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(model, param.schema)

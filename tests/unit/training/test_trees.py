"""`model: lightgbm`: the ONNX trees say what LightGBM says, on any row, and everything after training takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import artifacts
from pipelines.policies.gates import evaluate_gates
from pipelines.records import Evaluation
from pipelines.scoring.engine import Engine
from pipelines.steps.training import read_scorecards, served_scorecard
from pipelines.training import prepare, tree_graph
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.calibrate import Calibration
from pipelines.training.data import Table, read
from pipelines.training.entry import run
from pipelines.training.graph import code_name
from pipelines.training.job import Job

from .conftest import TASKS, Columns, Trained, make_spec, write
from .evaluating import evaluated
from .test_parity import HOSTILE, raw_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.spec import UseCase

SIZES = {"binary": 1, "multiclass": 3, "regression": 1}


def many_words(columns: Columns) -> Columns:
    """`shape` with 150 values, which matter by no order that they have."""
    rng = np.random.default_rng(len(columns["label"]))
    index = rng.integers(0, 150, len(columns["label"]))
    columns["shape"] = [f"s{i}" for i in index]
    columns["label"] = np.where(index * 7 % 5 < 2, columns["label"].max(), columns["label"])
    return columns


@cache
def boosted(folder: Path, task: str) -> tuple[UseCase, LightGbm, Table, onnxruntime.InferenceSession]:
    """LightGBM on a training set with a category of many values, its training rows, and its graph."""
    spec = make_spec(task, model="lightgbm")
    data = write(folder / f"many-{task}", task, train=many_words, validation=many_words, holdout=many_words)
    train, validation = (read(spec, data / f"{part}.parquet") for part in ("train", "validation"))
    preparation = prepare.fit(train)
    model = LightGbm(spec.label.task, SIZES[task], preparation, train, validation, 1, 7)
    made = tree_graph.build(spec, preparation, model.dump(), Calibration())
    return spec, model, train, onnxruntime.InferenceSession(made.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


def onnx_scores(spec: UseCase, session: onnxruntime.InferenceSession, table: Table) -> NDArray[np.float32]:
    feeds = table.feeds(spec.features.numeric, spec.features.categorical)
    scores: NDArray[np.float32] = session.run(["score"], feeds)[0]
    return scores


def assert_same(spec: UseCase, model: LightGbm, session: onnxruntime.InferenceSession, table: Table) -> None:
    """As close as float32 can tell, in the label's unit for a regression."""
    ours, theirs = onnx_scores(spec, session, table), model(table)
    assert ours.dtype == np.float32
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def thresholds(model: LightGbm, feature: int) -> list[float]:
    found: list[float] = []

    def walk(node: dict[str, Any]) -> None:
        if "split_feature" in node:
            if node["split_feature"] == feature and node["decision_type"] == "<=":
                found.append(node["threshold"])
            walk(node["left_child"])
            walk(node["right_child"])

    for tree in model.dump()["tree_info"]:
        walk(tree["tree_structure"])
    return sorted(set(found))


@pytest.mark.parametrize("task", TASKS)
def test_the_graph_says_what_lightgbm_says_on_every_row_and_every_category(folder: Path, task: str) -> None:
    spec, model, train, session = boosted(folder, task)
    assert any(
        "||" in str(node["threshold"])
        for tree in model.dump()["tree_info"]
        for node in (tree["tree_structure"],)
        if node.get("decision_type") == "=="
    ), "no tree begins with a set of categories"
    assert_same(spec, model, session, train)


@pytest.mark.parametrize("task", TASKS)
def test_hostile_rows_get_lightgbms_scores(folder: Path, task: str) -> None:
    spec, model, _, session = boosted(folder, task)
    assert_same(spec, model, session, raw_table(HOSTILE))


@pytest.mark.parametrize("task", TASKS)
def test_values_on_a_threshold_and_next_to_it_stay_on_lightgbms_side(folder: Path, task: str) -> None:
    spec, model, train, session = boosted(folder, task)
    for feature in range(3):
        exact = np.array(thresholds(model, feature))
        with np.errstate(over="ignore"):
            edges = exact.astype(np.float32)
        assert (edges > exact)[exact < 1e300].any(), "none is rounded up by float32"
        near = np.concatenate(
            [edges, np.nextafter(edges, np.float32(-np.inf)), np.nextafter(edges, np.float32(np.inf))]
        )
        table = train.take(np.zeros(len(near), np.int64))
        table.numeric[:, feature] = near
        assert_same(spec, model, session, table)


@pytest.mark.parametrize("task", TASKS)
def test_a_null_where_training_had_none_goes_where_lightgbm_sends_it(folder: Path, task: str) -> None:
    spec, model, train, session = boosted(folder, task)
    assert not np.isnan(train.numeric[:, :2]).any()
    for feature in range(3):
        table = train.take(np.arange(300))
        table.numeric[:, feature] = np.nan
        assert_same(spec, model, session, table)


def test_infinities_in_the_training_rows_are_values_like_others(tmp_path: Path) -> None:
    def infinite(columns: Columns) -> Columns:
        columns["wide"][::5], columns["wide"][1::5] = np.inf, -np.inf
        return columns

    spec = make_spec("binary", model="lightgbm")
    data = write(tmp_path, "binary", train=infinite)
    train, validation = (read(spec, data / f"{part}.parquet") for part in ("train", "validation"))
    preparation = prepare.fit(train)
    model = LightGbm("binary", 1, preparation, train, validation, 1, 7)
    made = tree_graph.build(spec, preparation, model.dump(), Calibration())
    session = onnxruntime.InferenceSession(made.SerializeToString())
    assert_same(spec, model, session, train)
    assert_same(spec, model, session, raw_table(HOSTILE))


def test_too_few_rows_to_split_give_trees_of_one_leaf(tmp_path: Path) -> None:
    spec = make_spec("binary", model="lightgbm")
    data = write(tmp_path, "binary")
    train = read(spec, data / "train.parquet").take(np.arange(25))
    preparation = prepare.fit(train)
    model = LightGbm("binary", 1, preparation, train, train, 1, 7)
    made = tree_graph.build(spec, preparation, model.dump(), Calibration())
    session = onnxruntime.InferenceSession(made.SerializeToString())
    assert_same(spec, model, session, train)
    np.testing.assert_allclose(onnx_scores(spec, session, train), train.label.mean(), atol=1e-6)


@pytest.mark.parametrize("features", [{"categorical": ()}, {"numeric": ()}])
def test_numbers_alone_and_categories_alone_are_enough(tmp_path: Path, features: dict[str, Any]) -> None:
    spec = make_spec("binary", model="lightgbm")
    spec = spec.model_copy(update={"features": spec.features.model_copy(update=features)})
    run(Job(spec=spec, data=write(tmp_path / "data", "binary"), out=tmp_path / "out", threads=1), lambda _: None)
    train = read(spec, tmp_path / "data" / "train.parquet")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert onnx_scores(spec, session, train).std() > 0.05


# -- the whole chain ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served_once(folder: Path) -> Callable[[str], Trained]:
    @cache
    def of(task: str) -> Trained:
        spec, data = make_spec(task, model="lightgbm"), write(folder / f"data-{task}", task)
        run(Job(spec=spec, data=data, out=folder / f"out-{task}", threads=1), lambda _: None)
        artifacts.seal(folder / f"out-{task}")
        return Trained(task, spec, data, folder / f"out-{task}", [])

    return of


@pytest.fixture(params=TASKS)
def served(request: pytest.FixtureRequest, served_once: Callable[[str], Trained]) -> Trained:
    return served_once(request.param)


def test_the_artifact_holds_trees_and_no_network(served: Trained) -> None:
    found = {path.name for path in served.out.iterdir()} - {artifacts.DIGESTS}
    assert found == {"model.onnx", "model.json", "scorecards.json", "curves.jsonl", "features.json"}
    about = json.loads((served.out / "model.json").read_text("utf-8"))
    assert about["served"] == "lightgbm_onnx"
    assert about["opset"] == {"ai.onnx": 17, "ai.onnx.ml": 5, "ir": 10}
    assert about["teacher"] is None


def test_its_scorecards_are_lightgbms_and_the_constants(served: Trained) -> None:
    cards = {card.model: card for card in read_scorecards(served.out)}
    assert list(cards) == ["lightgbm_onnx", "lightgbm", "constant"]
    assert served_scorecard(served.out) == cards["lightgbm_onnx"]
    metric = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}[served.task]
    assert cards["lightgbm_onnx"].metrics[metric] == pytest.approx(cards["lightgbm"].metrics[metric], abs=1e-6)
    loss = "rmse" if served.task == "regression" else "log_loss"
    assert cards["lightgbm_onnx"].metrics[loss] < 0.8 * cards["constant"].metrics[loss]


def test_the_engine_serves_what_the_baseline_predicts(served: Trained) -> None:
    """Binary, multiclass: but for the temperature, which leaves the order of the classes as it is."""
    train, validation, holdout = (
        read(served.spec, served.data / f"{part}.parquet") for part in ("train", "validation", "holdout")
    )
    model = LightGbm(
        served.spec.label.task, SIZES[served.task], prepare.fit(train), train, validation, 1, served.spec.training.seed
    )
    temperature = json.loads((served.out / "model.json").read_text("utf-8"))["calibration"]["temperature"]
    raw = model.raw(holdout) / temperature
    expected = {
        "binary": 1 / (1 + np.exp(-raw[:, 0])),
        "multiclass": np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True),
        "regression": raw[:, 0],
    }[served.task]
    frame = pl.read_parquet(served.data / "holdout.parquet")
    for tile in (64, 8192):
        np.testing.assert_allclose(Engine(served.out, tile_rows=tile, threads=1).score(frame), expected, rtol=5e-6)


def test_the_gates_judge_it(served: Trained) -> None:
    report = evaluate_gates(judged(served), served.spec.model_copy(update={"gates": lenient(served.spec)}))
    verdicts = {gate.name: gate for gate in report.gates}
    assert report.passed, report
    assert "served as they are" in verdicts["quantization"].reason
    assert "of lightgbm: 0.0000" in verdicts["lightgbm"].reason


def test_a_graph_that_does_not_say_what_lightgbm_says_does_not_pass(served_once: Callable[[str], Trained]) -> None:
    served = served_once("binary")
    evaluation = judged(served)
    others = tuple(
        card.model_copy(update={"metrics": {"auc": card.metrics["auc"] - 0.02}})
        if card.model == evaluation.served
        else card
        for card in evaluation.others
    )
    report = evaluate_gates(evaluation.model_copy(update={"others": others}), served.spec)
    assert [gate.name for gate in report.gates if not gate.passed] == ["lightgbm"]


def lenient(spec: UseCase) -> Any:
    """Gates with a bound that the toy's regression, in its own unit, can reach."""
    return spec.gates.model_copy(update={"bound": 100.0} if spec.label.task == "regression" else {})


def judged(served: Trained) -> Evaluation:
    return evaluated(served.spec, served.data, served.out)


def test_pyfunc_loads_it_and_scores_a_data_frame(served: Trained, tmp_path: Path) -> None:
    import mlflow
    import pandas

    from pipelines.backends.mlflow_model import save

    save(served.out, tmp_path / "mlflow", run_id="r", model_id="m", location=str(tmp_path / "mlflow"))
    frame = pandas.DataFrame(
        {
            "wide": [20.0, None, float("inf")],
            "narrow": [0.0, None, 0.01],
            "gaps": [5.0, 5.0, None],
            "colour": ["red", None, "never seen"],
            "shape": ["round", None, float("nan")],
        }
    )
    found = mlflow.pyfunc.load_model(str(tmp_path / "mlflow")).predict(frame).to_numpy()
    expected = Engine(served.out, threads=1).score(pl.from_pandas(frame, nan_to_null=True))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-6)


def test_an_engine_may_cut_the_graph_at_the_codes(served: Trained) -> None:
    import onnx

    outputs = {name for node in onnx.load(served.out / "model.onnx").graph.node for name in node.output}
    assert {code_name("colour"), code_name("shape")} <= outputs


def test_the_same_seed_gives_the_same_trees_bit_for_bit(served_once: Callable[[str], Trained], tmp_path: Path) -> None:
    served = served_once("binary")
    run(Job(spec=served.spec, data=served.data, out=tmp_path, threads=1), lambda _: None)
    assert (tmp_path / "model.onnx").read_bytes() == (served.out / "model.onnx").read_bytes()


# -- the baselines -----------------------------------------------------------------------------------------------------


def test_lightgbm_stops_where_the_validation_rows_say(folder: Path) -> None:
    _, model, _, _ = boosted(folder, "binary")
    assert 5 < len(model.dump()["tree_info"]) < 500


def test_a_row_without_weight_has_no_say_in_the_baselines(tmp_path: Path) -> None:
    spec, data = make_spec("binary"), write(tmp_path, "binary")
    train, validation = (read(spec, data / f"{part}.parquet") for part in ("train", "validation"))
    wrong = np.arange(len(train)) % 3 == 0
    weights = (np.where(wrong, 0, 1).astype(np.float32), np.ones(len(validation), np.float32))
    lied = Table(train.numeric, train.categorical, np.where(wrong, 1 - train.label, train.label).astype(np.float32))
    preparation = prepare.fit(train)

    def scores(table: Table, **chosen: Any) -> NDArray[np.float64]:
        return LightGbm("binary", 1, preparation, table, validation, 1, 7, **chosen)(validation)

    np.testing.assert_array_equal(scores(train, weights=weights), scores(lied, weights=weights))
    assert not np.array_equal(scores(train), scores(lied))
    honest, fooled = (Constant("binary", 1, table, weight=weights[0])(validation)[0] for table in (train, lied))
    assert honest == pytest.approx(fooled) == pytest.approx(train.label[~wrong].mean())


def test_the_constant_of_classes_is_their_weighted_shares() -> None:
    words = pa.array(["a"] * 4, pa.large_string()).dictionary_encode()
    table = Table(np.zeros((4, 1), np.float32), (words,), np.array([0, 1, 1, 2], np.float32))
    weight = np.array([1, 1, 0, 2], np.float32)
    np.testing.assert_allclose(Constant("multiclass", 3, table)(table)[0], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(Constant("multiclass", 3, table, weight=weight)(table)[0], [0.25, 0.25, 0.5])


def test_lightgbm_sees_no_other_columns_than_the_networks(tmp_path: Path) -> None:
    """A copy of the label under another name is in the file, and helps nobody."""

    def leak(columns: Columns) -> Columns:
        return {**columns, "copy": columns["label"]}

    spec = make_spec("binary", model="lightgbm")
    plain, leaking = (
        write(tmp_path / "a", "binary"),
        write(tmp_path / "b", "binary", train=leak, validation=leak, holdout=leak),
    )
    assert "copy" in pq.read_schema(leaking / "train.parquet").names
    for data in (plain, leaking):
        run(Job(spec=spec, data=data, out=data / "out", threads=1), lambda _: None)
    assert (plain / "out" / "model.onnx").read_bytes() == (leaking / "out" / "model.onnx").read_bytes()

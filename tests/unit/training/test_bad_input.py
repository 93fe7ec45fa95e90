"""Bad training sets: each is a TrainingError that says where and what, or is treated as documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.errors import TrainingError
from pipelines.policies.gates import evaluate_gates
from pipelines.training import entry, prepare, step
from pipelines.training.data import read
from pipelines.training.job import Job

from .conftest import Columns, make_spec, write
from .evaluating import evaluated

QUICK: dict[str, Any] = {
    "teacher": {"k": 1, "epochs": 1, "width": 8, "depth": 1},
    "student": {"epochs": 1, "widths": [8]},
    "calibration_rows": 64,
}


def change(**columns: Any) -> Callable[[Columns], Columns]:
    """Replaces columns: by a list, or by one value for every row."""

    def changed(old: Columns) -> Columns:
        rows = len(old["id"])
        return old | {name: value if isinstance(value, list) else [value] * rows for name, value in columns.items()}

    return changed


def keep(rows: int) -> Callable[[Columns], Columns]:
    return lambda old: {name: values[:rows] for name, values in old.items()}


def drop(name: str) -> Callable[[Columns], Columns]:
    return lambda old: {other: values for other, values in old.items() if other != name}


def train(folder: Path, task: str = "binary", spec: dict[str, Any] | None = None, **changed: Any) -> Path:
    data = write(folder / "data", task, **changed)
    entry.run(
        Job(spec=make_spec(task, **(QUICK | (spec or {}))), data=data, out=folder / "out", threads=1), lambda _: None
    )
    return folder / "out"


def scores(out: Path, **columns: list[Any]) -> np.ndarray:
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    rows = max(len(values) for values in columns.values())
    feeds: dict[str, Any] = {name: np.ones(rows, np.float32) for name in ("wide", "narrow", "gaps")}
    feeds |= {name: np.array(["red"] * rows, dtype=object) for name in ("colour", "shape")}
    feeds |= {name: np.array(values, feeds[name].dtype) for name, values in columns.items()}
    return np.asarray(session.run(["score"], feeds)[0])


@pytest.mark.parametrize(
    ("task", "changed", "said"),
    [
        ("binary", {"train": change(label=1.0)}, r"train\.parquet: every label is 1"),
        ("multiclass", {"train": change(label=2.0)}, r"train\.parquet: every label is 2"),
        ("regression", {"train": change(label=7.5)}, r"train\.parquet: every label is 7\.5"),
        ("binary", {"train": keep(60)}, r"60 rows.*training\.min_rows: 100"),
        ("binary", {"validation": keep(0)}, r"validation\.parquet: there are no rows"),
        ("binary", {"holdout": keep(0)}, r"holdout\.parquet: there are no rows"),
        ("binary", {"train": change(label=2.0)}, r"column 'label': 1500 of 1500 labels.*0 to 1 \(binary\)"),
        ("multiclass", {"holdout": change(label=3.0)}, r"holdout\.parquet column 'label'.*0 to 2"),
        ("multiclass", {"train": change(label=0.5)}, r"such as 0\.5"),
        ("multiclass", {"train": change(label=1e6)}, r"1500 of 1500 labels.*such as 1000000\.0.*0 to 2 \(multiclass\)"),
        ("regression", {"train": change(label=float("inf"))}, r"column 'label'.*finite"),
        ("regression", {"validation": change(label=None)}, r"validation\.parquet column 'label'.*nan"),
        ("binary", {"train": drop("wide")}, r"train\.parquet: columns are missing: wide"),
        ("binary", {"train": drop("label")}, r"columns are missing: label"),
        ("binary", {"train": change(wide="text")}, r"column 'wide': it holds string.*numbers"),
        ("binary", {"train": change(colour=1.0)}, r"column 'colour': it holds double.*strings"),
    ],
)
def test_a_training_set_that_cannot_give_a_model_is_refused(
    tmp_path: Path, task: str, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        train(tmp_path, task, **changed)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "binary")
    (data / "validation.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(TrainingError, match=r"validation\.parquet: not a readable Parquet file"):
        entry.run(Job(spec=make_spec("binary"), data=data, out=tmp_path / "out"), lambda _: None)
    (data / "validation.parquet").unlink()
    with pytest.raises(TrainingError, match=r"validation\.parquet: not a readable Parquet file"):
        entry.run(Job(spec=make_spec("binary"), data=data, out=tmp_path / "out"), lambda _: None)


def test_nothing_that_varies_is_refused(tmp_path: Path) -> None:
    spec = make_spec("binary", **QUICK)
    bare = spec.model_copy(update={"features": spec.features.model_copy(update={"categorical": ()})})
    data = write(tmp_path / "data", "binary", train=change(wide=1.0, narrow=None, gaps=float("inf")))
    with pytest.raises(TrainingError, match="every feature is constant or null"):
        entry.run(Job(spec=bare, data=data, out=tmp_path / "out"), lambda _: None)


def test_constant_and_all_null_columns_have_no_say_even_when_they_vary_later(tmp_path: Path) -> None:
    out = train(tmp_path, train=change(wide=3.0, narrow=None))
    assert json.loads((out / "model.json").read_text("utf-8"))["constant_features"] == ["wide", "narrow"]
    found = scores(out, wide=[3.0, 1e9, float("nan")], narrow=[0.0, 5.0, float("inf")])
    assert (found == found[0]).all()


def test_columns_of_numbers_only_or_of_words_only_train(tmp_path: Path) -> None:
    for part, features in {"numbers": {"categorical": ()}, "words": {"numeric": ()}}.items():
        spec = make_spec("binary", **QUICK)
        spec = spec.model_copy(update={"features": spec.features.model_copy(update=features)})
        data = write(tmp_path / part / "data", "binary")
        entry.run(Job(spec=spec, data=data, out=tmp_path / part / "out", threads=1), lambda _: None)
        session = onnxruntime.InferenceSession(tmp_path / part / "out" / "model.onnx")
        assert {entry.name for entry in session.get_inputs()} == set(spec.features.columns)


def outcome(old: Columns) -> Columns:
    """A number that holds the outcome in its own unit, and a word that names it."""
    label = np.asarray(old["label"], float)
    return old | {"narrow": 0.5 - 3 * label, "shape": [f"class {value:.0f}" for value in label]}


@pytest.mark.parametrize(
    ("task", "leaking"), [("binary", "narrow, shape"), ("multiclass", "narrow, shape"), ("regression", "narrow")]
)
def test_a_column_that_holds_the_outcome_trains_well_and_is_refused_by_name(
    tmp_path: Path, task: str, leaking: str
) -> None:
    out = train(tmp_path, task, train=outcome, validation=outcome, holdout=outcome)
    spec = make_spec(task, **QUICK)
    report = evaluate_gates(evaluated(spec, tmp_path / "data", out), spec)
    gate = next(gate for gate in report.gates if gate.name == "leakage")
    assert not gate.passed
    found = [word.split()[0] for word in gate.reason.split(":")[0].split(", ")]
    assert sorted(found) == leaking.split(", ")
    honest = train(tmp_path / "honest", task)
    report = evaluate_gates(evaluated(spec, tmp_path / "honest" / "data", honest), spec)
    gate = next(gate for gate in report.gates if gate.name == "leakage")
    assert gate.passed, gate.reason
    (honest / "features.json").unlink()
    report = evaluate_gates(evaluated(spec, tmp_path / "honest" / "data", honest), spec)
    assert "leakage" in {gate.name for gate in report.gates if not gate.passed}, "what nobody measured is refused"


def test_one_class_in_validation_leaves_the_probabilities_as_they_are(tmp_path: Path) -> None:
    out = train(tmp_path, validation=change(label=1.0))
    assert json.loads((out / "model.json").read_text("utf-8"))["calibration"]["method"] == "none"
    assert np.isfinite(scores(out, wide=[1.0])).all()


def test_fewer_rows_than_a_batch_train_in_one_step_an_epoch(tmp_path: Path) -> None:
    batch = {"batch_rows": 4096}
    out = train(tmp_path, spec={"teacher": QUICK["teacher"] | batch, "student": QUICK["student"] | batch})
    assert np.isfinite(scores(out, wide=[1.0])).all()


def test_infinite_and_huge_training_values_neither_break_the_scale_nor_the_loss(tmp_path: Path) -> None:
    def spoil(old: Columns) -> Columns:
        wide, narrow = list(old["wide"]), list(old["narrow"])
        wide[:4] = [float("inf"), float("-inf"), 1e30, 1e300]
        narrow[:2] = [-1e30, float("inf")]
        return old | {"wide": wide, "narrow": narrow}

    longer = {"epochs": 6, "batch_rows": 64, "learning_rate": 0.01}
    out = train(
        tmp_path, spec={"teacher": QUICK["teacher"] | longer, "student": {"widths": [16]} | longer}, train=spoil
    )
    assert json.loads((out / "scorecards.json").read_text("utf-8"))[1]["metrics"]["auc"] > 0.6
    found = scores(out, wide=[5.0, 500.0, 1e30, float("inf")])
    assert np.isfinite(found).all()
    assert found[0] != found[1], "the far values did not squash the near ones"


def test_a_class_that_never_occurs_in_training_still_has_its_column(tmp_path: Path) -> None:
    def two(old: Columns) -> Columns:
        return old | {"label": np.minimum(old["label"], 1.0)}

    found = scores(train(tmp_path, "multiclass", train=two), wide=[1.0, 2.0])
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_categories_unseen_in_training_are_scored_and_one_class_in_the_holdout_gives_a_nan_auc(tmp_path: Path) -> None:
    out = train(tmp_path, holdout=change(colour="ultraviolet", label=0.0))
    cards = json.loads((out / "scorecards.json").read_text("utf-8"))
    assert all(np.isnan(card["metrics"]["auc"]) for card in cards)
    assert all(np.isfinite(card["metrics"]["log_loss"]) for card in cards)


def test_a_category_seen_only_in_test_is_scored_as_the_rare_ones_are(tmp_path: Path) -> None:
    longer = {"epochs": 4, "batch_rows": 64, "learning_rate": 0.01}
    out = train(tmp_path, spec={"teacher": QUICK["teacher"] | longer, "student": {"widths": [16]} | longer})
    found = scores(
        out, colour=["ultraviolet", "never seen", "red", "", "None"], shape=["rare", "unheard of"] + ["square"] * 3
    )
    assert found[0] == found[1], "shape 'rare' has fewer than ten rows"
    assert found[3] == found[4], "what is missing is not unknown"
    colours = scores(out, colour=["ultraviolet", "red", "blue", ""])
    assert len(set(colours.tolist())) == 4
    # An unknown colour is neither of the known extremes: training has hidden some rows' colours.
    assert min(colours[1:3]) < colours[0] < max(colours[1:3])


def test_the_unknown_code_is_learnt_from_rare_and_hidden_values(tmp_path: Path) -> None:
    table = read(make_spec("binary"), write(tmp_path, "binary") / "train.parquet")
    preparation = prepare.fit(table)
    codes = preparation.encode(table).codes[:, 1]
    words = table.categorical[1].to_pylist()
    assert {words[i] for i in np.flatnonzero(codes == prepare.UNKNOWN)} == {"rare"}
    assert {words[i] for i in np.flatnonzero(codes == prepare.MISSING)} == {None}
    hidden = step.hide(torch.full((20_000, 2), 5), torch.Generator().manual_seed(0))
    for code in (prepare.UNKNOWN, prepare.MISSING):
        assert (hidden == code).float().mean().item() == pytest.approx(step._HIDDEN / 2, rel=0.2)


def test_a_feature_may_not_be_called_like_the_output(tmp_path: Path) -> None:
    spec = make_spec("binary", **QUICK)
    spec = spec.model_copy(update={"features": spec.features.model_copy(update={"numeric": ("wide", "score")})})
    renamed = {part: lambda old: old | {"score": old["narrow"]} for part in ("train", "validation", "holdout")}
    data = write(tmp_path / "data", "binary", **renamed)
    with pytest.raises(TrainingError, match="'score' is a name inside the graph"):
        entry.run(Job(spec=spec, data=data, out=tmp_path / "out", threads=1), lambda _: None)


def test_names_of_tensors_inside_the_graph_are_free_for_features(tmp_path: Path) -> None:
    spec = make_spec("binary", **QUICK)
    spec = spec.model_copy(
        update={"features": spec.features.model_copy(update={"numeric": ("mean", "scale", "logit")})}
    )
    names = {"mean": "wide", "scale": "narrow", "logit": "gaps"}
    parts = {
        part: lambda old: old | {new: old[was] for new, was in names.items()}
        for part in ("train", "validation", "holdout")
    }
    entry.run(
        Job(spec=spec, data=write(tmp_path / "data", "binary", **parts), out=tmp_path / "out", threads=1),
        lambda _: None,
    )
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 0


def test_strings_of_every_arrow_kind_and_integers_and_booleans_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "wide": pa.array([1, 2, None], pa.int32()),
            "narrow": pa.array([True, False, None]),
            "gaps": pa.array([1.5, None, 2.5], pa.float32()),
            "colour": pa.array(["red", None, "blue"], pa.large_string()).dictionary_encode(),
            "shape": pa.array([None, None, None], pa.null()),
            "label": pa.array([0, 1, 1], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "some.parquet")
    found = read(make_spec("binary"), tmp_path / "some.parquet")
    np.testing.assert_array_equal(
        found.numeric, np.array([[1, 1, 1.5], [2, 0, np.nan], [np.nan, np.nan, 2.5]], np.float32)
    )
    feeds = found.feeds(("wide",), ("colour", "shape"))
    assert feeds["colour"].tolist() == ["red", "", "blue"]
    assert feeds["shape"].tolist() == ["", "", ""]
    assert prepare.fit(found).vocabularies == ((), ()), "all are rare"

"""What a use case's YAML file may say, and what each mistake is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.errors import SpecError
from pipelines.spec import UseCase, load_spec
from tests.cases import REPOSITORY, Case

RAW: dict[str, Any] = {
    "name": "pumps",
    "title": "Pumps",
    "description": "Which pumps will fail.",
    "owner": "tests",
    "schedule": "0 2 * * *",
    "monitor_schedule": "0 6 * * *",
    "tables": {
        "rows": {
            "path": "pumps/date={partition}/pumps.csv",
            "columns": {
                "pump": {"type": "int", "nullable": False},
                "at": {"type": "timestamp"},
                "load": {"type": "float"},
            },
            "key": ["pump"],
            "event_time": "at",
        },
        "labels": {
            "path": "failures/date={partition}/failures.csv",
            "columns": {"pump": {"type": "int", "nullable": False}, "failed": {"type": "bool"}},
            "key": ["pump"],
            "lag": 1,
        },
    },
    "label": {"column": "failed", "task": "binary", "positive": {"equals": True}},
    "features": {"numeric": ["load"]},
    "gates": {"metric": "auc", "bound": 0.6},
}


def write(tmp_path: Path, text: str, name: str = "pumps") -> Path:
    """A project folder with one spec."""
    path = tmp_path / "include" / "use_cases" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def loaded(tmp_path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> UseCase:
    """The spec above with one change, or none."""
    raw = copy.deepcopy(RAW)
    change(raw)
    return load_spec(write(tmp_path, yaml.safe_dump(raw, sort_keys=False)))


def said(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """What the SpecError says about the spec above with one change."""
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, change)
    message = str(caught.value)
    assert "pumps.yaml" in message
    return message


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets one key, named by its path with dots."""

    def change(raw: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for key in above:
            raw = raw.setdefault(key, {})
        raw[last] = value

    return change


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "include" / "use_cases").glob("*.yaml")))
def test_every_shipped_spec_is_valid(name: str) -> None:
    spec = load_spec(REPOSITORY / "include" / "use_cases" / f"{name}.yaml")
    assert spec.name == name
    for table in spec.tables.values():
        assert table.suite is None or table.expectations


def test_the_two_shipped_cases_read_the_same_tables_and_features() -> None:
    flights, delay = (
        load_spec(REPOSITORY / "include" / "use_cases" / f"{n}.yaml") for n in ("flights", "arrival_delay")
    )
    assert flights.tables == delay.tables
    assert flights.features == delay.features
    assert (flights.label.task, delay.label.task) == ("binary", "regression")


def test_a_spec_alone_onboards_a_table(third_case: Case, tmp_path: Path) -> None:
    assert third_case.spec.features.function is None
    assert third_case.spec.granularity == "hour"
    assert third_case.spec.label.classes == ("idle", "running", "fault")
    assert loaded(tmp_path).features.columns == ("load",)


def test_a_spec_survives_json_and_its_digest_is_of_all_it_says(tmp_path: Path) -> None:
    spec = loaded(tmp_path)
    again = UseCase.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.digest == spec.digest
    assert loaded(tmp_path, put("gates.bound", 0.7)).digest != spec.digest


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("tables.rows.colour", "red", "tables.rows.colour: Extra inputs"),
        ("training.teacher.layers", 3, "training.teacher.layers: Extra inputs"),
        ("tables.rows.columns.load.unit", "kW", "tables.rows.columns.load.unit: Extra inputs"),
    ],
)
def test_an_unknown_key_is_named_with_its_place(tmp_path: Path, path: str, value: Any, where: str) -> None:
    assert where in said(tmp_path, put(path, value))


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("training.teacher.k", "many", "training.teacher.k: Input should be a valid integer"),
        ("training.teacher.k", 0, "training.teacher.k: Input should be greater than or equal to 1"),
        ("gates.bound", float("nan"), "gates.bound: Input should be a finite number"),
        ("retraining.decay", float("inf"), "retraining.decay: Input should be a finite number"),
        ("gates.bound", [0.6], "gates.bound: Input should be a valid number"),
        ("tables", [], "tables: Input should be a valid dictionary"),
        ("tables.rows.columns.load.type", "decimal", "'string', 'int', 'float', 'bool', 'timestamp' or 'date'"),
        ("tables.rows.delimiter", ";;", "tables.rows.delimiter"),
        ("tables.rows.key", [], "tables.rows.key"),
        ("granularity", "week", "granularity: Input should be 'day' or 'hour'"),
        ("label.maturity", -1, "label.maturity"),
        ("training.student.soft_share", 1.5, "training.student.soft_share"),
        ("owner", "", "owner"),
    ],
)
def test_a_wrong_type_or_value_is_named_with_what_is_allowed(tmp_path: Path, path: str, value: Any, where: str) -> None:
    assert where in said(tmp_path, put(path, value))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["colour"] = "red"
        raw["gates"]["bound"] = "high"
        del raw["owner"]

    message = said(tmp_path, change)
    assert all(place in message for place in ("colour: ", "gates.bound: ", "owner: Field required"))


@pytest.mark.parametrize("name", ["../pumps", "Pumps", "pumps.v2", "", "pu mps", "a" * 49, "pumps\n", "1pump", "pümps"])
def test_a_name_that_could_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert "name: " in said(tmp_path, put("name", name))


@pytest.mark.parametrize(
    "path",
    [
        "../x/{partition}.csv",
        "/etc/{partition}",
        "a/../{partition}",
        "a//{partition}",
        "a/./{partition}",
        "a\\{partition}",
        "~/{partition}",
        "a/{partition}.csv\n",
        "",
        "x" * 201,
    ],
)
def test_a_path_that_could_leave_the_landing_zone_is_refused(tmp_path: Path, path: str) -> None:
    assert "tables.rows.path" in said(tmp_path, put("tables.rows.path", path))


@pytest.mark.parametrize("name", ["../flights", "pipelines.cli", "os", "Flights"])
def test_a_feature_function_is_a_plain_name(tmp_path: Path, name: str) -> None:
    if name == "os":  # a name like any other here: whether such a module exists is for features.load to say
        assert loaded(tmp_path, put("features.function", name)).features.function == "os"
    else:
        assert "features.function" in said(tmp_path, put("features.function", name))


def test_the_name_must_be_the_files_own(tmp_path: Path) -> None:
    assert "name is 'drills'. Allowed: the file's own: 'pumps'" in said(tmp_path, put("name", "drills"))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (put("tables.rows.key", ["pump", "serial"]), "key names 'serial', which is not in columns: pump, at, load"),
        (put("tables.rows.event_time", "noon"), "event_time names 'noon'"),
        (put("tables.rows.event_time", "load"), "event_time 'load' must have type timestamp"),
        (put("tables.rows.min_rows", 20_000_000), "min_rows 20000000 is above max_rows"),
        (put("tables.rows.path", "pumps.csv"), "rows and labels need '{partition}'"),
        (put("label.table", "outcomes"), "no table 'outcomes'; there are: rows, labels"),
        (put("label.column", "broken"), "label.column 'broken' is not a column of labels"),
        (put("tables.labels.columns", {"failed": {"type": "bool"}}), "key names 'pump'"),
        (put("tables.quarantine", RAW["tables"]["rows"]), "quarantine are Overnight's own"),
        (put("name", "evidently"), "name: the folder of Evidently's workspace among the reports has it"),
        (put("features.context", ["weather"]), "features.context: no table 'weather'"),
        (put("features.numeric", ["load", "heat"]), "features: not columns of rows: heat"),
        (put("features.categorical", ["load"]), "a feature is named twice"),
        (put("features.numeric", []), "name at least one numeric or categorical feature"),
        (put("features.slices", ["load"]), "slices must be categorical features; not so: load"),
        (put("drift.ignore", ["heat"]), "drift.ignore: not features: heat"),
        (put("training.sample_weight", "heat"), "training.sample_weight 'heat' is a column of neither rows nor labels"),
        (put("training.sample_weight", "failed"), "training.sample_weight 'failed' is bool; allowed: int, float"),
    ],
)
def test_a_reference_to_what_is_not_there_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], where: str
) -> None:
    assert where in said(tmp_path, change)


def test_labels_without_the_key_of_rows_are_refused(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["tables"]["labels"]["columns"] = {"id": {"type": "int"}, "failed": {"type": "bool"}}
        raw["tables"]["labels"]["key"] = ["id"]

    assert "label.table must hold the key of rows; missing: pump" in said(tmp_path, change)


def test_the_label_is_no_feature(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["tables"]["rows"]["columns"]["failed"] = {"type": "bool"}
        raw["label"]["table"] = "rows"
        raw["features"]["numeric"] = ["load", "failed"]

    assert "features: 'failed' is the label" in said(tmp_path, change)


@pytest.mark.parametrize(
    ("label", "where"),
    [
        ({"task": "binary"}, "'positive' belongs to task binary, and binary needs it"),
        ({"task": "binary", "positive": {}}, "give exactly one of 'above' and 'equals'"),
        ({"task": "binary", "positive": {"above": 1, "equals": 1}}, "give exactly one of 'above' and 'equals'"),
        ({"task": "regression", "positive": {"above": 1}}, "'positive' belongs to task binary"),
        ({"task": "multiclass"}, "'classes' (two or more) belongs to task multiclass"),
        ({"task": "multiclass", "classes": ["a"]}, "'classes' (two or more)"),
        ({"task": "multiclass", "classes": ["a", "a"]}, "'classes' must be distinct"),
        ({"task": "regression", "classes": ["a", "b"]}, "'classes' (two or more) belongs to task multiclass"),
        ({"task": "ranking"}, "Input should be 'binary', 'multiclass' or 'regression'"),
    ],
)
def test_a_label_that_does_not_fit_its_task_is_refused(tmp_path: Path, label: dict[str, Any], where: str) -> None:
    assert where in said(tmp_path, put("label", {"column": "failed", **label}))


def test_a_million_classes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    label = {"column": "failed", "task": "multiclass", "classes": [f"c{i}" for i in range(10**6)]}
    raw = copy.deepcopy(RAW) | {"label": label}
    with pytest.raises(ValidationError) as caught:
        UseCase.model_validate(raw)
    message = caught.value.errors(include_url=False, include_input=False)[0]["msg"]
    assert "'classes' are 1000000, at most 1000 are allowed" in message
    assert "join the rare ones in one class, or predict a number instead" in message
    label["classes"] = [f"c{i}" for i in range(1001)]
    assert "'classes' are 1001, at most 1000" in said(tmp_path, put("label", label))


def test_weights_by_class_need_classes_and_isotonic_needs_two(tmp_path: Path) -> None:
    def regression(raw: dict[str, Any]) -> None:
        raw["label"] = {"column": "failed", "task": "regression"}
        raw["gates"]["metric"] = "rmse"

    def balanced(raw: dict[str, Any]) -> None:
        regression(raw)
        raw["training"] = {"class_weight": "balanced"}

    def isotonic(raw: dict[str, Any]) -> None:
        regression(raw)
        raw["training"] = {"probabilities": "isotonic"}

    assert "training.class_weight 'balanced' needs classes" in said(tmp_path, balanced)
    assert "training.probabilities 'isotonic' is for binary, the task is regression" in said(tmp_path, isotonic)


@pytest.mark.parametrize("asked", ["f1", "prior", 0.3])
def test_a_threshold_is_for_binary(tmp_path: Path, asked: object) -> None:
    def binary(raw: dict[str, Any]) -> None:
        raw["training"] = {"threshold": asked}

    def regression(raw: dict[str, Any]) -> None:
        binary(raw)
        raw["label"] = {"column": "failed", "task": "regression"}
        raw["gates"]["metric"] = "rmse"

    assert loaded(tmp_path, binary).training.threshold == asked
    message = said(tmp_path, regression)
    assert f"training.threshold {asked!r} is for binary" in message
    assert "the task is regression: leave it out" in message


@pytest.mark.parametrize("asked", [0, 1, -0.1, 1.5, "best", None])
def test_a_threshold_lies_between_zero_and_one_or_is_a_rules_name(tmp_path: Path, asked: object) -> None:
    def changed(raw: dict[str, Any]) -> None:
        raw["training"] = {"threshold": asked}

    assert "training.threshold" in said(tmp_path, changed)


def test_columns_that_a_training_set_adds_are_not_a_tables_own(tmp_path: Path) -> None:
    def change(name: str, **training: str) -> Callable[[dict[str, Any]], None]:
        def changed(raw: dict[str, Any]) -> None:
            raw["tables"]["rows"]["columns"][name] = {"type": "float"}
            raw["features"]["numeric"] = ["load", name]
            raw["training"] = training

        return changed

    assert "tables: label is a training set's own column" in said(tmp_path, change("label"))
    assert "tables: weight is a training set's own column" in said(tmp_path, change("weight", sample_weight="load"))
    assert loaded(tmp_path, change("weight")).weight_table is None
    assert loaded(tmp_path, put("training.sample_weight", "load")).weight_table == "rows"


@pytest.mark.parametrize("metric", ["rmse", "accuracy"])
def test_a_gate_on_another_tasks_metric_is_refused_with_those_allowed(tmp_path: Path, metric: str) -> None:
    assert f"gates.metric '{metric}' is not for binary: auc, log_loss" in said(tmp_path, put("gates.metric", metric))


# Suites


def suite(tmp_path: Path, text: str, name: str = "common") -> None:
    """A file of expectations."""
    folder = tmp_path / "include" / "expectations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, "utf-8")


def test_a_suite_comes_before_the_tables_own_expectations(tmp_path: Path) -> None:
    suite(tmp_path, "- expect: column_values_to_be_between\n  kwargs: {column: load, min_value: 0}\n")

    def change(raw: dict[str, Any]) -> None:
        raw["tables"]["rows"]["suite"] = "common"
        raw["tables"]["rows"]["expectations"] = [{"expect": "column_values_to_be_in_set", "kwargs": {"column": "pump"}}]

    spec = loaded(tmp_path, change)
    names = [expectation.expect for expectation in spec.rows.expectations]
    assert names == ["column_values_to_be_between", "column_values_to_be_in_set"]
    assert spec.rows.expectations[0].kwargs == {"column": "load", "min_value": 0}
    assert spec.tables["labels"].expectations == ()


def test_an_empty_suite_is_no_expectation_and_a_missing_one_an_error(tmp_path: Path) -> None:
    suite(tmp_path, "")
    assert loaded(tmp_path, put("tables.rows.suite", "common")).rows.expectations == ()
    with pytest.raises(SpecError, match=r"other\.yaml: there is no such file"):
        loaded(tmp_path, put("tables.rows.suite", "other"))


def test_a_suite_outside_its_folder_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("- expect: column_values_to_be_secret\n", "utf-8")
    message = said(tmp_path, put("tables.rows.suite", "../../secret"))
    assert "tables.rows.suite: String should match pattern" in message


def test_a_mistake_in_a_suite_is_named(tmp_path: Path) -> None:
    suite(tmp_path, "- expect: __import__('os')\n")
    assert "tables.rows.expectations.0.expect" in said(tmp_path, put("tables.rows.suite", "common"))


# YAML itself


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch canary']\n",
        "name: !!python/name:os.system\n",
        "!!python/object:pathlib.Path {}\n",
    ],
)
def test_a_yaml_tag_that_would_run_code_is_refused_and_nothing_runs(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="not a YAML file that a spec may be: could not determine a constructor"):
        load_spec(write(tmp_path, text))
    assert not (tmp_path / "canary").exists()


def test_aliases_are_refused_before_they_multiply(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 30):
        laughs += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    with pytest.raises(SpecError, match="aliases are not allowed"):
        load_spec(write(tmp_path, laughs))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = yaml.safe_dump(RAW, sort_keys=False)
    with pytest.raises(SpecError, match="key given twice: owner"):
        load_spec(write(tmp_path, text + "owner: somebody-else\n"))
    with pytest.raises(SpecError, match="key given twice: bound"):
        load_spec(write(tmp_path, text.replace("  bound: 0.6", "  bound: 0.6\n  bound: 0.1")))


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the file is too large\. Allowed: 262144 bytes"):
        load_spec(write(tmp_path, "# " + "x" * 2**18 + "\n"))


@pytest.mark.parametrize("text", ["", "- a list\n", "just text\n", "12\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match="a spec is a mapping of keys"):
        load_spec(write(tmp_path, text))


@pytest.mark.parametrize(
    "text", ["name: [unclosed\n", "\tname: x\n", "a: b: c\n", "? [a, b]\n: c\n", "[" * 2000, "title: 2013-99-99\n"]
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match=r"pumps\.yaml"):
        load_spec(write(tmp_path, text))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes("owner: Müller\n".encode("latin-1"))
    with pytest.raises(SpecError, match="can't decode byte 0xfc"):
        load_spec(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: there is no such file"):
        load_spec(tmp_path / "nowhere.yaml")

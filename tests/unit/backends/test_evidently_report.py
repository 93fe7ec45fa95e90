import re
import socket

import numpy as np
import polars as pl
import pytest

from pipelines.backends.evidently_report import Evidently, compare
from pipelines.backends.psi import PopulationStability
from pipelines.errors import SchemaMismatch
from tests.unit.backends.test_psi import use_case

SPEC = use_case(numeric=("calm", "moved", "constant"), categorical=("steady", "other"))


def sample(seed, *, shift=0.0, letters="abc", rows=1500):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "calm": rng.normal(size=rows),
            "moved": rng.normal(size=rows) + shift,
            "constant": np.full(rows, 3.0),
            "steady": rng.choice(list("xyz"), rows),
            "other": rng.choice(list(letters), rows),
        }
    )


def flags(snapshot):
    """The columns whose PSI is at the threshold or above, as the report's numbers say."""
    values = {}
    for metric in snapshot.dict()["metrics"]:
        if found := re.match(r"ValueDrift\(column=(\w+),method=psi,threshold=0.25\)", metric["metric_name"]):
            values[found[1]] = float(metric["value"])
    return {name: value >= 0.25 for name, value in values.items()}


def test_an_obvious_drift_is_flagged_in_the_same_columns_as_by_the_exact_counts():
    before, now = sample(1), sample(2, shift=2.0, letters="bcd")
    detector = PopulationStability()
    scores = pl.DataFrame({"partition": "r", "score": [0.1, 0.9]})
    reference = detector.reference(SPEC, before.with_columns(partition=pl.lit("r")), scores)
    exact = detector.measure(SPEC, reference, now.lazy().with_columns(partition=pl.lit("p")))["p"]
    ours = {drift.column: drift.psi >= SPEC.drift.alarm for drift in exact}
    assert ours == {"calm": False, "moved": True, "constant": False, "steady": False, "other": True}
    assert flags(compare(SPEC, before, now)) == ours


def test_one_whole_page_is_written_and_replaces_the_one_before(tmp_path):
    html = tmp_path / "deep" / "drift.html"
    html.parent.mkdir()
    html.write_text("old")
    Evidently().write(SPEC, sample(1), sample(2), html)
    text = html.read_text("utf-8")
    assert len(text) > 100_000
    assert text.rstrip().endswith("</html>")
    for column in SPEC.features.columns:
        assert column in text
    assert list(html.parent.iterdir()) == [html]


def test_columns_without_values_on_one_side_are_left_out_and_missing_categories_are_not():
    before = sample(1, rows=200).with_columns(calm=pl.lit(None, pl.Float64))
    now = sample(2, rows=200).with_columns(other=pl.lit(None, pl.String))
    found = flags(compare(SPEC, before, now))
    assert "calm" not in found
    assert found["other"]


def test_nothing_leaves_the_machine_and_nothing_is_warned_about(tmp_path, monkeypatch, recwarn):
    def refuse(*args):
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    Evidently().write(SPEC, sample(1, rows=100), sample(2, rows=100), tmp_path / "drift.html")
    assert [str(warning.message) for warning in recwarn] == []


def test_empty_samples_and_missing_columns_are_refused_without_a_file(tmp_path):
    html = tmp_path / "drift.html"
    with pytest.raises(SchemaMismatch, match="no feature has a value on both sides"):
        Evidently().write(SPEC, sample(1), sample(2).clear(), html)
    with pytest.raises(SchemaMismatch, match="the current sample has no column other"):
        Evidently().write(SPEC, sample(1), sample(2).drop("other"), html)
    assert list(tmp_path.iterdir()) == []

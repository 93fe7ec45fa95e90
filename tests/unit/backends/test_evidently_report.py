import json
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


def write(html, before, now, **changes):
    run = {"workspace": html.parent / "workspace", "as_of": "2024-03-05", "champion": 3, **changes}
    Evidently().write(SPEC, before, now, html, **run)


def values(json_text):
    """PSI by column, as Evidently's JSON has it."""
    metrics = [metric for metric in json.loads(json_text)["metrics"] if metric["config"]["type"].endswith("ValueDrift")]
    assert {(metric["config"]["method"], metric["config"]["threshold"]) for metric in metrics} == {("psi", 0.25)}
    return {metric["config"]["column"]: metric["value"] for metric in metrics}


def exact(spec, before, now):
    """The PSI of the detector on the very same rows."""
    detector = PopulationStability()
    scores = pl.DataFrame({"partition": "r", "score": [0.1, 0.9]})
    reference = detector.reference(spec, before.with_columns(partition=pl.lit("r")), scores)
    measured = detector.measure(spec, reference, now.lazy().with_columns(partition=pl.lit("p")))["p"]
    return {drift.column: drift.psi for drift in measured}


def figures(before, now, spec=SPEC):
    return values(compare(spec, before, now, as_of="2024-03-05", champion=3).json())


def test_an_obvious_drift_is_flagged_in_the_same_columns_as_by_the_exact_counts():
    before, now = sample(1), sample(2, shift=2.0, letters="bcd")
    ours = {name: psi >= SPEC.drift.alarm for name, psi in exact(SPEC, before, now).items()}
    assert ours == {"calm": False, "moved": True, "constant": False, "steady": False, "other": True}
    assert {name: value >= SPEC.drift.alarm for name, value in figures(before, now).items()} == ours


#: Columns by what becomes of them, each with whether that is a drift.
KINDS = {
    "same": False,
    "skewed": False,  # the same heavy tail twice
    "discrete": False,
    "nudged": False,  # by a twentieth of its spread
    "shifted": True,
    "spread": True,  # twice as wide
    "two_humps": True,
    "stuck": True,
    "words": False,
    "rare": False,  # the share of the rare word doubles, to 4%
    "mixed": True,  # the shares change places
    "new_word": True,
    "emptied": True,  # a third of it is null now
}
WORDS = ("words", "rare", "mixed", "new_word", "emptied")


def constructed(seed, rows, *, later):
    rng = np.random.default_rng(seed)
    normal = {name: rng.normal(size=rows) for name in ("same", "nudged", "shifted", "spread", "two_humps", "stuck")}
    heavy = rng.gamma(2.0, size=rows)
    discrete = rng.integers(0, 12, rows).astype(float)
    shares = dict.fromkeys(("words", "mixed", "new_word", "emptied"), (0.5, 0.3, 0.2)) | {"rare": (0.6, 0.38, 0.02)}
    third = rng.random(rows) < 1 / 3
    if later:
        normal["nudged"] += 0.05
        normal["shifted"] += 1.0
        normal["spread"] *= 2
        normal["two_humps"] += np.where(third, 4.0, -1.0)
        normal["stuck"][:] = 0.1
        shares |= {"mixed": (0.2, 0.3, 0.5), "rare": (0.59, 0.37, 0.04)}
    words = {name: rng.choice(["a", "b", "c"], rows, p=shares[name]) for name in WORDS}
    if later:
        words["new_word"] = np.where(third, "d", words["new_word"])
    made = pl.DataFrame({**normal, "skewed": heavy, "discrete": discrete, **words})
    gone = pl.Series(third & later)
    return made.with_columns(emptied=pl.when(gone).then(None).otherwise("emptied"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_the_same_sample_our_psi_flags_the_same_columns_as_evidentlys(seed):
    spec = use_case(numeric=tuple(name for name in KINDS if name not in WORDS), categorical=WORDS)
    before, now = constructed(seed, 5000, later=False), constructed(100 + seed, 5000, later=True)
    ours, theirs = exact(spec, before, now), figures(before, now, spec)
    assert {name: psi >= spec.drift.alarm for name, psi in ours.items()} == KINDS
    assert {name: psi >= spec.drift.alarm for name, psi in theirs.items()} == KINDS
    # What is calm is no warning either, and a category's bins are the same on both sides.
    calm = [name for name, drifted in KINDS.items() if not drifted]
    assert all(psi[name] < spec.drift.warn for psi in (ours, theirs) for name in calm)
    for name in ("words", "rare", "mixed"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-9)


def test_a_spike_within_one_of_evidentlys_wide_bins_is_seen_by_the_exact_counts_alone():
    """Its bins are equally wide: of a long tail nearly all rows are in the first few."""
    rng = np.random.default_rng(1)
    spec = use_case(numeric=("zeros",), categorical=())
    before, now = (pl.DataFrame({"zeros": rng.exponential(size=5000)}) for _ in range(2))
    now = now.with_columns(zeros=pl.when(pl.Series(rng.random(5000) < 1 / 3)).then(0.0).otherwise("zeros"))
    assert exact(spec, before, now)["zeros"] >= spec.drift.alarm
    assert figures(before, now, spec)["zeros"] < spec.drift.alarm


def test_a_whole_page_and_its_figures_are_written_and_replace_those_before(tmp_path):
    html = tmp_path / "deep" / "drift.html"
    html.parent.mkdir()
    html.write_text("old")
    html.with_suffix(".json").write_text("old")
    write(html, sample(1), sample(2), workspace=tmp_path / "workspace")
    text = html.read_text("utf-8")
    assert len(text) > 100_000
    assert text.rstrip().endswith("</html>")
    for column in SPEC.features.columns:
        assert column in text
    assert sorted(html.parent.iterdir()) == [html, html.with_suffix(".json")]


def test_the_json_says_of_each_column_what_a_slow_count_says_and_is_the_same_every_time(tmp_path):
    before, now = sample(1), sample(2, shift=0.7, letters="abcc")
    html = tmp_path / "drift.html"
    write(html, before, now)
    told = html.with_suffix(".json").read_text("utf-8")
    found = values(told)
    assert list(found) == list(SPEC.features.columns)
    edges = np.histogram_bin_edges(np.concatenate([before["moved"], now["moved"]]), bins="sturges")
    q, p = (np.histogram(side["moved"], edges)[0] / side.height for side in (before, now))
    q[q == 0], p[p == 0] = (
        1e-6 * share[share > 0].min() if share[share > 0].min() <= 1e-4 else 1e-4 for share in (q, p)
    )
    assert found["moved"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=1e-9)
    q, p = (np.array([(side["other"] == word).sum() for word in "abc"]) / side.height for side in (before, now))
    assert found["other"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=1e-9)
    assert found["constant"] == 0.0
    # The page's table has the same columns with the same figures and verdicts, rounded to six places.
    page = html.read_text("utf-8")
    names = re.findall(r'"column_name": "(\w+)", "column_type"', page)
    verdicts = re.findall(r'"data_drift": "(Detected|Not Detected)", "drift_score": ([^},]+)[},]', page)
    shown = {
        name: (verdict == "Detected", float(score)) for name, (verdict, score) in zip(names, verdicts, strict=True)
    }
    assert shown == {name: (value >= SPEC.drift.alarm, round(value, 6)) for name, value in found.items()}
    drifted = sum(value >= SPEC.drift.alarm for value in found.values())
    counted = json.loads(told)["metrics"][0]["value"]
    assert counted == {"count": drifted, "share": drifted / len(found)}
    write(html, before, now)
    assert html.with_suffix(".json").read_text("utf-8") == told
    write(html, before, sample(3))
    assert html.with_suffix(".json").read_text("utf-8") != told


def test_columns_without_values_on_one_side_are_left_out_and_missing_categories_are_not():
    before = sample(1, rows=200).with_columns(calm=pl.lit(None, pl.Float64))
    now = sample(2, rows=200).with_columns(other=pl.lit(None, pl.String))
    found = figures(before, now)
    assert "calm" not in found
    assert found["other"] >= SPEC.drift.alarm


def test_infinite_values_are_left_out_as_missing_ones_are():
    before, now = sample(1), sample(2)
    spoiled = now.with_columns(calm=pl.when(pl.int_range(pl.len()) == 0).then(float("inf")).otherwise("calm"))
    missing = now.with_columns(calm=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("calm"))
    assert figures(before, spoiled) == figures(before, missing)


def test_nothing_leaves_the_machine_and_nothing_is_warned_about(tmp_path, monkeypatch, recwarn):
    def refuse(*args):
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    write(tmp_path / "drift.html", sample(1, rows=100), sample(2, rows=100))
    assert (tmp_path / "workspace").is_dir()
    assert [str(warning.message) for warning in recwarn] == []


def test_empty_samples_and_missing_columns_are_refused_without_a_file(tmp_path):
    html = tmp_path / "drift.html"
    with pytest.raises(SchemaMismatch, match="no feature has a value on both sides"):
        write(html, sample(1), sample(2).clear())
    with pytest.raises(SchemaMismatch, match="the current sample has no column other"):
        write(html, sample(1), sample(2).drop("other"))
    assert list(tmp_path.iterdir()) == []

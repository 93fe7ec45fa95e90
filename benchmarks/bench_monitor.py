"""One night of the monitor, `observe` and `decide`, cold and warm, beside Evidently's drift of the same window.

The real flights of a window, scored by a champion; what the champion learned matters to no clock, so its training is
small. Cold is a fresh process from its start to its end, imports included; warm is a process that did a night before,
and opens everything anew for each of the two steps, as two tasks of a warm worker do. The Evidently report that people
read is a task of its own, and is in neither. Files are in the page cache, for both sides.

Limits and predictions, written before measuring:

- Warm, a night reads the footers of a window's partitions, labels and scores of 31 x 900 rows, and makes the features
  of one night twice for the check of skew: under 1 s. Limit: 2 s.
- Cold, that and the imports of Polars, delta-rs, MLflow and SQLAlchemy, 4 s: under 6 s. Limit: 10 s.
- Evidently compares 31 nights with the reference's sample once, and imports for 7 to 13 s: 3 s warm, 15 s cold.

Smaller: OVERNIGHT_BENCH_MONITOR_WINDOW=5.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks.harness import Result
from include.landing import flights
from pipelines import artifacts
from pipelines.partitions import shift, span
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.steps.features import build_features
from pipelines.steps.inputs import heads
from pipelines.steps.training import SAMPLE

_REPOSITORY = Path(__file__).resolve().parents[1]
_WINDOW = int(os.environ.get("OVERNIGHT_BENCH_MONITOR_WINDOW", "31"))
#: The newest night that the champion's training may use; labels mature after a day.
_FIRST, _TRAINED = "2013-06-01", "2013-06-20"
#: Nights that are looked at: two cold, one that makes the process warm, and three warm.
_COLD, _WARM = 2, 3

_SMALL: dict[str, Any] = {
    "training": {
        "teacher": {"k": 2, "width": 32, "depth": 1, "bins": 8, "epochs": 1, "batch_rows": 512},
        "student": {"widths": [32], "epochs": 1, "batch_rows": 512},
        "calibration_rows": 512,
        "validation": 3,
        "holdout": 3,
    },
    "gates": {
        "bound": 0.01,
        "margin_over_champion": -1.0,
        "golden": [],
        "max_slice_loss": 9.0,
        "max_calibration_error": 1.0,
        "max_loss_to_lightgbm": 9.0,
        "max_loss_to_fp32": 9.0,
        "max_single_feature": 1.0,
        "sanity": {"max_collapse": 1.0, "max_same": 1.0, "max_feature_share": 1.0, "min_distinct": 1},
    },
    "drift": {"window": _WINDOW},
}

_OURS = """
import json, sys, time
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
took = []
for night in sys.argv[1:]:
    begun = time.perf_counter()
    run = RunInfo(run_id=f"bench-{night}", dag_id="flights_monitor", code_version="bench")
    seen = Runtime.open("flights", run=run).observe(night)
    decision = Runtime.open("flights", run=run).decide(seen)
    took.append(time.perf_counter() - begun)
    assert decision.as_of == night and all(each.drift for each in seen.window), seen
print(json.dumps(took))
"""

_EVIDENTLY = """
import json, sys, time
from pathlib import Path
import polars as pl
from benchmarks.evidently_peer import Peer
from pipelines.spec import load_spec
spec, took = load_spec(Path(sys.argv[1])), []
for _ in range(int(sys.argv[4])):
    begun = time.perf_counter()
    Peer.of(spec, pl.read_parquet(sys.argv[2]), pl.read_parquet(sys.argv[3])).flagged()
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""


def measure() -> list[Result]:
    """Cold and warm, against the limits and against the peer."""
    nights = span(shift(_TRAINED, _WINDOW, "day"), shift(_TRAINED, _WINDOW + _COLD + _WARM, "day"), "day")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spec = _project(root / "project")
        settings = Settings(project=root / "project", home=root / "var", code_version="bench")
        _scored(settings, nights[-1])
        sides = _sides(settings, nights[-1], root)
        environment = {
            **os.environ,
            "OVERNIGHT_PROJECT": str(settings.project),
            "OVERNIGHT_HOME": str(settings.home),
            "OVERNIGHT_CODE_VERSION": "bench",
            "DO_NOT_TRACK": "1",
        }
        cold = min(_process(_OURS, [night], environment)[0] for night in nights[:_COLD])
        warm = min(_process(_OURS, nights[_COLD:], environment)[1][1:])
        arguments = [str(spec), *map(str, sides)]
        peer_cold = min(_process(_EVIDENTLY, [*arguments, "1"], environment)[0] for _ in range(_COLD))
        peer_warm = min(_process(_EVIDENTLY, [*arguments, str(1 + _WARM)], environment)[1][1:])
        rows = [pl.scan_parquet(side).select(pl.len()).collect().item() for side in sides]
    night = f"observe and decide, {_WINDOW} nights of flights"
    evidently = (
        f"peer: Evidently DataDriftPreset() on the same window's {rows[1]:,} rows and {rows[0]:,} of the reference"
    )
    return [
        _result("monitor_cold", cold, 10.0, 1, f"{night}, a fresh process; peer: the limit"),
        _result("monitor_warm", warm, 2.0, 1, f"{night}, the same process again; peer: the limit"),
        _result("monitor_cold_vs_evidently", cold, peer_cold, None, f"{night}, fresh processes; {evidently}"),
        _result("monitor_warm_vs_evidently", warm, peer_warm, None, f"{night}, the same process again; {evidently}"),
    ]


def _result(name: str, ours: float, peer: float, goal: float | None, note: str) -> Result:
    return Result(name=name, ours=ours, peer=peer, unit="s", goal=goal, note=note)


def _process(script: str, arguments: list[str], environment: dict[str, str]) -> tuple[float, list[float]]:
    """Seconds of a fresh process from start to end, and what it says of its parts."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, check=False, cwd=_REPOSITORY, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - begun
    assert done.returncode == 0, done.stderr[-2000:]
    return took, json.loads(done.stdout.splitlines()[-1])


def _project(folder: Path) -> Path:
    """The shipped flights with a small training and gates that let it pass; gives the spec's file."""
    raw = yaml.safe_load((_REPOSITORY / "include" / "use_cases" / "flights.yaml").read_text("utf-8"))
    for section, values in _SMALL.items():
        raw[section] = {**raw[section], **values}
    path = folder / "include" / "use_cases" / "flights.yaml"
    path.parent.mkdir(parents=True)
    (folder / "include" / "expectations").symlink_to(_REPOSITORY / "include" / "expectations")
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return path


def _scored(settings: Settings, last: str) -> None:
    """History, a champion, and the scores of every night after its training, made without Airflow."""
    flights.lay_out(settings.landing_zone, _FIRST, shift(last, 1, "day"))
    runtime = Runtime.open("flights", run=RunInfo(run_id="bench"), settings=settings)
    for table in runtime.tables():
        runtime.publish(runtime.validate(runtime.land(table, runtime.span(_FIRST, last))))
    assert runtime.challenge(_TRAINED, "bench") is not None, "the gates refused the champion"
    scored = runtime.score(runtime.span(shift(_TRAINED, 1, "day"), last))
    runtime.publish_scores(runtime.audit_scores(scored))


def _sides(settings: Settings, last: str, root: Path) -> tuple[Path, Path]:
    """The features of the champion's sample and of all rows of the window, as files for the peer."""
    runtime = Runtime.open("flights", run=RunInfo(run_id="bench"), settings=settings)
    model, spec = runtime.model(), runtime.spec
    (sampled,) = artifacts.read(runtime.registry.fetch(model), model.digest, SAMPLE)
    window = span(shift(last, 1 - _WINDOW, "day"), last, "day")
    tables = list(dict.fromkeys(("rows", *spec.context)))
    rows = build_features(spec, runtime.store, heads(spec, runtime.store, tables), window).collect()
    sides = root / "reference.parquet", root / "current.parquet"
    sides[0].write_bytes(sampled)
    rows.select(spec.features.columns).write_parquet(sides[1])
    return sides

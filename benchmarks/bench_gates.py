"""Gates: everything that is measured of two models on 200,000 rows, judged; and how often the verdict is wrong.

The limit of the bootstrap is memory: a resample draws 200,000 counts, and gathers and sums them once a model.
Prediction, written before measuring, from its parts on one core: 0.35 ms for the counts and 0.5 ms a model, so 1.4 s
for 1,000 paired resamples, 0.8 s on two cores. scikit-learn sorts each resample anew: 60 ms a resample of two models,
so 60 times that. Scoring the rows twice takes 0.1 s, the search for the worst slice under a second: below the 5 s that
are aimed at.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl

from benchmarks.challengers import simulate
from benchmarks.harness import Result, publish, seconds
from pipelines import artifacts
from pipelines.backends.delta import DeltaStore
from pipelines.backends.fairlearn_audit import Fairlearn
from pipelines.machine import usable_cores
from pipelines.parquet import sha256
from pipelines.policies.gates import evaluate_gates
from pipelines.ports import Draft, ModelRegistry, SnapshotStore
from pipelines.records import Holdout, ModelRef, Scorecard, SnapshotRef, TrainedModel, TrainingSet
from pipelines.resampling import paired_gain
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase, load_spec
from pipelines.steps.evaluation import evaluate
from pipelines.training.job import Job

_ROWS, _TRAIN, _RESAMPLES, _PEER_RESAMPLES = 200_000, 8000, 1000, 10
_BUDGET = 5.0
#: Of the simulation: true gains of the AUC over the margin, challengers each, holdout rows.
_GAINS, _TRIALS, _SIMULATED, _MARGIN = (-0.01, 0.0, 0.01, 0.02, 0.03), 200, 2000, 0.01
#: Resamples of the simulation: more of them narrow no interval.
_FEWER = 300


def _spec() -> UseCase:
    """The flights' use case as it ships, its networks trained for one epoch."""
    flights = load_spec(Path(__file__).resolve().parents[1] / "include" / "use_cases" / "flights.yaml")
    teacher = flights.training.teacher.model_copy(update={"epochs": 1, "k": 2})
    training = flights.training.model_copy(
        update={"teacher": teacher, "student": flights.training.student.model_copy(update={"epochs": 1})}
    )
    gates = flights.gates.model_copy(update={"resamples": _RESAMPLES, "detectable": 0.02})
    return flights.model_copy(update={"training": training, "gates": gates})


def _rows(spec: UseCase, count: int, seed: int, day: str) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    numeric = {name: generator.normal(size=count).astype(np.float32) for name in spec.features.numeric}
    words = dict.fromkeys(spec.features.categorical, 30) | {"origin": 3, "carrier": 16, "weekday": 7}
    text = {name: generator.choice([f"w{i:02d}" for i in range(many)], count) for name, many in words.items()}
    label = (sum(list(numeric.values())[:3]) + 2 * generator.normal(size=count) > 1).astype(np.float32)
    keys = [f"{day}-{i}" for i in range(count)]
    return pl.DataFrame({"partition": [day] * count, "flight_id": keys, **numeric, **text, "label": label})


def measure() -> list[Result]:
    """The whole, its bootstrap alone, and the share of challengers that are judged as they should be."""
    spec = _spec()
    with tempfile.TemporaryDirectory() as folder:
        return [*_timed(spec, Path(folder)), *_power(spec)]


def _timed(spec: UseCase, root: Path) -> list[Result]:
    store = DeltaStore(root / "snapshots", spec.name, root / "cache")
    days = {"train": "2013-08-01", "validation": "2013-08-02", "holdout": "2013-08-03", "rows": "2013-08-04"}
    # A training measures many models on its own holdout: a small one. The two meet on later rows, as by hand.
    counts = {"train": _TRAIN, "validation": 4000, "holdout": 4000, "rows": _ROWS}
    data = root / "data"
    data.mkdir()
    for i, (part, day) in enumerate(days.items()):
        frame = _rows(spec, counts[part], i, day)
        frame.write_parquet(data / f"{part}.parquet")
        publish(store, Draft(partition=day, frame=frame.drop("partition")), run=part)
    head = store.head("rows")
    assert head is not None
    challenger = _trained(spec, data, root / "challenger", days, counts, head)
    reseeded = spec.model_copy(update={"training": spec.training.model_copy(update={"seed": 8})})
    rival = _trained(reseeded, data, root / "champion", days, counts, head)
    registry = cast("ModelRegistry", SimpleNamespace(fetch=lambda _: Path(rival.folder)))
    path = data / "rows.parquet"
    holdout = Holdout(
        path=str(path),
        partitions=(days["rows"], days["rows"]),
        as_of="2013-08-05",
        snapshots=(head,),
        rows=_ROWS,
        digest=sha256(path),
    )
    champion = ModelRef(name=spec.name, version=1, run_id="bench", digest=rival.digest)

    def whole() -> tuple[Any, Any]:
        found = evaluate(spec, cast("SnapshotStore", store), registry, Fairlearn(), champion, challenger, holdout)
        return found, evaluate_gates(found, spec)

    found, report = whole()
    for gate in report.gates:
        print(f"  {gate.name}: {gate.reason}", file=sys.stderr)
    # Whichever of the two is better: what counts is that nothing of this was skipped.
    assert {gate.name for gate in report.gates if gate.passed} >= {"comparable", "rows"}, report.reason
    assert "quality" not in found.errors, found.errors
    assert found.comparisons[0].worst is not None
    took = seconds(whole, repeats=2)
    frame = pl.read_parquet(path)
    label = frame.get_column("label").to_numpy()
    mine, other = (Engine(Path(model.folder)).score(frame) for model in (challenger, rival))
    ours = seconds(lambda: _gain(label, mine, other, _RESAMPLES), repeats=2) / _RESAMPLES
    text = f"{_ROWS:,} rows, {usable_cores()} cores"
    return [
        Result(
            name="gates_whole_evaluation",
            ours=took,
            peer=_BUDGET,
            unit="s",
            goal=1,
            note=f"{text}: two models scored, {_RESAMPLES} resamples, slices, all parts and gates; peer: the aim",
        ),
        Result(
            name="bootstrap_vs_sklearn",
            ours=ours,
            peer=_sklearn(label, mine, other),
            unit="s",
            goal=20,
            note=f"{text}: one paired resample of the AUC; peer: roc_auc_score on repeated rows, twice",
        ),
    ]


def _gain(label: Any, mine: Any, other: Any, resamples: int) -> Any:
    return paired_gain("binary", "auc", label, mine, other, level=0.95, resamples=resamples, seed=1)


def _sklearn(label: Any, mine: Any, other: Any) -> float:
    """Seconds of one paired resample by roc_auc_score on rows drawn with replacement; the deviations must agree."""
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(3)
    gains, begun = [], time.perf_counter()
    for _ in range(_PEER_RESAMPLES):
        rows = generator.integers(0, len(label), len(label))
        gains.append(roc_auc_score(label[rows], mine[rows]) - roc_auc_score(label[rows], other[rows]))
    took = (time.perf_counter() - begun) / _PEER_RESAMPLES
    # Ten resamples tell a deviation to about a quarter.
    ratio = float(np.std(gains, ddof=1)) / _gain(label, mine, other, _RESAMPLES).deviation
    assert 0.3 < ratio < 2, f"scikit-learn's deviation is {ratio:.2f} times ours"
    return took


def _trained(
    spec: UseCase, data: Path, out: Path, days: dict[str, str], counts: dict[str, int], head: SnapshotRef
) -> TrainedModel:
    """A sealed artifact of this data, as `steps.training` seals one but for the drift reference."""
    from pipelines.training import entry

    entry.run(Job(spec=spec, data=data, out=out, threads=1), lambda _: None)
    stretch = {part: (days[part], days[part]) for part in ("train", "validation", "holdout")}
    training_set = TrainingSet(
        use_case=spec.name,
        folder=str(data),
        as_of="2013-08-04",
        snapshots=(head,),
        rows={part: counts[part] for part in stretch},
        digest="0" * 64,
        reads={"rows": ((days["train"], days["holdout"]),)},
        **stretch,
    )
    (out / "provenance.json").write_text(training_set.model_dump_json(exclude={"folder"}), "utf-8")
    cards = tuple(Scorecard.model_validate(card) for card in json.loads((out / "scorecards.json").read_text("utf-8")))
    digest = artifacts.seal(out)
    return TrainedModel(
        folder=str(out), digest=digest, run_id="bench", training_set=training_set, scorecards=cards, seconds=0.0
    )


def _power(spec: UseCase) -> list[Result]:
    """Shares of simulated challengers, of each true gain, against what the gate declares and the textbook expects."""
    gates = spec.gates.model_copy(update={"margin_over_champion": _MARGIN, "resamples": _FEWER})
    spec = spec.model_copy(update={"gates": gates})
    level, results = gates.confidence, []
    for over in _GAINS:
        found = simulate(spec, _MARGIN + over, rows=_SIMULATED, trials=_TRIALS, seed=17)
        note = f"{_TRIALS} challengers, {_SIMULATED:,} rows, margin {_MARGIN} AUC, true gain {_MARGIN + over:.2f}"
        naive = f"a comparison of two figures promotes {found.naive:.1%}"
        if over <= 0:
            # Two binomial deviations below the declared share are luck.
            lucky = level - 2 * (level * (1 - level) / _TRIALS) ** 0.5
            name = f"gate_refuses_{'at' if over == 0 else 'below'}_the_margin"
            ours, peer, goal, who = 1 - found.promoted, level, lucky / level, "the declared level"
        else:
            name, ours, peer, goal = f"gate_promotes_{over:.2f}_past_it", found.promoted, None, None
            peer, who = found.expected(_MARGIN, level), "the textbook's power of a normal gain of that spread"
        results.append(
            Result(name=name, ours=ours, peer=peer, unit="share", goal=goal, note=f"{note}; peer: {who}; {naive}")
        )
    return results

"""When to retrain: the policy of flights against never, monthly and nightly, over the real nights of June to December.

    python -m benchmarks.study_retraining

Every night D is scored by a model that was trained as of an earlier night, on all flights before it whose outcome was
known; then the night's outcomes are known too. What is compared is when a new model is trained:

    never      once, as of 2013-05-31
    policy     when `policies.retraining.decide` says yes on what a monitor run would have seen: the metric of the spec
               on the champion's matured labels of the window, with its interval by nights, and the decisions before
    policy_30  the same, and when the champion is 30 nights old (`max_age`)
    monthly    as of the last day of each month
    nightly    as of every day

Models are LightGBM as the gates have it, with the spec's split, early stopping and seed, since 214 trainings of the
network would take hours. A model of the policy is promoted when its AUC on the holdout is no more than
`margin_over_champion` below the champion's, in figures and not by the gate's interval; the others are always promoted.
Input and score drift are not looked at, since the flights' policy does not count them. One training serves every arm
that asks for its night.

It is no part of `make bench`: it takes about 20 minutes. OVERNIGHT_STUDY_LAST=2013-06-30 ends it earlier.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks import flights_year
from pipelines import partitions
from pipelines.metrics import metrics
from pipelines.policies.retraining import decide
from pipelines.records import ModelRef, Observation, Observations, RetrainDecision, TrainingOutcome
from pipelines.settings import Settings
from pipelines.spec import UseCase
from pipelines.steps.watching.quality import measured, over_nights
from pipelines.training import prepare
from pipelines.training.baselines import LightGbm
from pipelines.training.data import Table, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.records import Estimate

_FIRST, _LAST = "2013-06-01", os.environ.get("OVERNIGHT_STUDY_LAST", "2013-12-30")


@dataclass
class Model:
    """One training."""

    as_of: str
    newest: str
    """The newest day that it learned from, its holdout included."""
    trees: LightGbm
    seconds: float
    """CPU seconds of the fit."""
    holdout: dict[str, float]


@dataclass
class Arm:
    """One way of retraining: what was scored, and what it cost."""

    name: str
    scored: list[tuple[str, NDArray[np.float64]]] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Study:
    """The year, its models by night, and the arms that are played over it."""

    def __init__(self, spec: UseCase, folder: Path) -> None:
        self.spec, self._folder = spec, folder
        self._year = flights_year.year(spec).sort("partition", maintain_order=True)
        self.days = self._year.get_column("partition").unique(maintain_order=True).to_list()
        self._tables: dict[str, Table] = {}
        self._models: dict[str, Model] = {}

    def table(self, first: str, last: str) -> Table:
        """The flights of days, ends included."""
        key = f"{first}_{last}"
        path = self._folder / "part.parquet"
        self._year.filter(pl.col("partition").is_between(pl.lit(first), pl.lit(last))).write_parquet(path)
        if first != last:
            return read(self.spec, path)
        if key not in self._tables:
            self._tables[key] = read(self.spec, path)
        return self._tables[key]

    def model(self, as_of: str) -> Model:
        """The model trained as of a day, of whose own flights no outcome is known yet."""
        if as_of not in self._models:
            known = [day for day in self.days if day < as_of]
            training = self.spec.training
            split = len(known) - training.holdout - training.validation
            train = self.table(known[0], known[split - 1])
            validation = self.table(known[split], known[split + training.validation - 1])
            holdout = self.table(known[split + training.validation], known[-1])
            begun = time.process_time()
            trees = LightGbm(
                "binary", 1, prepare.fit(train), train, validation, 1, training.seed, metric=self.spec.gates.metric
            )
            took = time.process_time() - begun
            found = metrics("binary", holdout.label, trees(holdout))
            self._models[as_of] = Model(as_of=as_of, newest=known[-1], trees=trees, seconds=took, holdout=found)
        return self._models[as_of]

    def auc_on_holdout(self, model: Model, champion: Model) -> float:
        """The champion's AUC on the challenger's holdout."""
        first = self.days[self.days.index(model.newest) - self.spec.training.holdout + 1]
        holdout = self.table(first, model.newest)
        return metrics("binary", holdout.label, champion.trees(holdout))["auc"]

    def rows(self, first: str, last: str) -> int:
        """Labelled flights of days."""
        return self._year.filter(pl.col("partition").is_between(pl.lit(first), pl.lit(last))).height


def _score(study: Study, arm: Arm, model: Model, day: str) -> None:
    arm.scored.append((day, model.trees(study.table(day, day))))


def scheduled(study: Study, name: str, when: set[str]) -> Arm:
    """An arm that retrains on given nights."""
    arm, champion = Arm(name), None
    for day in [partitions.shift(_FIRST, -1, "day"), *[each for each in study.days if _FIRST <= each <= _LAST]]:
        if day >= _FIRST:
            assert champion is not None
            _score(study, arm, champion, day)
        if champion is None or day in when:
            champion = study.model(day)
            if day >= _FIRST:
                arm.trained.append(day)
                arm.seconds += champion.seconds
    return arm


def by_policy(study: Study, name: str, max_age: int | None) -> tuple[Arm, list[RetrainDecision]]:
    """An arm of `decide`."""
    policy = study.spec.retraining.model_copy(update={"max_age": max_age})
    arm, spec = Arm(name), study.spec.model_copy(update={"retraining": policy})
    champion, version = study.model(partitions.shift(_FIRST, -1, "day")), 1
    past: list[RetrainDecision] = []
    outcomes: list[TrainingOutcome] = []
    mine: dict[str, pl.DataFrame] = {}
    quality: dict[str, Estimate | None] = {}
    for day in [each for each in study.days if _FIRST <= each <= _LAST]:
        _score(study, arm, champion, day)
        scores = arm.scored[-1][1]
        label = study.table(day, day).label
        mine[day] = pl.DataFrame({"score": scores.astype(np.float32), "label": label.astype(np.float32)})
        quality[day] = measured(spec, mine[day])
        window = partitions.span(partitions.shift(day, 1 - spec.drift.window, "day"), day, "day")
        observed = []
        for key in window:
            ripens = key in mine and key < day  # labels mature after a day
            observed.append(
                Observation(
                    partition=key,
                    rows=study.rows(key, key),
                    state="observed" if key in mine else "not_scored",
                    labels=mine[key].height if ripens else 0,
                    quality=quality[key] if ripens else None,
                )
            )
        ripe = [mine[key] for key in window if key in mine and key < day]
        live = over_nights(
            spec,
            measured(spec, pl.concat(ripe)) if ripe else None,
            [each.quality for each in observed if each.quality is not None],
        )
        seen = Observations(
            use_case=spec.name,
            as_of=day,
            champion=ModelRef(name=spec.name, version=version, run_id=champion.as_of, digest="0" * 64),
            champion_as_of=champion.as_of,
            champion_metric=champion.holdout[spec.watched_metric],
            metric=spec.watched_metric,
            greater_is_better=False,
            window=tuple(observed),
            live=live,
            live_labels=sum(each.height for each in ripe),
            new_labels=study.rows(partitions.shift(champion.newest, 1, "day"), partitions.shift(day, -1, "day")),
        )
        tried = [
            each.model_copy(
                update={
                    "new_labels": study.rows(partitions.shift(each.newest, 1, "day"), partitions.shift(day, -1, "day"))
                }
            )
            for each in outcomes
        ]
        decision = decide(seen, spec, past=past, trainings=tried, backfill=False)
        past.append(decision)
        if not decision.retrain:
            continue
        challenger = study.model(day)
        arm.trained.append(day)
        arm.seconds += challenger.seconds
        gain = challenger.holdout["auc"] - study.auc_on_holdout(challenger, champion)
        promoted = gain >= spec.gates.margin_over_champion
        outcomes.append(TrainingOutcome(as_of=day, newest=challenger.newest, promoted=promoted, refused=not promoted))
        if promoted:
            champion, version, mine = challenger, version + 1, {}
    return arm, past


def told(study: Study, arm: Arm) -> dict[str, float | int | str]:
    """What an arm came to over all nights."""
    label = np.concatenate([study.table(day, day).label for day, _ in arm.scored])
    score = np.concatenate([scores for _, scores in arm.scored])
    whole = metrics("binary", label, score)
    nightly = [metrics("binary", study.table(day, day).label, scores)["auc"] for day, scores in arm.scored]
    return {
        "arm": arm.name,
        "nights": len(arm.scored),
        "trainings": len(arm.trained),
        "cpu_seconds": round(arm.seconds, 1),
        "auc": round(whole["auc"], 4),
        "mean_nightly_auc": round(float(np.mean(nightly)), 4),
        "log_loss": round(whole["log_loss"], 4),
    }


def main() -> None:
    """Plays the arms and prints one JSON object each, then each retraining of the policy with its reason."""
    spec = flights_year.spec()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(spec, Path(folder))
        days = [day for day in study.days if _FIRST <= day <= _LAST]
        ends = {day for day in days if partitions.shift(day, 1, "day").endswith("-01")}
        found = [told(study, scheduled(study, "never", set()))]
        print(json.dumps(found[-1]), flush=True)
        for name, max_age in (("policy", spec.retraining.max_age), ("policy_30", 30)):
            arm, decisions = by_policy(study, name, max_age)
            found.append(told(study, arm))
            print(json.dumps(found[-1]), flush=True)
            for decision in decisions:
                if decision.retrain:
                    loud = "; ".join(signal.told for signal in decision.signals if signal.level == "alarm")
                    print(f"  {decision.as_of}: {loud}", flush=True)
        for name, when in (("monthly", ends), ("nightly", set(days))):
            found.append(told(study, scheduled(study, name, when)))
            print(json.dumps(found[-1]), flush=True)
    target = Settings().home / "bench" / "retraining.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

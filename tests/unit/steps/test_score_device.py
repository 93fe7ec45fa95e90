"""A night is scored by what its spec says, and by nothing else that a worker happens to have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pipelines.errors import SpecError, UnavailableError
from pipelines.ports import Draft
from pipelines.records import ScorePlan
from pipelines.runtime import Runtime
from pipelines.scoring import engine
from pipelines.scoring.torch_session import TorchSession
from tests.cases.champions import AS_OF, Champions
from tests.contracts.stores import RUN, audit

from .test_score_bytes import rows

if TYPE_CHECKING:
    import polars as pl

DAYS = {"2024-06-01": 1000, "2024-06-02": 1, "2024-06-03": 9000}
NETWORK = {
    "model": "tabm",
    "teacher": {"k": 2, "width": 32, "depth": 1, "epochs": 1},
    "student": {"widths": [32, 16], "epochs": 2},
    "sensitive_layers": "int8",
}


class Night:
    """Rows that nobody has scored, and plans by two models."""

    def __init__(self, runtime: Runtime, champions: Champions) -> None:
        drafts = [Draft(partition=day, frame=rows(count, seed)) for seed, (day, count) in enumerate(DAYS.items())]
        staged = runtime.store.stage("rows", drafts, RUN)
        runtime.store.publish("rows", staged, [audit(part) for part in staged], RUN)
        trained = runtime.train(runtime.build_training_set(AS_OF))
        evaluation = champions.evaluation.model_copy(update={"challenger_run": trained.run_id})
        network = runtime.register(trained, evaluation, champions.report).version
        self.runtime = runtime
        self.trees, self.network = (runtime.plan_scores(list(DAYS), version)[0] for version in (1, network))

    def on(self, device: str, plan: ScorePlan, tile_rows: int = 8192) -> dict[str, tuple[str, pl.DataFrame]]:
        """Digest and rows of each staged partition."""
        told = self.runtime
        scoring = told.spec.scoring.model_copy(update={"device": device, "tile_rows": tile_rows})
        runtime = Runtime(told.spec.model_copy(update={"scoring": scoring}), told.settings, told.run)
        staged = runtime.score_plan(plan).staged
        return {part.partition: (part.digest, runtime.store.read_staged(part).collect()) for part in staged}


@pytest.fixture(scope="module")
def night(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Night:
    champions = registered.copy(tmp_path_factory.mktemp("device"), training=NETWORK)
    return Night(champions.runtime(), champions)


@pytest.fixture
def on_torch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets torch compute on the processor what is asked of a GPU; gives the devices that were asked for."""
    asked: list[str] = []

    def made(model: bytes, device: str) -> TorchSession:
        asked.append(device)
        return TorchSession(model, "cpu")

    monkeypatch.setattr(engine, "TorchSession", made)
    return asked


def test_the_devices_files_differ_in_scores_alone_and_are_the_same_bytes_for_any_tile(
    night: Night, on_torch: list[str]
) -> None:
    plain = night.on("cpu", night.network)
    assert on_torch == []
    found, cut = night.on("cuda", night.network), night.on("cuda", night.network, tile_rows=64)
    assert on_torch == ["cuda", "cuda"]
    for day, (digest, frame) in found.items():
        other = plain[day][1]
        assert digest == cut[day][0]
        assert frame.height == DAYS[day]
        assert frame.drop("score", "prediction").equals(other.drop("score", "prediction"))
        gap = np.abs(frame["score"].to_numpy() - other["score"].to_numpy())
        # A value between two steps of int8 may be rounded to the other one.
        assert (gap > 1e-5).mean() <= 0.01
        assert gap.max() < 0.02


def test_trees_on_a_gpu_are_refused_with_what_helps(night: Night, on_torch: list[str]) -> None:
    with pytest.raises(SpecError, match=r"TreeEnsemble.*scored on the cpu: scoring\.device: cpu"):
        night.on("cuda", night.trees)


def test_a_gpu_is_used_only_when_asked_for_and_its_absence_is_told(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has: has)
        digests.append({day: digest for day, (digest, _) in night.on("cpu", night.network).items()})
    assert digests[0] == digests[1]
    with pytest.raises(UnavailableError, match=r"scoring\.device: cuda is asked for.*no GPU"):
        night.on("cuda", night.network)

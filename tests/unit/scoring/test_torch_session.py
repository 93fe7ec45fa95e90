"""The session of a GPU, on the processor: ONNX Runtime's scores of the same bytes, whatever lies beside a row.

How near: sums of integers are exact, and what is left differs in the last bits of sums and exponentials. A value of an
int8 layer that lies between two steps may be rounded to the other one, in one row of a hundred at most. In float16,
ONNX Runtime leaves out roundings that the graph asks for: half a step, 2^-11 of a value, a layer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch

from pipelines.errors import IntegrityError, SpecError, UnavailableError
from pipelines.scoring import engine as engine_module
from pipelines.scoring import torch_graph, torch_operators
from pipelines.scoring.engine import Engine
from pipelines.scoring.reasons import Reasons
from pipelines.scoring.session import Unsupported
from pipelines.scoring.torch_session import TorchSession
from pipelines.spec import Scoring
from pipelines.training.calibrate import Calibration
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.unit.training.conftest import Trained, make_spec, write
from tests.unit.training.test_compress import KNOTS, Made

from .conftest import Artifact, every_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Every form in which a network is served: the task, its compression, and what else.
FORMS: dict[str, tuple[str, dict[str, Any], Calibration | None]] = {
    "binary int8": ("binary", {"compression": "int8", "sensitive_layers": "int8"}, None),
    "binary fp16": ("binary", {"compression": "fp16"}, None),
    "binary fp32": ("binary", {"compression": "none"}, None),
    "isotonic int8": ("binary", {"compression": "int8", "sensitive_layers": "int8"}, Calibration(knots=KNOTS)),
    "isotonic fp32": ("binary", {"compression": "none"}, Calibration(knots=KNOTS)),
    "multiclass int8": ("multiclass", {"compression": "int8", "sensitive_layers": "int8"}, None),
    "multiclass fp16": ("multiclass", {"compression": "fp16"}, None),
    "regression int8": ("regression", {"compression": "int8", "sensitive_layers": "int8"}, None),
    "regression int8, ends fp32": ("regression", {"compression": "int8", "sensitive_layers": "fp32"}, None),
    "regression fp16": ("regression", {"compression": "fp16"}, None),
}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class Served:
    """An artifact in one form, with rows to score."""

    def __init__(self, form: str, make: Callable[[str], Artifact], root: Path) -> None:
        task, training, calibration = FORMS[form]
        source = make(task)
        made = Made(
            Trained(task, make_spec(task), source.data, source.folder, []), root / "made", calibration, **training
        )
        made.write()
        self.form, self.folder, self.scale = form, made.out, made.label.scale
        shutil.copy(source.folder / "model.json", self.folder)
        words = Engine(self.folder).facts["vocabularies"]["colour"]
        hostile = every_value(words)
        self.rows = pl.concat([hostile, source.rows.cast(dict(hostile.schema))])

    def near(self, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
        """Fails where two scores differ by more than this file's first lines say."""
        assert ours.dtype == theirs.dtype == np.float32
        assert ours.shape == theirs.shape
        assert np.isfinite(ours).all()
        gap = np.abs(ours - theirs).reshape(len(ours), -1).max(1) / self.scale
        # Between the two close knots the score rises by 150 for 1 of the logit.
        steep = 150 if "isotonic" in self.form else 1
        if "fp16" in self.form:
            assert gap.max() < 0.01
            return
        assert (gap > 2e-6 * steep).mean() <= (0.01 if "int8" in self.form else 0), "rows beyond the last bits"
        assert gap.max() < 0.02 * steep


@pytest.fixture(scope="module")
def make_served(
    make_artifact: Callable[[str], Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Served]:
    """Made when it is first asked for."""
    made: dict[str, Served] = {}

    def of(form: str) -> Served:
        if form not in made:
            made[form] = Served(form, make_artifact, tmp_path_factory.mktemp("served"))
        return made[form]

    return of


@pytest.fixture(params=FORMS)
def served(request: pytest.FixtureRequest, make_served: Callable[[str], Served]) -> Served:
    return make_served(request.param)


@pytest.fixture
def torch_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Engines that are asked for a GPU and get torch on the processor."""

    def make(folder: Path, **asked: Any) -> Engine:
        monkeypatch.setattr(engine_module, "TorchSession", lambda model, _: TorchSession(model, "cpu"))
        engine = Engine(folder, device="cuda", **asked)
        assert isinstance(engine._session, TorchSession)
        return engine

    return make


def test_scores_are_those_of_onnx_runtime_on_plain_and_hostile_rows(
    served: Served, torch_engine: Callable[..., Engine]
) -> None:
    ours, theirs = torch_engine(served.folder).score(served.rows), Engine(served.folder).score(served.rows)
    served.near(ours, theirs)
    assert len(np.unique(ours, axis=0)) > 100, "the rows differ"


@pytest.mark.parametrize("block", [64, 8192])
def test_a_rows_score_is_the_same_bytes_in_any_tile_beside_any_rows(
    served: Served, torch_engine: Callable[..., Engine], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_operators, "BLOCK", block)
    whole = torch_engine(served.folder, threads=1).score(served.rows)
    picked = np.random.default_rng(3).integers(0, len(served.rows), 150)
    for tile_rows, threads in ((1, 2), (9, 1), (1000, 2)):
        engine = torch_engine(served.folder, tile_rows=tile_rows, threads=threads)
        assert engine.tile_rows == 8 * tile_rows, "a GPU's tile"
        assert engine.score(served.rows[picked]).tobytes() == whole[picked].tobytes()


def test_batches_of_several_blocks_come_out_in_order_with_their_codes(
    make_served: Callable[[str], Served], torch_engine: Callable[..., Engine]
) -> None:
    served = make_served("multiclass int8")
    rows = pl.concat([served.rows] * 40, rechunk=True)
    assert rows.height > 2 * torch_operators.BLOCK
    engine = torch_engine(served.folder, tile_rows=1500, threads=2)
    batches = list(engine.score_batches([rows, rows.head(5), rows.clear(), rows[7:900]]))
    alone = engine.score(served.rows)
    assert batches[0].scores.tobytes() == np.tile(alone, (40, 1)).tobytes()
    assert [len(batch.scores) for batch in batches] == [rows.height, 5, 0, 893]
    (theirs,) = Engine(served.folder).score_batches([rows])
    assert dict(batches[0].unknown) == dict(theirs.unknown)
    assert all(np.array_equal(batches[0].codes[name], theirs.codes[name]) for name in theirs.codes)


def test_reasons_are_found_by_the_same_engine(
    make_served: Callable[[str], Served], torch_engine: Callable[..., Engine]
) -> None:
    served = make_served("regression int8")
    rows, digest = served.rows.tail(60), "5e" * 32
    engines = torch_engine(served.folder), Engine(served.folder)
    ours, theirs = (
        Reasons(engine, digest, 2, pairs=2).effects(rows, engine.score(rows)) / served.scale for engine in engines
    )
    assert np.abs(theirs).max() > 0.5
    assert (np.abs(ours - theirs) > 1e-5).mean() < 0.01


def test_a_lean_session_has_the_same_weights_and_scores(
    make_served: Callable[[str], Served], torch_engine: Callable[..., Engine]
) -> None:
    served = make_served("binary int8")
    engine = torch_engine(served.folder)
    before, session = engine.score(served.rows), engine._session
    engine._session = session.lean()
    assert not engine._session.keeps_memory
    assert session.keeps_memory
    assert engine.score(served.rows).tobytes() == before.tobytes()


def test_out_of_memory_a_tile_is_halved_and_what_does_not_fit_then_is_told(
    make_served: Callable[[str], Served], torch_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make_served("binary int8")
    engine = torch_engine(served.folder, tile_rows=64)
    whole, rows = engine.score(served.rows), served.rows.head(300)
    plain, most = torch_graph.Program.__call__, 1

    def call(self: torch_graph.Program, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        if numbers.shape[1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, numbers, codes)

    monkeypatch.setattr(torch_graph.Program, "__call__", call)
    monkeypatch.setattr(torch_operators, "BLOCK", 64)
    with pytest.raises(UnavailableError, match=r"out of memory at 150 rows.*lower scoring\.tile_rows \(64\)"):
        engine.score(rows)
    most = 192
    assert engine.score(rows).tobytes() == whole[:300].tobytes()


# --- what a GPU does not score


def test_cuda_without_a_gpu_is_told_with_what_helps(binary: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match=r"no GPU.*Allowed: cpu, or cuda.*Remedy: .*queue.*scoring\.device: cpu"):
        Engine(binary.folder, device="cuda")


def test_trees_are_refused_by_name(tmp_path: Path, torch_engine: Callable[..., Engine]) -> None:
    data = write(tmp_path / "data", "binary")
    run(Job(spec=make_spec("binary", model="lightgbm"), data=data, out=tmp_path / "out", threads=1), lambda _: None)
    with pytest.raises(SpecError, match=r"ai\.onnx\.ml\.TreeEnsemble.*scored on the cpu: scoring\.device: cpu"):
        torch_engine(tmp_path / "out")


def test_text_that_is_encoded_inside_is_refused_by_the_operator(binary: Artifact) -> None:
    with pytest.raises(Unsupported, match=r"ai\.onnx\.ml\.LabelEncoder"):
        TorchSession((binary.folder / "model.onnx").read_bytes(), "cpu")


def test_what_is_no_graph_is_no_artifact(binary: Artifact, tmp_path: Path, torch_engine: Callable[..., Engine]) -> None:
    for content in (b"", b"not an onnx file"):
        with pytest.raises(ValueError, match=r"not an ONNX file|no score"):
            TorchSession(content, "cpu")
    shutil.copytree(binary.folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(IntegrityError, match="not a model artifact"):
        torch_engine(tmp_path / "copy")


def test_ray_gives_processors_only() -> None:
    assert Scoring().device == "cpu", "never what a worker happens to have"
    with pytest.raises(ValueError, match="device: cuda needs engine: local"):
        Scoring(device="cuda", engine="ray")


# --- a GPU


@GPU
def test_a_gpu_scores_as_the_processor_and_the_same_bytes_in_any_tile(served: Served) -> None:
    whole = Engine(served.folder, device="cuda").score(served.rows)
    served.near(whole, Engine(served.folder).score(served.rows))
    many = pl.concat([served.rows] * 40, rechunk=True)
    picked = np.random.default_rng(3).integers(0, len(many), 30_000)
    for tile_rows, threads in ((64, 4), (1000, 2), (8192, 1)):
        engine = Engine(served.folder, device="cuda", tile_rows=tile_rows, threads=threads)
        assert engine.score(many[picked]).tobytes() == whole[picked % len(served.rows)].tobytes()


@GPU
def test_a_gpu_without_memory_says_so(make_served: Callable[[str], Served], monkeypatch: pytest.MonkeyPatch) -> None:
    served = make_served("binary int8")
    engine = Engine(served.folder, device="cuda", tile_rows=2**20, threads=1)
    rows = pl.concat([served.rows] * 4000, rechunk=True)
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(UnavailableError, match="out of memory"):
            engine.score(rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(engine.score(served.rows)) == len(served.rows)

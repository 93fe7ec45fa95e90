"""The engine gives what the registered graph gives, bit for bit, however the rows are cut up."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from pipelines import artifacts
from pipelines.errors import IntegrityError, SchemaMismatch
from pipelines.scoring.engine import Engine

from .conftest import STRANGE, TEXT, WORDS, Artifact, every_value, whole_graph

#: A deadlocked child is ended after so many seconds.
_CHILD_SECONDS = 60


def card(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.folder / "model.json").read_text("utf-8"))
    return found


def altered(artifact: Artifact, folder: Path, change: Any) -> Path:
    """A copy of the artifact whose graph was changed."""
    shutil.copytree(artifact.folder, folder)
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    return folder


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_every_value_of_every_vocabulary_scores_as_in_the_whole_graph(artifact: Artifact) -> None:
    told = card(artifact)
    assert set(WORDS) <= set(told["vocabularies"]["colour"]), "the vocabulary is as hostile as it should be"
    engine = Engine(artifact.folder)
    assert engine.enters_behind_encoders
    rows = every_value([word for words in told["vocabularies"].values() for word in words])
    scores = engine.score(rows)
    assert np.isfinite(scores).all()
    assert same_bits(scores, whole_graph(artifact.folder, rows))
    assert len(np.unique(scores, axis=0)) > len(WORDS), "the words matter"


@given(text=st.lists(st.one_of(st.none(), st.text(), st.sampled_from([*WORDS, *STRANGE])), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_scores_as_in_the_whole_graph(binary: Artifact, text: list[str | None]) -> None:
    rows = pl.DataFrame(
        {"wide": 1.0, "narrow": 0.0, "gaps": 5.0, "colour": text, "shape": "round"},
        schema_overrides={"colour": pl.String},
    )
    assert same_bits(_engine(binary).score(rows), whole_graph(binary.folder, rows))


_ENGINES: dict[tuple[Path, int, int], Engine] = {}


def _engine(artifact: Artifact, tile_rows: int = 8192, threads: int = 1) -> Engine:
    """Loaded once: a property asks for it a hundred times."""
    key = (artifact.folder, tile_rows, threads)
    if key not in _ENGINES:
        _ENGINES[key] = Engine(artifact.folder, tile_rows=tile_rows, threads=threads)
    return _ENGINES[key]


@given(
    tile_rows=st.integers(1, 500),
    threads=st.integers(1, 4),
    picked=st.lists(st.integers(0, 399), min_size=1, max_size=300),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_rows_score_is_the_same_bytes_in_any_tile_on_any_thread_beside_any_rows(
    artifact: Artifact, tile_rows: int, threads: int, picked: list[int]
) -> None:
    alone = _engine(artifact).score(artifact.rows)
    engine = Engine(artifact.folder, tile_rows=tile_rows, threads=threads)
    assert same_bits(engine.score(artifact.rows[picked]), alone[picked])


@given(cuts=st.lists(st.integers(0, 400), max_size=6), tile_rows=st.integers(20, 500))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_come_out_in_order_and_score_as_one_frame(binary: Artifact, cuts: list[int], tile_rows: int) -> None:
    edges = [0, *sorted(cuts), 400]
    rows = binary.rows
    frames = [rows[a:b] for a, b in itertools.pairwise(edges)]
    engine = Engine(binary.folder, tile_rows=tile_rows, threads=2)
    scored = [batch.scores for batch in engine.score_batches(iter(frames))]
    assert [len(scores) for scores in scored] == [frame.height for frame in frames]
    assert same_bits(np.concatenate(scored), engine.score(rows))


def test_batches_are_read_two_ahead_and_no_further(binary: Artifact) -> None:
    read = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield binary.rows

    ahead = []
    for done, _ in enumerate(Engine(binary.folder, tile_rows=64, threads=2).score_batches(frames()), start=1):
        ahead.append(read - done)
    assert max(ahead) == 2


def test_an_unfinished_iterator_of_batches_can_be_closed(binary: Artifact) -> None:
    scored = Engine(binary.folder, threads=2).score_batches(binary.rows for _ in range(5))
    next(scored)
    scored.close()
    assert list(scored) == []


def test_no_rows_have_no_scores(artifact: Artifact) -> None:
    shape = (0, 3) if artifact.task == "multiclass" else (0,)
    assert Engine(artifact.folder).score(artifact.rows.clear()).shape == shape


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum([*WORDS, *[word for word in STRANGE if word is not None]])])
def test_categories_score_as_their_text(binary: Artifact, dtype: Any) -> None:
    rows = every_value(WORDS)
    rows = rows.with_columns(pl.col("shape").replace(["round", "square"], ["red", "red"]))
    engine = Engine(binary.folder)
    assert same_bits(engine.score(rows.cast(dict.fromkeys(TEXT, dtype))), engine.score(rows))
    assert unknown(engine, rows.cast(dict.fromkeys(TEXT, dtype))) == unknown(engine, rows)


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Int64, pl.UInt8, pl.Boolean, pl.Decimal(10, 2)])
def test_numbers_of_any_kind_are_accepted(binary: Artifact, dtype: Any) -> None:
    rows = binary.rows.with_columns(wide=pl.Series([1, 0] * 200))
    narrow = rows.with_columns(pl.col("wide").cast(pl.Boolean if dtype == pl.Boolean else dtype))
    engine = Engine(binary.folder)
    assert same_bits(engine.score(narrow), engine.score(rows))


def test_a_column_of_nothing_but_nulls_is_missing(binary: Artifact) -> None:
    rows = binary.rows
    engine = Engine(binary.folder)
    typed = rows.with_columns(wide=pl.lit(None, pl.Float64), colour=pl.lit(None, pl.String))
    untyped = rows.with_columns(wide=pl.lit(None), colour=pl.lit(None))
    assert untyped.schema["colour"] == pl.Null
    assert same_bits(engine.score(untyped), engine.score(typed))


def test_a_frame_in_many_chunks_scores_as_one(binary: Artifact) -> None:
    rows = binary.rows
    chunks = pl.concat([rows[a : a + 7] for a in range(0, 400, 7)], rechunk=False)
    assert chunks.n_chunks() > 50
    engine = Engine(binary.folder, tile_rows=64, threads=2)
    assert same_bits(engine.score(chunks), engine.score(rows))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"wide": pl.lit("text")}, "'wide' is String"),
        ({"wide": pl.lit(0).cast(pl.Datetime)}, "'wide' is Datetime"),
        ({"colour": pl.lit(1.0)}, "'colour' is Float64"),
        (None, "there is no 'wide'"),
    ],
)
@pytest.mark.parametrize("rows", [0, 400])
def test_a_column_that_the_model_does_not_know_is_named(binary: Artifact, change: Any, named: str, rows: int) -> None:
    frame = binary.rows.head(rows)
    frame = frame.with_columns(**change) if change else frame.drop("wide")
    with pytest.raises(SchemaMismatch, match=named):
        Engine(binary.folder).score(frame)


def test_unseen_is_what_the_model_takes_for_unknown(binary: Artifact) -> None:
    colours, shapes = ["red", "never", None, "nan"], ["round", "square", "round", ""]
    rows = binary.rows.head(4).with_columns(colour=pl.Series(colours), shape=pl.Series(shapes))
    engine = Engine(binary.folder)
    assert unknown(engine, rows) == {"colour": 1, "shape": 0}
    assert unknown(engine, pl.concat([rows] * 5000)) == {"colour": 5000, "shape": 0}
    assert unknown(engine, rows.clear()) == {"colour": 0, "shape": 0}


def unknown(engine: Engine, rows: pl.DataFrame) -> dict[str, int]:
    (batch,) = engine.score_batches([rows])
    return dict(batch.unknown)


def _other_code(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    values = next(attribute for attribute in node.attribute if attribute.name == "values_int64s")
    values.ints[-1], values.ints[-2] = values.ints[-2], values.ints[-1]


def _other_default(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    next(attribute for attribute in node.attribute if attribute.name == "default_int64").i = 3


def _second_reader(model: onnx.ModelProto) -> None:
    """A twin of the first encoder makes what the network reads; the named tensor has a reader of its own no more."""
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name, twin.output[0] = "twin", "twin"
    for reader in model.graph.node:
        reader.input[:] = ["twin" if name == node.output[0] else name for name in reader.input]
    model.graph.node.insert(0, twin)


def _renamed_tensor(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = [name.replace("overnight:code:colour", "colour_code") for name in node.input]
        node.output[:] = [name.replace("overnight:code:colour", "colour_code") for name in node.output]


@pytest.mark.parametrize("change", [_other_code, _other_default, _second_reader, _renamed_tensor])
def test_a_graph_that_does_not_encode_as_its_card_says_is_run_whole(
    binary: Artifact, tmp_path: Path, change: Any
) -> None:
    folder = altered(binary, tmp_path / "copy", change)
    engine = Engine(folder, tile_rows=50, threads=2)
    assert not engine.enters_behind_encoders
    rows = every_value(WORDS)
    assert same_bits(engine.score(rows), whole_graph(folder, rows))


def test_a_card_without_named_tensors_is_run_whole(binary: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(binary.folder, folder)
    told = card(binary)
    del told["codes"]
    (folder / "model.json").write_text(json.dumps(told), "utf-8")
    engine = Engine(folder)
    assert not engine.enters_behind_encoders
    assert same_bits(engine.score(binary.rows), Engine(binary.folder).score(binary.rows))


def _extra_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("stranger", onnx.TensorProto.FLOAT, ["n"]))


def test_a_graph_that_asks_for_more_than_its_card_lists_is_refused(binary: Artifact, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="stranger"):
        Engine(altered(binary, tmp_path / "copy", _extra_input))


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x08"])
def test_what_is_no_graph_is_refused(binary: Artifact, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(binary.folder, folder)
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(IntegrityError, match="not a model artifact"):
        Engine(folder)


def test_bytes_that_changed_after_the_folder_was_verified_are_refused(binary: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(binary.folder, folder)
    artifacts.verify(folder, artifacts.seal(folder))
    Engine(folder)
    told = card(binary)
    (folder / "model.json").write_text(json.dumps({**told, "seed": 8}), "utf-8")
    with pytest.raises(IntegrityError, match=r"changed: model\.json"):
        Engine(folder)


def _child(code: str, *arguments: str) -> str:
    """Runs Python code in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


_FORKED = """
import hashlib, os, signal, sys
from pathlib import Path
import polars as pl
from pipelines.scoring.engine import Engine

engine = Engine(Path(sys.argv[1]), tile_rows=20_000, threads=2)
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    rows = pl.concat([pl.read_parquet(sys.argv[2])] * 200, rechunk=True)
    print(hashlib.sha256(engine.score(rows).tobytes()).hexdigest(), flush=True)
    os._exit(0)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_an_engine_that_was_loaded_before_a_fork_scores_after_it(binary: Artifact) -> None:
    said = _child(_FORKED, str(binary.folder), str(binary.data / "holdout.parquet"))
    assert said == hashlib.sha256(np.tile(_engine(binary).score(binary.rows), 200).tobytes()).hexdigest()


_STREAMED = """
import resource, sys
from pathlib import Path
import polars as pl
from pipelines.scoring.engine import Engine

rows = pl.read_parquet(sys.argv[2])
engine = Engine(Path(sys.argv[1]), tile_rows=2048, threads=2)
for frames in (10, 150):
    for scores in engine.score_batches(pl.concat([rows] * 50, rechunk=True) for _ in range(frames)):
        assert len(scores.scores) == rows.height * 50
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_batches(binary: Artifact) -> None:
    few, many = map(int, _child(_STREAMED, str(binary.folder), str(binary.data / "holdout.parquet")).split())
    assert many - few < 16, f"{few} MiB after 200,000 rows, {many} MiB after 3,200,000"


_STARVED = """
import hashlib, resource, sys
from pathlib import Path
import numpy as np, polars as pl
from pipelines.errors import UnavailableError
from pipelines.scoring.engine import Engine

frame = pl.DataFrame({"x": np.linspace(-1, 1, int(sys.argv[2]), dtype=np.float32)})
engine = Engine(Path(sys.argv[1]), tile_rows=frame.height, threads=1)
engine.score(frame.head(1))
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = held + int(sys.argv[3]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    scores = engine.score(frame)
    print("whole" if engine._session.keeps_memory else "halved", hashlib.sha256(scores.tobytes()).hexdigest())
except UnavailableError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def hungry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that takes 4 KiB a row while it scores: mean of 512 sigmoids of x."""
    folder = tmp_path_factory.mktemp("hungry")
    nodes = [
        helper.make_node("Reshape", ["x", "column"], ["c"]),
        helper.make_node("MatMul", ["c", "weight"], ["wide"]),
        helper.make_node("Sigmoid", ["wide"], ["bent"]),
        helper.make_node("ReduceMean", ["bent"], ["score"], axes=[1], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
        numpy_helper.from_array(np.linspace(-2, 3, 512, dtype=np.float32)[None], "weight"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "score")]
    graph = helper.make_graph(nodes, "hungry", ends[:1], ends[1:], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    (folder / "model.json").write_text(json.dumps({"numeric": ["x"], "categorical": [], "vocabularies": {}}), "utf-8")
    return folder


def test_out_of_memory_a_tile_is_halved_once_and_then_fails_clearly(hungry: Path) -> None:
    rows = 131_072  # two tensors of 256 MiB; of 128 MiB for half of the rows
    tight, small, roomy = (_child(_STARVED, str(hungry), str(rows), megabytes) for megabytes in ("60", "380", "1500"))
    whole, digest = roomy.split()
    assert whole == "whole"
    assert small == f"halved {digest}"
    assert f"out of memory at {rows // 2} rows, half of a tile of {rows}" in tight
    assert f"Remedy: lower scoring.tile_rows ({rows})" in tight

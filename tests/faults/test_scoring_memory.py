"""Memory while a night is scored: bounded whatever its rows, and what becomes of a night that has too little of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipelines import artifacts
from tests.faults.nights import Nights, put, rows

_ROOT = Path(__file__).resolve().parents[2]
_MIB = 2**20
#: A query reads a million rows of them at most: with two million it takes all that it ever takes.
_NIGHTS = {"2024-06-02": 2_000_000, "2024-06-03": 4_000_000}


def said(program: str, *arguments: object) -> tuple[int, str, str]:
    """Runs a program on one core: exit status, its last line, and what it said of errors."""
    command = [
        sys.executable,
        "-c",
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n" + program,
    ]
    ran = subprocess.run(
        [*command, *map(str, arguments)], cwd=_ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    return ran.returncode, (ran.stdout.splitlines() or [""])[-1], ran.stderr[-3000:]


_PEAK = """
import sys, threading, time
from pathlib import Path
from tests.faults.scorers import Night

night = Night(project=Path(sys.argv[1]), home=Path(sys.argv[2]), partitions=[sys.argv[3]])
done, peak = threading.Event(), [0]

def watch():
    # Not what of files is mapped: the kernel takes that back whenever it likes.
    while not done.wait(0.002):
        told = Path("/proc/self/status").read_text()
        peak[0] = max(peak[0], int(told.partition("RssAnon:")[2].split()[0]))

watcher = threading.Thread(target=watch)
watcher.start()
said = night.act()
done.set()
watcher.join()
assert "published" in said, said
print(peak[0] * 1024)
"""


@pytest.mark.timeout(600)
def test_twice_as_many_rows_take_no_more_memory(nights: Nights) -> None:
    """Plan, scores, audit and publish."""
    peaks = []
    for partition, count in _NIGHTS.items():
        put(nights.store, partition, rows(count))
        status, peak, errors = said(_PEAK, nights.champions.project, nights.home, partition)
        assert status == 0, errors
        peaks.append(int(peak) // _MIB)
    assert peaks[1] - peaks[0] < 64, f"{peaks} MiB for {list(_NIGHTS.values())} rows"


_STARVED = """
import hashlib, json, resource, sys
from pathlib import Path
from pipelines.errors import OvernightError
from pipelines.steps.scoring import score_shard
from tests.faults.scorers import Night

project, home, artifact, digest, partition, spare, out = sys.argv[1:]
runtime = Night(project=Path(project), home=Path(home), partitions=[partition]).runtime()
plan = runtime.plan_scores([partition], 1)[0]
plan = plan.model_copy(update={"model": plan.model.model_copy(update={"digest": digest})})
small = runtime.plan_scores(["2024-05-09"], 1)[0].model_copy(update={"model": plan.model})
score_shard(runtime.spec, runtime.store, Path(artifact), small, small.shards[0], Path(out) / "warm")
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = held + int(spare) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    piece = score_shard(runtime.spec, runtime.store, Path(artifact), plan, plan.shards[0], Path(out))
except OvernightError as error:
    print(json.dumps({"error": type(error).__name__, "said": str(error)}))
else:
    (file,) = piece.files.values()
    print(json.dumps({"digest": hashlib.sha256(Path(file).read_bytes()).hexdigest()}))
"""


def hungry(artifact: Path, folder: Path) -> str:
    """The champion's artifact with a graph that takes 16 KiB a row while it scores; its digest.

    The score is the mean of 2048 sigmoids of the pressure. Text is handed over as it is, and not looked at.
    """
    shutil.copytree(artifact, folder)
    (folder / artifacts.DIGESTS).unlink()
    nodes = [
        helper.make_node("Reshape", ["pressure", "column"], ["c"]),
        helper.make_node("MatMul", ["c", "weight"], ["wide"]),
        helper.make_node("Sigmoid", ["wide"], ["bent"]),
        helper.make_node("ReduceMean", ["bent"], ["score"], axes=[1], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
        numpy_helper.from_array(np.linspace(-2, 3, 2048, dtype=np.float32)[None], "weight"),
    ]
    kinds = {"pressure": onnx.TensorProto.FLOAT, "wear": onnx.TensorProto.FLOAT, "site": onnx.TensorProto.STRING}
    inputs = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in kinds.items()]
    ends = [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph(nodes, "hungry", inputs, ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return artifacts.seal(folder)


@pytest.mark.timeout(600)
def test_out_of_memory_a_tile_is_halved_once_and_then_the_step_fails_clearly_and_leaves_nothing(
    made_nights: Nights, tmp_path: Path
) -> None:
    nights = made_nights.copy(tmp_path / "mine", scoring={"tile_rows": 65_536})
    runtime = nights.night().runtime()
    digest = hungry(runtime.registry.fetch(runtime.candidate(1)), tmp_path / "artifact")
    partition = "2024-06-03"
    put(nights.store, partition, rows(66_000))

    def starved(spare: int) -> dict[str, Any]:
        about = (
            nights.champions.project,
            nights.home,
            tmp_path / "artifact",
            digest,
            partition,
            spare,
            tmp_path / str(spare),
        )
        status, told, errors = said(_STARVED, *about)
        assert status == 0, errors
        found: dict[str, Any] = json.loads(told)
        return found

    # Two tensors of 512 MiB for a tile, of 256 MiB for half of it.
    roomy, small, tight = starved(4000), starved(900), starved(400)
    assert "digest" in roomy
    assert small == roomy, "scored in halves, to the same bytes"
    assert tight["error"] == "UnavailableError"
    assert "out of memory at 32768 rows, half of a tile of 65536" in tight["said"]
    assert "Remedy: lower scoring.tile_rows (65536), or give the task more memory" in tight["said"]
    assert list((tmp_path / "400").glob("*.*")) == []
    assert nights.store.head("predictions") is None

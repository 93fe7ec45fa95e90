"""What compression cost: the served student against its own fp32, in turn, on the same rows.

Both go through the engine, on one thread. Time is the processor time of this process: what other processes take of a
busy machine counts for neither. A single batch that the machine held up still makes a tail of its own, in which a
model that is no slower looks twice as slow: so the tails are compared block by block, and the median block is believed.
(With six busy neighbours on two cores, in twelve runs of one pair of models by batches of 1: the ratio of one tail 0.41
to 1.11, the median of six blocks 0.96 to 1.07.) Shapes: n rows, c classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.records import ServedAgainstFp32
from pipelines.scoring.engine import Engine
from pipelines.steps.evaluation.meeting import Meeting
from pipelines.steps.evaluation.slices import Rivals, declared

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: The artifact's own fp32 student, as training names it.
FP32 = "student_fp32.onnx"
#: What model.json calls a served graph that nothing was taken from.
AS_THEY_ARE = ("student_fp32", "lightgbm_onnx")
#: By rows of a batch: how often each model scores one, at most, and for how many seconds both together.
REPEATS = {1: (300, 0.25), 4096: (60, 0.4)}
#: So often at least, however long it takes.
_FEWEST = 20
_DIFFERENT, _SEED = 8, 20131020
#: Blocks of repeats that follow one another, each with a tail of its own.
_BLOCKS = 6


def served_against_fp32(meeting: Meeting) -> Mapping[str, Any]:
    """The field `fp32` of an evaluation; None where the artifact's student is served as it is, and for trees."""
    if meeting.engine.facts["served"] in AS_THEY_ARE:
        return {"fp32": None}
    tile, digest = max(REPEATS), meeting.trained.digest
    served = Engine(meeting.folder, digest=digest, tile_rows=tile, threads=1)
    full = Engine(meeting.folder, digest=digest, tile_rows=tile, threads=1, graph=FP32)
    rivals = Rivals(meeting.spec, meeting.labels, meeting.scores, full.score(meeting.frame))
    taken = {rows: in_turn(served, full, meeting.frame, rows) for rows in REPEATS}
    ours, theirs = ((meeting.folder / name).stat().st_size for name in ("model.onnx", FP32))
    return {
        "fp32": ServedAgainstFp32(
            speed_ratio=ratio(taken[tile], 0.5) ** -1,
            latency_ratios={rows: tail_ratio(times) for rows, times in taken.items()},
            size_ratio=ours / theirs,
            more_bytes=ours - theirs,
            slices=declared(rivals, meeting.frame),
        )
    }


def in_turn(served: Engine, full: Engine, frame: pl.DataFrame, rows: int) -> NDArray[np.float64]:
    """[repeats, 2] processor seconds of a batch, served and fp32: in turn, on the same rows, after a warm-up.

    Who goes first changes with every repeat.
    """
    import numpy as np

    most, seconds = REPEATS[rows]
    rng = np.random.default_rng(_SEED)
    batches = [frame[rng.integers(0, frame.height, rows)] for _ in range(_DIFFERENT)]
    sides = (served, full)
    for batch in batches[:2]:
        for engine in sides:
            engine.score(batch)
    taken = np.empty((most, 2))
    begun = time.perf_counter()
    for repeat in range(most):
        for who in (0, 1) if repeat % 2 else (1, 0):
            start = time.process_time()
            sides[who].score(batches[repeat % _DIFFERENT])
            taken[repeat, who] = time.process_time() - start
        if repeat + 1 >= _FEWEST and time.perf_counter() - begun > seconds:
            break
    return taken[: repeat + 1]


def ratio(taken: NDArray[np.float64], share: float) -> float:
    """The served one's quantile divided by that of fp32."""
    import numpy as np

    ours, theirs = np.quantile(taken, share, axis=0, method="higher")
    return float(ours / max(theirs, 1e-9))


def tail_ratio(taken: NDArray[np.float64]) -> float:
    """The served one's p99 divided by that of fp32, in each of some blocks of repeats; the median of the blocks."""
    import numpy as np

    return float(np.median([ratio(block, 0.99) for block in np.array_split(taken, _BLOCKS)]))

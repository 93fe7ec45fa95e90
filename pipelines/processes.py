"""Shards of a plan in several processes of this machine, each with its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from pipelines.errors import UnavailableError, explain
from pipelines.machine import usable_cores
from pipelines.runtime import Runtime
from pipelines.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from pipelines.records import Piece, Scored, ScorePlan, Shard
    from pipelines.spec import UseCase


def score_in_processes(runtime: Runtime, plan: ScorePlan, processes: int) -> Scored:
    """Scores a plan in so many processes at most, and stages the scores: byte for byte what `score_plan` stages.

    Raises:
        UnavailableError: a process died; what it had not finished is scored by the same call again.
    """
    from pipelines.steps.scoring import even, shards

    rows = {partition: plan.rows_in[partition] for partition in plan.due}
    most = min(even(sum(rows.values()), max(processes, 1)), runtime.spec.scoring.shard_rows)
    plan = plan.model_copy(update={"shards": shards(rows, max(1, most))})
    count = min(processes, len(plan.shards))
    if count < 2 or runtime.spec.scoring.engine != "local":
        return runtime.score_plan(plan)
    runtime.registry.fetch(plan.model)  # brought here once, before they all ask for it
    try:
        return runtime.stage_pieces(plan, _pieces(runtime, plan, count))
    finally:
        runtime.forget_pieces(plan)


def _pieces(runtime: Runtime, plan: ScorePlan, count: int) -> list[Piece]:
    # Spawned, not forked: a fork would inherit thread pools that were sized for all cores, and their locks.
    context = multiprocessing.get_context("spawn")
    places = context.Value("i", 0)
    with ProcessPoolExecutor(count, context, _settle, (places, share(count))) as pool:
        jobs = [pool.submit(_score, runtime.spec, runtime.settings, plan, shard) for shard in plan.shards]
        try:
            return [job.result() for job in jobs]
        except BrokenProcessPool:
            raise UnavailableError(
                explain(
                    f"{plan.model.id}: scoring in {count} processes",
                    "one of them died, perhaps for want of memory",
                    remedy="give the command again, with fewer processes if memory is short: nothing is scored twice",
                )
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def share(processes: int) -> int:
    """Cores for each of so many processes, one at least."""
    return max(1, usable_cores() // processes)


def _settle(places: Synchronized[int], cores: int) -> None:
    """Keeps this process to its share: the thread pools of everything that it loads are sized by that."""
    with places.get_lock():
        place = places.value
        places.value += 1
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[(place * cores + each) % len(mine)] for each in range(cores)})


def _score(spec: UseCase, settings: Settings, plan: ScorePlan, shard: Shard) -> Piece:
    return Runtime(spec, settings, plan.run).score_shard(plan, shard)

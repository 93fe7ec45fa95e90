"""What a process on another machine does for a scoring run: it opens the store by its own settings, and scores a shard.

Nothing here knows who runs the process; `pipelines/backends/ray_pool.py` names `score` to the workers of a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.records import ScorePlan, Shard
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase


def score(
    spec: str, plan: str, shard: str, settings: Mapping[str, str], artifact: Path, out: Path, threads: int
) -> dict[str, str]:
    """Scores one shard; see `steps.scoring.score_shard`.

    Args:
        spec: JSON, like `plan` and `shard`.
        settings: where the snapshots are, as `Settings.travelling` told; secrets and everything else are what this
            process's own environment says.
        artifact: the verified folder of the plan's model.
        out: a folder for the files.
        threads: tiles that are scored at once.

    Returns:
        Path of a Parquet file by partition.
    """
    from pipelines.steps.scoring import score_shard

    resolved = ScorePlan.model_validate_json(plan)
    runtime = Runtime(UseCase.model_validate_json(spec), Settings.model_validate(dict(settings)), resolved.run)
    part = Shard.model_validate_json(shard)
    return score_shard(runtime.spec, runtime.store, artifact, resolved, part, out, threads=threads).files

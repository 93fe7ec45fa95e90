"""What a Ray worker of the tests runs in the place of `pipelines.shard_worker.score`: the same, with accidents.

A test says in a folder named by its run what is to happen; every try of a shard is noted there.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import SchemaMismatch
from pipelines.shard_worker import score

#: Where the tests' folders are.
FOLDER = "OVERNIGHT_TEST_SHARDS"
_PATIENCE = 60.0


def folder(plan: str) -> Path:
    """The folder of a plan's run."""
    return Path(os.environ[FOLDER]) / json.loads(plan)["run"]["run_id"]


def name(shard: str) -> str:
    """Such as `2024-05-01+75`."""
    told = json.loads(shard)
    return f"{told['partitions'][0]}+{told['start']}"


def tries(place: Path) -> Counter[str]:
    """How often each shard was begun."""
    noted = place / "tries"
    return Counter(line.split()[0] for line in noted.read_text("utf-8").splitlines()) if noted.exists() else Counter()


def noting(
    spec: str, plan: str, shard: str, settings: Mapping[str, str], artifact: Path, out: Path, threads: int
) -> dict[str, str]:
    """Scores as always. A file `kill` says how often which shards die in the middle; `wait` names those to hold."""
    place, me = folder(plan), name(shard)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "tries").open("a", encoding="utf-8") as noted:
        noted.write(f"{me} {os.getpid()} {artifact.stat().st_ino} {artifact.parents[1].name}\n")
    deadly = json.loads((place / "kill").read_text("utf-8")) if (place / "kill").exists() else {}
    if tries(place)[me] <= deadly.get(me, 0):
        os.environ["OVERNIGHT_FAILPOINT"] = "shard.written"
    if (place / "wait").exists() and me in (place / "wait").read_text("utf-8"):
        begun = time.monotonic()
        while not (place / "go").exists() and time.monotonic() - begun < _PATIENCE:
            time.sleep(0.05)
    try:
        return score(spec, plan, shard, settings, artifact, out, threads)
    finally:
        with (place / "ended").open("a", encoding="utf-8") as noted:
            noted.write(f"{me} {len(list(out.glob('*')))}\n")


def refusing(spec: str, plan: str, shard: str, *_: object) -> dict[str, str]:
    """A shard whose rows do not fit the model."""
    place = folder(plan)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "tries").open("a", encoding="utf-8") as noted:
        noted.write(f"{name(shard)}\n")
    raise SchemaMismatch("scoring: the model and the snapshot disagree: there is no 'wear'. Remedy: retrain.")


def broken(*_: object) -> dict[str, str]:
    """A mistake in the code."""
    raise ZeroDivisionError("nothing to divide by")


def telling(
    spec: str, plan: str, shard: str, settings: Mapping[str, str], artifact: Path, out: Path, threads: int
) -> dict[str, str]:
    """Everything that it was given, and its environment, in the place of scores."""
    path = out / "told"
    path.write_text(json.dumps([spec, plan, shard, dict(settings), dict(os.environ), threads]), "utf-8")
    return {json.loads(shard)["partitions"][0]: str(path)}

r"""`python -m pipelines.training --spec spec.json --data DIR --out DIR`: what a training container runs.

`--container` alone takes all of it from a training container's folders (see `pipelines.training.contract`).

Prints one JSON line an epoch, and one every few seconds within it. Exit codes: 0 done, 1 training failed, 2 misuse, 75
told to stop: the same command with the same `--checkpoints` goes on. A failure is also a JSON line, {"error": its kind,
"message": its text}.

Several processes on a machine, one a GPU:

    torchrun --standalone --nproc-per-node 8 -m pipelines.training --spec ... --data ... --out ... --checkpoints ...

Several machines, each with the same data in the same place; the folder of checkpoints is read and written by the first
process alone:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 --rdzv-id NAME \
        -m pipelines.training ...

or whatever else sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pipelines.errors import InterruptedTraining, OvernightError
from pipelines.spec import UseCase
from pipelines.training.job import Job
from pipelines.training.signals import end_with_parent, stopping

#: EX_TEMPFAIL of sysexits.h.
INTERRUPTED = 75


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and trains."""
    if (sys.argv[1:] if arguments is None else arguments) == ["--container"]:
        from pipelines.training import contract

        return contract.run()
    parser = argparse.ArgumentParser(prog="python -m pipelines.training", description="Train one use case.")
    parser.add_argument("--spec", type=Path, required=True, help="a UseCase as JSON (UseCase.model_dump_json)")
    parser.add_argument("--data", type=Path, required=True, help="folder of train, validation and holdout .parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact")
    parser.add_argument("--checkpoints", type=Path, help="folder that outlives an interruption (default: none)")
    parser.add_argument("--threads", type=int, help="processor threads (default: what torch finds)")
    chosen = parser.parse_args(arguments)
    try:
        spec = UseCase.model_validate_json(chosen.spec.read_bytes())
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"{chosen.spec}: {error}\n")
        return 2
    from pipelines.training.entry import run  # torch: only once the arguments are right

    job = Job(spec=spec, data=chosen.data, out=chosen.out, checkpoints=chosen.checkpoints, threads=chosen.threads)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A launcher that is killed outright cannot end its processes.
        end_with_parent()
    try:
        with stopping() as stop:
            run(job, _print, stop)
    except OvernightError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _print({"error": type(error).__name__, "message": str(error)})
        return INTERRUPTED if isinstance(error, InterruptedTraining) else 1
    return 0


def _print(values: Mapping[str, float | str]) -> None:
    # In one write: several processes share this output.
    sys.stdout.write(json.dumps(dict(values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

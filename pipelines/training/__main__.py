"""`python -m pipelines.training --spec spec.json --data DIR --out DIR`: what a training container runs.

`--container` alone takes all of it from a training container's folders (see `pipelines.training.contract`).
Prints one JSON line an epoch. Exit codes: 0 done, 1 training failed, 2 misuse.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pipelines.errors import OvernightError
from pipelines.spec import UseCase
from pipelines.training.job import Job


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
    try:
        run(job, _print)
    except OvernightError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _print(values: Mapping[str, float]) -> None:
    sys.stdout.write(json.dumps(dict(values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

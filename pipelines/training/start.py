"""What a training container runs first: installs the packages that its image lacks, then becomes the training.

Standard library only, no import of `pipelines`: it is uploaded as it stands, beside overnight.zip and packages.json.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def missing(packages: Mapping[str, str]) -> list[str]:
    """The requirements, such as tabm==0.0.3, of modules that cannot be imported here.

    Args:
        packages: requirement by module.
    """
    return [requirement for module, requirement in packages.items() if importlib.util.find_spec(module) is None]


def main(code: Path) -> None:
    """Never returns: the process becomes `python -m pipelines.training --container`."""
    if wanted := missing(json.loads((code / "packages.json").read_text("utf-8"))):
        sys.stderr.write(f"installing what the image lacks: {' '.join(wanted)}\n")
        sys.stderr.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        if (done := subprocess.run(command, check=False)).returncode != 0:
            text = f"Crash: pip cannot install {' '.join(wanted)}: give the jobs an image that holds them, or a network"
            output = code.parents[2] / "output"
            output.mkdir(parents=True, exist_ok=True)
            (output / "failure").write_text(text[:1024], "utf-8")
            sys.exit(done.returncode)
    path = os.pathsep.join(filter(None, [str(code / "overnight.zip"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pipelines.training", "--container"]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 (one process, so that a signal reaches it)


if __name__ == "__main__":
    main(Path(__file__).resolve().parent)

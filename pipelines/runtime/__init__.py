"""Puts the adapters behind the ports and the steps in one place: what Airflow's tasks and the command line call.

Adapters are imported when a step first needs them, so that a process pays only for what it does.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from datetime import UTC, datetime

from pipelines.errors import NotFoundError, explain
from pipelines.records import RunInfo
from pipelines.runtime.nightly import Nightly
from pipelines.runtime.upkeep import Upkeep
from pipelines.runtime.watching import Watching
from pipelines.settings import Settings
from pipelines.spec import load_spec

#: Characters of a use case's name, see `spec.base.Name`.
_LONGEST_NAME = 48


def code_version(settings: Settings) -> str:
    """The git commit of the project, `+dirty` when the tree differs from it; "unknown" without git."""
    if settings.code_version:
        return settings.code_version
    git = ["git", "-C", str(settings.project)]
    quiet = {"capture_output": True, "text": True, "timeout": 10}
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, **quiet)  # type: ignore[call-overload]
        dirty = subprocess.run([*git, "status", "--porcelain"], check=True, **quiet)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return str(head.stdout).strip() + ("+dirty" if dirty.stdout.strip() else "")


class Runtime(Nightly, Watching, Upkeep):
    """One use case on this machine. Cheap to make."""

    @classmethod
    def open(cls, use_case: str, run: RunInfo | None = None, settings: Settings | None = None) -> Runtime:
        """Loads a use case by name.

        Raises:
            SpecError: the name or the file is wrong.
        """
        chosen = settings or Settings()
        # The name becomes a path: only what a spec may be called is looked up.
        if not use_case.replace("_", "").isalnum() or len(use_case) > _LONGEST_NAME:
            allowed = f"at most {_LONGEST_NAME} letters, digits and _"
            raise NotFoundError(explain("use case", f"{use_case[:80]!r} is not a name", allowed=allowed))
        spec = load_spec(chosen.spec_path(use_case))
        # In a container every command may have the same process id; a run is one command.
        name = f"cli-{os.getpid()}-{secrets.token_hex(3)}"
        now = datetime.now(UTC).replace(microsecond=0)
        who = run or RunInfo(run_id=name, code_version=code_version(chosen), at=now)
        return cls(spec, chosen, who)

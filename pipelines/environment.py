"""Which packages this process runs with, as one digest. Standard library only."""

from __future__ import annotations

import hashlib
from importlib.metadata import distributions
from pathlib import Path

LOCK = "requirements.lock"


def environment_digest(project: Path) -> str:
    """`lock:` and the SHA-256 of requirements.lock; in an image without one, `installed:` and that of every package.

    Args:
        project: the folder of the checkout.
    """
    lock = project / LOCK
    if lock.is_file():
        return f"lock:{hashlib.sha256(lock.read_bytes()).hexdigest()}"
    names = sorted({f"{each.metadata['Name']}=={each.version}".lower() for each in distributions()})
    return f"installed:{hashlib.sha256(chr(10).join(names).encode()).hexdigest()}"

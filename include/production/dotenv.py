"""Writes .env for docker-compose.yaml: `python3 include/production/dotenv.py`.

Every `NAME=` of .env.example is a secret and gets random bits of its own. A name that .env has already keeps its value,
so that a second run only adds what a newer .env.example asks for. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_ASSIGNED = re.compile(r"^([A-Z0-9_]+)=(.*)$", re.MULTILINE)


def fresh_secret(name: str) -> str:
    """Random bits in URL-safe base64, which needs no quoting in a URL: the 256 that a Fernet key has, or 384."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32 if "FERNET" in name else 48)).decode()


def fill(example: str, existing: str) -> str:
    """The text of .env: `existing`, then what it lacks of `example`."""
    known = dict(_ASSIGNED.findall(existing))
    missing = [name for name, value in _ASSIGNED.findall(example) if not value and not known.get(name)]
    if not existing:
        return _ASSIGNED.sub(
            lambda found: f"{found[0]}{fresh_secret(found[1])}" if found[1] in missing else found[0], example
        )
    kept = [line for line in existing.splitlines() if line.rstrip("=") not in missing]
    return "\n".join([*kept, *(f"{name}={fresh_secret(name)}" for name in missing)]) + "\n"


def write(project: Path = PROJECT) -> Path:
    """Writes .env, for this user's eyes only."""
    path = project / ".env"
    text = fill((project / ".env.example").read_text(), path.read_text() if path.exists() else "")
    draft = project / ".env.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
    return path


if __name__ == "__main__":
    print(f"wrote {write()}")

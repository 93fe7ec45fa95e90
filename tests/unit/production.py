"""docker-compose.yaml as compose understands it, for the tests of the production form."""

from __future__ import annotations

import re
from typing import Any

import yaml

from include.production import dotenv
from tests.cases import REPOSITORY

VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z0-9_]+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\}")
TEXT = (REPOSITORY / "docker-compose.yaml").read_text()
EXAMPLE = (REPOSITORY / ".env.example").read_text()

Compose = dict[str, Any]


def fresh_environment() -> dict[str, str]:
    """What a freshly written .env says."""
    return dict(re.findall(r"^([A-Z0-9_]+)=(.+)$", dotenv.fill(EXAMPLE, ""), re.MULTILINE))


def interpolate(text: str, environment: dict[str, str]) -> str:
    """Puts values in: `${NAME}`, `${NAME:-default}` and `${NAME:?message}`; `$$` is a dollar sign.

    Raises:
        LookupError: a variable with a message has no value.
    """

    def value(found: re.Match[str]) -> str:
        given = environment.get(found["name"], "")
        if not given and found["how"] == ":?":
            raise LookupError(f"{found['name']}: {found['word']}")
        return given or (found["word"] or "" if found["how"] == ":-" else "")

    return VARIABLE.sub(value, text).replace("$$", "$")


def load(environment: dict[str, str]) -> Compose:
    """The file with a .env's values."""
    loaded: Compose = yaml.safe_load(interpolate(TEXT, environment))
    return loaded

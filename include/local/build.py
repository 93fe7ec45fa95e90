"""Builds `.venv` from requirements.lock; run by `make env` with nothing but Python 3.11's standard library.

uv installs the packages. Where this machine's pip is told to look (index, find-links, certificate, ...) uv looks too,
and nothing about any index is written in the project.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv"
LOCK = PROJECT / "requirements.lock"
STAMP = VENV / ".overnight"


def pip_settings(text: str) -> dict[str, str]:
    """Reads what `pip config list` prints; the environment goes before the files, `install.` before `global.`.

    >>> pip_settings("global.index-url='https://one/simple'\\n:env:.index-url='https://two/simple'")
    {'index-url': 'https://two/simple'}
    """
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(:env:|install|global)\.([a-z-]+)=(.*)", line.strip())
        if match:
            section, name, value = match.groups()
            rank = ("global", "install", ":env:").index(section)
            if rank >= found.get(name, (-1, ""))[0]:
                found[name] = (rank, str(ast.literal_eval(value)))
    return {name: value for name, (_, value) in found.items()}


def uv_environment(pip: dict[str, str]) -> dict[str, str]:
    """uv's variables for pip's settings; what uv is told already (UV_...) stays."""
    several = {name: " ".join(value.split()) for name, value in pip.items()}
    wanted = {
        "UV_DEFAULT_INDEX": several.get("index-url"),
        "UV_INDEX": several.get("extra-index-url"),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": several.get("trusted-host"),
        "UV_HTTP_TIMEOUT": pip.get("timeout") or pip.get("default-timeout"),
        "UV_NO_INDEX": "true" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else None,
        "SSL_CERT_FILE": pip.get("cert"),
        # As pip does: a package may come from any of the indexes. Every file is checked against the lock's hashes.
        "UV_INDEX_STRATEGY": "unsafe-best-match" if pip.get("extra-index-url") else None,
    }
    return {name: value for name, value in wanted.items() if value and name not in os.environ}


def _locked(package: str, lock: str) -> str:
    """One package's lines of the lock, hashes included."""
    match = re.search(rf"^{package}==.*?(?=^[^\s]|\Z)", lock, re.MULTILINE | re.DOTALL)
    if match is None:
        raise SystemExit(f"requirements.lock does not name {package}; `make lock` writes it anew")
    return match.group()


def _fingerprint() -> str:
    parts = [LOCK.read_bytes(), (PROJECT / "pyproject.toml").read_bytes(), sys.version.encode(), str(VENV).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _uv(python: Path) -> tuple[list[str], dict[str, str]]:
    """uv's command and environment, as this machine's pip is set up."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "config", "list"]
    said = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    env = {**os.environ, **uv_environment(pip_settings(said)), "VIRTUAL_ENV": str(VENV)}
    return [str(VENV / "bin" / "uv"), "pip"], env


def lock() -> None:
    """Resolves requirements.lock anew from pyproject.toml, for every platform, with hashes and without indexes."""
    uv, env = _uv(VENV / "bin" / "python")
    plain = ["--no-header", "--no-annotate", "--generate-hashes", "--universal", "--python-version", "3.11"]
    command = [*uv, "compile", "pyproject.toml", "--group", "dev", *plain, "--upgrade", "--quiet", "-o", str(LOCK)]
    subprocess.run(command, check=True, cwd=PROJECT, env=env)


def build() -> None:
    """Builds the environment, or finds that it is built already."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(f"Overnight needs Python 3.11, this is {sys.version.split()[0]}; try `make PYTHON=python3.11`")
    if STAMP.exists() and STAMP.read_text() == _fingerprint():
        return
    print("Building .venv from requirements.lock (some minutes the first time) ...", flush=True)
    python = VENV / "bin" / "python"
    if not python.exists():
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    with tempfile.TemporaryDirectory() as folder:
        only = Path(folder) / "uv.txt"
        only.write_text(_locked("uv", LOCK.read_text()))
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--require-hashes", "--no-deps", "-r", str(only)], check=True)
    uv, env = _uv(python)
    if not sys.stderr.isatty():
        uv.append("--quiet")  # one line a package otherwise
    # Compiled here, or the first import of everything pays for it, in the middle of the demo.
    sync = [*uv, "sync", "--require-hashes", "--compile-bytecode", "--python", str(python), str(LOCK)]
    subprocess.run(sync, check=True, cwd=PROJECT, env=env)
    install = [*uv, "install", "--no-deps", "--no-build-isolation", "--python", str(python), "--editable", "."]
    subprocess.run(install, check=True, cwd=PROJECT, env=env)
    STAMP.write_text(_fingerprint())


if __name__ == "__main__":
    try:
        lock() if sys.argv[1:] == ["--lock"] else build()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(error.cmd[:3])} ... failed with exit code {error.returncode}") from None

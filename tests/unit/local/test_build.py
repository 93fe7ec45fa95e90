"""The environment is built as this machine's pip is set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.local import build

_PIP = """\
global.cert='/etc/ssl/certs/ca.crt'
global.index-url='https://files.example/simple'
install.find-links='/opt/wheels\\n/srv/wheels'
:env:.extra-index-url='https://one.example/simple https://two.example/simple'
:env:.default-timeout='180'
"""


@pytest.fixture(autouse=True)
def _no_uv_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_FIND_LINKS",
        "UV_HTTP_TIMEOUT",
        "SSL_CERT_FILE",
        "UV_INDEX_STRATEGY",
    ):
        monkeypatch.delenv(name, raising=False)


def test_uv_looks_where_pip_looks() -> None:
    assert build.uv_environment(build.pip_settings(_PIP)) == {
        "UV_DEFAULT_INDEX": "https://files.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/opt/wheels,/srv/wheels",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca.crt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_the_environment_goes_before_pips_files() -> None:
    said = ":env:.index-url='https://env/simple'\nglobal.index-url='https://file/simple'"
    assert build.pip_settings(said) == {"index-url": "https://env/simple"}


def test_what_uv_is_told_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine/simple")
    assert "UV_DEFAULT_INDEX" not in build.uv_environment({"index-url": "https://file/simple"})


def test_a_machine_without_settings_has_none() -> None:
    assert build.uv_environment(build.pip_settings("")) == {}


def test_uv_itself_is_taken_from_the_lock_with_its_hashes() -> None:
    block = build._locked("uv", build.LOCK.read_text())
    assert block.startswith("uv==")
    assert "--hash=sha256:" in block
    assert len([line for line in block.splitlines() if "==" in line]) == 1


def test_no_index_is_written_in_the_project() -> None:
    root = Path(build.PROJECT)
    for path in (root / "requirements.lock", root / "pyproject.toml", root / "Makefile"):
        text = path.read_text()
        assert not [word for word in ("index-url", "find-links", "://pypi") if word in text], path.name

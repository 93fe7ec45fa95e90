"""Warm workers: what is imported once, where, and what happens when it goes wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import warm

PROJECT = Path(__file__).resolve().parents[2]
PLUGIN = PROJECT / "plugins" / "airflow_local_settings.py"


@pytest.mark.parametrize("module", sorted({module for modules in warm.MODULES.values() for module in modules}))
def test_every_module_that_a_step_names_exists(module: str) -> None:
    top = module.partition(".")[0]
    found = importlib.util.find_spec(module if top == "pipelines" else top)
    assert found is not None


def test_a_module_that_fails_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "MODULES", {"land": ("no_such_module_here", "json")})
    failed = warm.load_all()
    assert list(failed) == ["no_such_module_here"]
    assert "ModuleNotFoundError" in failed["no_such_module_here"]


def _as(arguments: list[str], code: str = "", **env: str) -> str:
    """What the plugin file says in a process with these arguments, the heavy modules replaced by light ones."""
    script = (
        "import runpy, sys\n"
        "from pipelines import warm\n"
        "sys.modules.pop('pipelines.warm')\n"
        f"sys.argv = ['airflow', *{arguments!r}]\n"
        f"{code}\n"
        f"found = runpy.run_path({str(PLUGIN)!r})\n"
        "print('public:', [name for name in found.get('__all__')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=PROJECT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


_LIGHT = "import pipelines.warm as w; w.MODULES = {'land': ('json',)}; sys.modules.pop('pipelines.warm');"
_STUB = (
    "import types; m = types.ModuleType('pipelines.warm'); m.load_all = LOADER; import pipelines; pipelines.warm = m"
)


@pytest.mark.parametrize("arguments", [["scheduler"], ["scheduler", "--skip-serve-logs"], ["celery", "worker"]])
def test_the_process_that_forks_workers_is_warmed(arguments: list[str]) -> None:
    said = _as(arguments, _STUB.replace("LOADER", "lambda: {}"))
    assert "imported once for every task" in said


@pytest.mark.parametrize(
    "arguments", [["api-server"], ["dag-processor"], ["triggerer"], ["celery", "flower"], ["tasks", "run"], []]
)
def test_no_other_process_is(arguments: list[str]) -> None:
    assert "imported once" not in _as(arguments, _STUB.replace("LOADER", "lambda: {}"))


def test_a_setting_turns_it_off() -> None:
    said = _as(["scheduler"], _STUB.replace("LOADER", "lambda: {}"), OVERNIGHT_WARM="0")
    assert "turned off" in said
    assert "imported once" not in said


def test_a_module_that_cannot_be_imported_is_named_in_the_log() -> None:
    said = _as(["scheduler"], _STUB.replace("LOADER", "lambda: {'torch': 'ImportError: no CUDA'}"))
    assert "torch" in said
    assert "slower" in said


def test_whatever_goes_wrong_the_scheduler_starts() -> None:
    said = _as(["scheduler"], _STUB.replace("LOADER", "lambda: 1 / 0"))
    assert "ZeroDivisionError" in said
    assert "only slower" in said


def test_airflow_takes_no_setting_from_the_file() -> None:
    assert "public: []" in _as(["api-server"])

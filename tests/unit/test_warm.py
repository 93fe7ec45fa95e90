"""Warm workers: what is imported once, where, and what happens when it goes wrong."""

from __future__ import annotations

import importlib.util
import os
import re
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


def test_a_step_counts_what_it_still_had_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "MODULES", {"land": ("colorsys", "json")})
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert warm.load("land") == 1
    assert warm.load("land") == 0


#: Airflow itself takes seconds to import: its modules are refused, and its settings are what the environment says.
_NO_AIRFLOW = """
import os, types
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.modules["airflow.configuration"] = configuration = types.ModuleType("airflow.configuration")
configuration.conf = types.SimpleNamespace(get=lambda *_: os.environ.get("AIRFLOW__CORE__EXECUTOR", "LocalExecutor"))
"""


def _as(arguments: list[str], code: str = "", after: str = "", **env: str) -> str:
    """What the plugin file says in a process with these arguments, the heavy modules replaced by light ones."""
    script = (
        "import runpy, sys\n"
        "from pipelines import warm\n"
        "sys.modules.pop('pipelines.warm')\n"
        f"{_NO_AIRFLOW}\n"
        f"sys.argv = ['airflow', *{arguments!r}]\n"
        f"{code}\n"
        f"found = runpy.run_path({str(PLUGIN)!r})\n"
        "print('public:', [name for name in found.get('__all__')])\n"
        f"{after}\n"
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


@pytest.mark.parametrize(("executor", "warmed"), [("CeleryExecutor", False), ("CeleryExecutor,LocalExecutor", True)])
def test_a_scheduler_is_warmed_only_when_it_forks_workers(executor: str, warmed: bool) -> None:
    said = _as(["scheduler"], _STUB.replace("LOADER", "lambda: {}"), AIRFLOW__CORE__EXECUTOR=executor)
    assert ("imported once for every task" in said) == warmed


_NOW = """
import sqlalchemy
with sqlalchemy.create_engine("sqlite://").connect() as connection:
    read = connection.scalar(sqlalchemy.select(sqlalchemy.cast(sqlalchemy.func.now(), sqlalchemy.String)))
    later = sqlalchemy.select(sqlalchemy.literal("2026-01-01 00:00:00.500000") <= sqlalchemy.func.now())
    print("now:", read, connection.scalar(later))
from sqlalchemy.dialects import postgresql
print("postgres:", sqlalchemy.func.now().compile(dialect=postgresql.dialect()))
"""


def test_the_schedulers_now_counts_milliseconds_on_sqlite_and_is_its_own_elsewhere() -> None:
    said = _as(["scheduler"], _STUB.replace("LOADER", "lambda: {}"), _NOW, OVERNIGHT_WARM="0")
    assert re.search(r"now: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} True", said), said
    assert "postgres: now()" in said
    assert re.search(r"now: \S+ \d\d:\d\d:\d\d True", _as(["api-server"], "", _NOW)), "nothing else is touched"


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

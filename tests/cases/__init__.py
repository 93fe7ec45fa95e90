"""Small use cases that tests share: real flights of a few days, and a made-up hourly case with three classes.

Each maker writes a project folder (`include/use_cases`, `include/expectations`) and a landing zone, and returns a
`Case`. Nothing here reads the environment or the clock.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from gzip import compress
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import yaml

from pipelines.partitions import shift, span, start
from pipelines.spec import UseCase, load_spec

REPOSITORY = Path(__file__).resolve().parents[2]
FLIGHTS_FIRST, FLIGHTS_LAST = "2013-01-01", "2013-01-21"
READINGS_FIRST = "2024-02-28T20"
STATES = ("idle", "running", "fault")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A use case on disk: where its project and its files are, and what the spec says."""

    project: Path
    """Holds include/; what OVERNIGHT_PROJECT would be."""
    landing: Path
    """The landing zone; what OVERNIGHT_LANDING would be."""
    path: Path
    """The spec's file."""
    spec: UseCase
    keys: tuple[str, ...]
    """The partitions whose files are in the landing zone."""


def landing_module(name: str = "flights") -> ModuleType:
    """include/landing/<name>.py, imported from its file as the command line does."""
    file = REPOSITORY / "include" / "landing" / f"{name}.py"
    found = importlib.util.spec_from_file_location(f"overnight_landing_{name}", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def make_flights_case(
    project: Path,
    landing: Path,
    *,
    first: str = FLIGHTS_FIRST,
    last: str = FLIGHTS_LAST,
    name: str = "flights",
    changes: Mapping[str, Any] | None = None,
) -> Case:
    """The shipped flights spec (or arrival_delay) over real days, its training made small.

    Args:
        project: a folder that gets its own include/.
        landing: where the daily files go; files that are there already are written again, the same.
        first: first day laid out.
        last: last day laid out.
        name: which of the shipped specs.
        changes: keys of the spec to replace, by section, such as `{"gates": {"bound": 0.9}}`.
    """
    landing_module().lay_out(landing, first, last)
    folder = project / "include"
    for part in ("expectations", "lakefs"):
        shutil.copytree(REPOSITORY / "include" / part, folder / part, dirs_exist_ok=True)
    raw = yaml.safe_load((REPOSITORY / "include" / "use_cases" / f"{name}.yaml").read_text("utf-8"))
    small: dict[str, Any] = {
        "training": {
            "teacher": {"k": 2, "width": 32, "depth": 1, "bins": 8, "epochs": 1, "batch_rows": 512},
            "student": {"widths": [32], "epochs": 2, "batch_rows": 512},
            "calibration_rows": 512,
            "validation": 3,
            "holdout": 3,
        },
        "gates": {"max_loss_to_lightgbm": 0.2, "max_loss_to_fp32": 0.05},
        "drift": {"window": 4, "report_rows": 200},
        "retraining": {"cooldown": 3, "min_labels": 500},
    }
    for section, values in (*small.items(), *(changes or {}).items()):
        raw[section] = {**raw[section], **values} if isinstance(values, Mapping) else values
    path = folder / "use_cases" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return Case(project=project, landing=landing, path=path, spec=load_spec(path), keys=tuple(span(first, last, "day")))


def make_third_case(project: Path, landing: Path, hours: int = 36, *, rows: int = 60, seed: int = 11) -> Case:
    """Pumps and their states: hourly partitions over a leap day, learnable, the same for the same seed.

    Args:
        project: a folder that gets its own include/.
        landing: where the hourly files go; labels are there for every hour.
        hours: how many partitions.
        rows: rows a partition.
        seed: of the random numbers.
    """
    path = project / "include" / "use_cases" / "readings.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("readings.yaml"), path)
    suite = project / "include" / "expectations" / "readings_rows.yaml"
    suite.parent.mkdir(parents=True, exist_ok=True)
    suite.write_text(
        "- expect: column_values_to_be_between\n  kwargs: {column: starts, min_value: 0, max_value: 100}\n", "utf-8"
    )
    keys = span(READINGS_FIRST, shift(READINGS_FIRST, hours - 1, "hour"), "hour")
    for number, key in enumerate(keys):
        readings, states = _hour(key, rows, random.Random(seed * 1_000_003 + number))
        _put(landing / "readings" / f"hour={key}" / "readings.jsonl.gz", readings)
        states_file = landing / "states" / f"{key}.parquet"
        states_file.parent.mkdir(parents=True, exist_ok=True)
        states.write_parquet(states_file)
    return Case(project=project, landing=landing, path=path, spec=load_spec(path), keys=tuple(keys))


def _put(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(text.encode(), mtime=0))


def _hour(key: str, rows: int, dice: random.Random) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    begin = start(key, "hour")
    readings: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    for pump in range(rows):
        at = begin + timedelta(seconds=60 * pump % 3600, microseconds=pump)
        site = dice.choice(("north", "south", "east"))
        pressure, starts, door = dice.gauss(0, 1), dice.randrange(10), dice.random() < 0.3
        drive = 1.6 * pressure + (1.0 if site == "north" else 0.0) + 0.15 * starts + dice.gauss(0, 0.3)
        state = "fault" if door and pressure > 0 else "running" if drive > 0.8 else "idle"
        readings.append(
            {
                "pump": pump,
                "read_at": at.isoformat(timespec="microseconds"),
                "pressure": None if dice.random() < 0.05 else round(pressure, 4),
                "starts": starts,
                "door_open": door,
                "site": site,
                "line": dice.randrange(1, 5),
                "serviced_on": None if pump % 7 == 0 else (begin - timedelta(days=pump)).date().isoformat(),
            }
        )
        # One in forty is never labelled, as in life.
        states.append({"pump": pump, "read_at": at, "state": None if dice.random() < 0.025 else state})
    schema = {"pump": pl.Int64, "read_at": pl.Datetime("us", "UTC"), "state": pl.String}
    return readings, pl.DataFrame(states, schema=schema)

"""Runs every benchmark (or those named), prints one table, writes var/bench/results.json."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Result
from pipelines.settings import Settings

_FOLDER = Path(__file__).parent


def main() -> int:
    """Exit code 1 when a benchmark broke; a goal that was missed is reported, not hidden, and is no failure."""
    names = sys.argv[1:] or sorted(path.stem.removeprefix("bench_") for path in _FOLDER.glob("bench_*.py"))
    results: list[Result] = []
    broken = []
    for name in names:
        print(f"bench {name} ...", file=sys.stderr, flush=True)
        try:
            results += importlib.import_module(f"benchmarks.bench_{name}").measure()
        except Exception as error:
            broken.append(name)
            print(f"bench {name} broke: {type(error).__name__}: {error}", file=sys.stderr)
    table = Table(title="ours against the peer, in the same run")
    for heading in ("name", "ours", "peer", "unit", "ratio", "goal", "note"):
        table.add_column(heading, overflow="fold")
    for result in results:
        goal = "-" if result.goal is None else f"{result.goal:g} {'met' if result.met else 'MISSED'}"
        row = (f"{result.ours:.4g}", f"{result.peer:.4g}", result.unit, f"{result.ratio:.2f}", goal, result.note)
        table.add_row(result.name, *row)
    Console(width=160).print(table)
    target = Settings().home / "bench" / "results.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([result.as_dict() for result in results], indent=2) + "\n", "utf-8")
    print(f"written to {target}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

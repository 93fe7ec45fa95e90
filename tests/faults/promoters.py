"""Processes that promote, roll back and register, and may be killed where they stand.

They fork from a process of their own that has imported what they need and done nothing else: importing MLflow takes
seconds, a fork some milliseconds. Run as a module it is that process; it reads one line of JSON a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cases.champions import Champions

_ROOT = Path(__file__).resolve().parents[2]


class Promoters:
    """A server that acts in processes of their own, several at once where asked."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.promoters"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def act(self, champions: Champions, *actions: Sequence[Any], failpoint: str = "") -> list[str]:
        """Takes all actions at the same time, a process each, and returns what became of them, in order.

        Args:
            actions: each a name of `_ACTIONS` and its arguments.
            failpoint: where each dies.

        Returns:
            `done ...`, the name of an error and its message, or `killed`.
        """
        about = {
            "project": str(champions.project),
            "home": str(champions.home),
            "evaluation": champions.evaluation.model_dump(mode="json"),
            "report": champions.report.model_dump(mode="json"),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"about": about, "actions": actions, "failpoint": failpoint}) + "\n")
        self._server.stdin.flush()
        outcomes: list[str] = json.loads(self._server.stdout.readline())
        return outcomes

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


def _promote(champions: Champions, run_id: str, version: int, over: int | None) -> str:
    return f"done {champions.promote(version, run_id, over=over).epoch}"


def _rollback(champions: Champions, run_id: str, reason: str) -> str:
    return f"done {champions.runtime(run_id).rollback(None, reason).epoch}"


def _register(champions: Champions, run_id: str) -> str:
    """A fourth version, of a run of its own."""
    from tests.cases.champions import again

    runtime = champions.runtime(run_id)
    trained, _ = runtime.examine(runtime.candidate(1))
    fourth = again(runtime, trained, "fourth")
    evaluation, report = champions.judged(runtime.candidate(1), None)
    model = runtime.register(fourth, evaluation.model_copy(update={"challenger_run": fourth.run_id}), report)
    return f"done {model.version}"


def _gate(champions: Champions, run_id: str, version: int) -> str:
    runtime = champions.runtime(run_id)
    trained, evaluation = runtime.examine(runtime.candidate(version))
    worse = evaluation.challenger.model_copy(update={"metrics": {"auc": 0.1}})
    return f"done {runtime.gate(trained, evaluation.model_copy(update={'challenger': worse})).passed}"


def _restore(champions: Champions, run_id: str) -> str:
    return f"done {champions.runtime(run_id).restore_aliases().moved}"


_ACTIONS = {"promote": _promote, "rollback": _rollback, "register": _register, "gate": _gate, "restore": _restore}


def _serve() -> None:
    import lightgbm  # noqa: F401
    import mlflow  # noqa: F401
    import onnxruntime  # noqa: F401

    import pipelines.backends.mlflow_registry
    import pipelines.steps.by_hand  # noqa: F401
    from pipelines.records import Evaluation, GateReport

    for line in sys.stdin:
        asked = json.loads(line)
        about = asked["about"]
        champions = Champions(
            project=Path(about["project"]),
            home=Path(about["home"]),
            evaluation=Evaluation.model_validate(about["evaluation"]),
            report=GateReport.model_validate(about["report"]),
        )
        ready, go = os.pipe(), os.pipe()
        children = [_child(champions, action, asked["failpoint"], ready, go) for action in asked["actions"]]
        for _ in children:
            os.read(ready[0], 1)
        os.write(go[1], b"." * len(children))
        outcomes = []
        for pid, said in children:
            with os.fdopen(said) as pipe:
                words = pipe.read()
            _, status = os.waitpid(pid, 0)
            outcomes.append(words or ("killed" if os.WIFSIGNALED(status) else f"ended with {status}"))
        for end in (*ready, *go):
            os.close(end)
        sys.stdout.write(json.dumps(outcomes) + "\n")
        sys.stdout.flush()


def _child(
    champions: Champions, action: list[Any], failpoint: str, ready: tuple[int, int], go: tuple[int, int]
) -> tuple[int, int]:
    """Forks a process that opens everything, waits at the barrier, acts, and says what came of it."""
    said, says = os.pipe()
    pid = os.fork()
    if pid:
        os.close(says)
        return pid, said
    words = ""
    try:
        os.environ["OVERNIGHT_FAILPOINT"] = failpoint
        name, run_id, *arguments = action
        champions.runtime(run_id).registry.versions()  # opening MLflow's store takes longer than any race
        os.write(ready[1], b".")
        os.read(go[0], 1)
        words = _ACTIONS[name](champions, run_id, *arguments)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        traceback.print_exc(file=sys.stderr)
    finally:
        os.write(says, words.encode())
        os._exit(0)


if __name__ == "__main__":
    _serve()

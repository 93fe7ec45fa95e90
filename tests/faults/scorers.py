"""Processes that score nights, and may be killed or held wherever they stand.

They fork from a process of their own that has imported what they need and done nothing else. Run as a module it is that
process; it reads one line of JSON a round, and answers with two: who acts, and what became of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.runtime import Runtime

_ROOT = Path(__file__).resolve().parents[2]
#: When the nights of these tests were due.
AT = datetime(2024, 6, 2, 2, tzinfo=UTC)
#: Where several processes may wait for each other.
OPENED, PLANNED, AUDITED = "opened", "planned", "audited"
_PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Night:
    """A run that scores partitions."""

    project: Path
    home: Path
    partitions: Sequence[str]
    run_id: str = "night"
    at: datetime = AT
    version: int | None = None
    """The model that was named; the champion when none was."""
    shards: bool = False
    """Whether it is scored shard by shard, and merged."""

    def runtime(self) -> Runtime:
        """The use case, for this run."""
        from pipelines.records import RunInfo
        from pipelines.runtime import Runtime
        from pipelines.settings import Settings
        from tests.cases.champions import NAME

        run = RunInfo(run_id=self.run_id, dag_id=f"{NAME}_score", code_version="test", at=self.at)
        return Runtime.open(NAME, run=run, settings=Settings(project=self.project, home=self.home, code_version="test"))

    def act(self, meet: Callable[[str], None] = lambda _: None) -> str:
        """Plans, scores, audits and publishes.

        Args:
            meet: called where several runs may wait for each other.
        """
        runtime = self.runtime()
        runtime.registry.versions()  # opening MLflow's store takes longer than any race
        meet(OPENED)
        plan = runtime.plan_scores(self.partitions, self.version or "champion")[0]
        meet(PLANNED)
        if self.shards:
            scored = runtime.stage_pieces(plan, [runtime.score_shard(plan, shard) for shard in plan.shards])
        else:
            scored = runtime.score_plan(plan)
        audited = runtime.audit_scores(scored)
        meet(AUDITED)
        done = runtime.publish_scores(audited)
        return ", ".join(f"{each.partition} {each.state} v{each.model_version}" for each in done)


@dataclass
class Round:
    """Processes that are under way."""

    server: subprocess.Popen[str]
    pids: list[int]
    _outcomes: list[str] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL to all of them that still run: no handler runs, nothing is cleaned up. Nobody else waits for them,
        so that a number is theirs until `outcomes` was asked."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self._say("killed")

    def outcomes(self) -> list[str]:
        """Waits for all; what became of each, in order: what was done, an error's name and message, or `killed`."""
        if not self._outcomes:
            self._say("wait")
        return self._outcomes

    def _say(self, word: str) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(word + "\n")
        self.server.stdin.flush()
        self._outcomes = json.loads(self.server.stdout.readline())


class Scorers:
    """A server that scores in processes of their own."""

    def __init__(self, warm: Night) -> None:
        """Starts the server.

        Args:
            warm: a night that is never run: MLflow's store takes a second to open, and after this one a moment.
        """
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.scorers", str(warm.project), str(warm.home)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *nights: Night, failpoint: str = "", meet: Sequence[str] = ()) -> Round:
        """Starts all nights at the same time, a process each; they stand before their plan.

        Args:
            failpoint: where each dies.
            meet: where they wait for each other.
        """
        asked = [{**vars(night), "at": night.at.isoformat()} for night in nights]
        told = json.dumps({"nights": asked, "failpoint": failpoint, "meet": list(meet)}, default=str)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(told + "\n")
        self._server.stdin.flush()
        return Round(self._server, json.loads(self._server.stdout.readline()))

    def run(self, *nights: Night, failpoint: str = "", meet: Sequence[str] = ()) -> list[str]:
        """Starts them and waits for their ends."""
        return self.start(*nights, failpoint=failpoint, meet=meet).outcomes()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


def _serve(project: Path, home: Path) -> None:
    import mlflow  # noqa: F401
    import onnxruntime  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import tests.cases.champions  # noqa: F401

    assert Night(project=project, home=home, partitions=()).runtime().registry.versions()
    for line in sys.stdin:
        asked = json.loads(line)
        nights = [_night(each) for each in asked["nights"]]
        barrier = multiprocessing.get_context("fork").Barrier(len(nights))
        begun = [_child(night, asked["failpoint"], asked["meet"], barrier) for night in nights]
        for _, ready, _ in begun:
            ready.readline()
        _answer([pid for pid, _, _ in begun])
        sys.stdin.readline()  # the test has killed them, or waits
        _answer([_outcome(pid, said) for pid, _, said in begun])


def _answer(told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _night(told: dict[str, Any]) -> Night:
    paths = {name: Path(told[name]) for name in ("project", "home")}
    return Night(**{**told, **paths, "at": datetime.fromisoformat(told["at"])})


def _outcome(pid: int, said: Any) -> str:
    with said:
        words: str = said.read()
    _, status = os.waitpid(pid, 0)
    return "killed" if os.WIFSIGNALED(status) else words


def _child(night: Night, failpoint: str, meet: Sequence[str], barrier: Any) -> tuple[int, Any, Any]:
    """Forks a process that scores a night and says what came of it."""
    stands, standing = os.pipe()
    said, says = os.pipe()
    pid = os.fork()
    if pid:
        os.close(standing)
        os.close(says)
        return pid, os.fdopen(stands), os.fdopen(said)
    words = "?"
    try:
        os.environ["OVERNIGHT_FAILPOINT"] = failpoint

        def wait(place: str) -> None:
            if place == OPENED:
                os.write(standing, b"ready\n")
            if place in meet:
                barrier.wait(_PATIENCE)

        words = night.act(wait)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        traceback.print_exc(file=sys.stderr)
    finally:
        os.write(says, words.encode())
        os._exit(0)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))

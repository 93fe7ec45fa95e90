"""Ray's driver: a process of its own that hands a plan's shards to a cluster and writes what comes back.

Ray ends a driver that lost its cluster, waits for minutes for one that is silent, and leaves threads behind. In a
process of its own it can do all of that: `ray_pool` watches it. It is told one file and says JSON lines:
{"connected": address}, {"lost": text}, {"kept": shard}, {"finished": true}, {"error": class, "text": text}.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.backends.ray_pieces import keep
from pipelines.backends.ray_worker import Answer, pack, raised, work
from pipelines.errors import OvernightError, UnavailableError, explain
from pipelines.machine import available_memory, usable_cores

#: Times that a shard may be begun.
ATTEMPTS = 4
#: Seconds between two looks at whether the cluster still has processors.
_LOOK = 2.0
_COLOURS = re.compile(r"\x1b\[\d*m")
_STORE_LEAST, _STORE_MOST = 80 * 2**20, 2**30


def main() -> int:
    """Runs what a file asks for."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    try:
        with _cluster(asked):
            _Run(asked).finish()
            _say(finished=True)
    except OvernightError as error:
        _say(error=type(error).__name__, text=str(error))
        return 1
    return 0


def _end_with_parent() -> None:
    """Waits for the end of what started this process, and ends it and all that it started.

    Ray's own way takes a minute for some of them, and SIGTERM drains a node for half of one.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


@contextmanager
def _cluster(asked: Mapping[str, Any]) -> Iterator[None]:
    """A connection to the cluster at `address`; without one, a cluster of this machine while the block lasts."""
    address = asked["address"]
    if address is not None:
        _knock(address, asked["patience"])
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=usable_cores(),
                include_dashboard=False,
                object_store_memory=max(_STORE_LEAST, min(_STORE_MOST, available_memory() // 8)),
                # 127.0.0.1 would be taken for the machine's own address. Other systems than Linux have no other.
                _node_ip_address="127.0.0.2" if sys.platform == "linux" else None,
                **quiet,
            )
    except Exception as error:  # of no class in particular
        raise _silent(address, str(error)) from None
    _say(connected=address or "local")
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str, patience: float) -> None:
    """Asks whether anybody listens, which Ray takes minutes to find out."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=min(patience, 10.0)).close()
    except (OSError, ValueError) as error:
        raise _silent(address, str(error)) from None


def _silent(address: str | None, why: str) -> UnavailableError:
    where = f"Ray at {address}" if address else "Ray on this machine"
    remedy = "look at the cluster's head, and at OVERNIGHT_RAY_ADDRESS (host:port)" if address else "see its log"
    return UnavailableError(explain(where, f"it does not answer: {why[:500]}", remedy=remedy))


class _Run:
    """One plan's shards on their way."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        import ray

        self._ray: Any = ray
        self._asked = asked
        self._out = Path(asked["out"])
        self._cpus = float(asked["cpus"])
        self._threads = max(1, int(self._cpus))
        self._waiting = deque(asked["shards"])
        self._running: dict[Any, str] = {}
        self._begun: Counter[str] = Counter()
        job = {name: asked[name] for name in ("function", "spec", "plan", "digest", "settings")}
        # Put once: a node fetches each of them once, and all its workers read them there.
        self._job: Any = ray.put(job)
        import numpy as np

        self._packed: Any = ray.put(np.frombuffer(pack(Path(asked["artifact"])), dtype=np.uint8))
        # What is lost is begun again here, where it is counted: Ray's own retries would not be.
        self._remote = ray.remote(num_cpus=self._cpus, max_retries=0, scheduling_strategy="SPREAD")(work)

    def finish(self) -> None:
        """Goes on until every shard is kept.

        Raises:
            OvernightError: what a worker raised.
            UnavailableError: a shard was lost too often, or there are no processors.
        """
        seen = time.monotonic()
        while self._waiting or self._running:
            # No more than these are in the cluster's memory, and one in this process's.
            while self._waiting and len(self._running) < self._asked["parallel"]:
                self._begin(self._waiting.popleft())
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK)
            for reference in done:
                self._end(reference, self._running.pop(reference))
            if done or self._fits():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._asked["patience"]:
                raise UnavailableError(
                    explain(
                        "Ray",
                        f"no node has had {self._cpus:g} processors for {self._asked['patience']:g} s",
                        remedy="start nodes, or ask for fewer with OVERNIGHT_RAY_CPUS",
                    )
                )

    def _fits(self) -> bool:
        """Whether any node has, busy or not, the processors that a shard is given."""
        nodes = (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return any(has.get("CPU", 0.0) >= self._cpus for has in nodes)

    def _begin(self, shard: str) -> None:
        self._begun[shard] += 1
        self._running[self._remote.remote(self._job, self._packed, shard, self._threads)] = shard

    def _end(self, reference: Any, shard: str) -> None:
        errors = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(reference)
        except errors.RayTaskError as error:
            # Not one of ours. Its class may not exist here; its text and its place do.
            _say(trace=_COLOURS.sub("", str(error)))
            raise RuntimeError(f"shard {shard} failed") from None
        except errors.RayError as error:
            self._lost(shard, error)
            return
        if "error" in answer:
            raise raised(answer)
        keep(self._out, shard, answer["files"])
        _say(kept=json.loads(shard), begun=self._begun[shard])

    def _lost(self, shard: str, error: Exception) -> None:
        """A worker or its node died, or what it made was lost with a node."""
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if self._begun[shard] >= ATTEMPTS:
            raise UnavailableError(
                explain(
                    f"shard {shard}",
                    f"it was lost {ATTEMPTS} times, at last by {why}",
                    remedy="see Ray's logs; out of memory, lower scoring.shard_rows or scoring.tile_rows",
                )
            )
        _say(lost=f"shard {shard} was lost ({why}); it is begun again, {self._begun[shard] + 1} of {ATTEMPTS}")
        self._waiting.append(shard)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    with suppress(Exception):
        sys.stderr.flush()
    os._exit(code)

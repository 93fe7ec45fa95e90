"""`python -m include.local up | down | status`: the servers of `make up` and `make down`."""

from __future__ import annotations

import sys
import time

from include.local import processes, servers


def _show(state: servers.State, where: servers.Places) -> None:
    print(f"Airflow  {state.airflow_url}   user {servers.USER}   password {servers.password(where)}")
    print(f"MLflow   {state.mlflow_url}")
    print(f"Logs     {where.logs}")
    print("`make down` stops them.")


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit code."""
    where = servers.places()
    match arguments:
        case ["up"]:
            begun = time.monotonic()
            try:
                if servers.read_state(where):
                    state = servers.wait_until_ready(where, ended=lambda: servers.read_state(where) is None)
                    print("Running already.")
                else:
                    print("Starting Airflow and MLflow (about a minute) ...", flush=True)
                    state = servers.start(where, tied=False)
                    print(f"Up after {time.monotonic() - begun:.0f} s.")
            except servers.ServerError as error:
                print(error, file=sys.stderr)
                return 1
            _show(state, where)
            return 0
        case ["down"]:
            print("Stopped." if servers.stop(where) else "Nothing of this checkout is running.")
            return 0
        case ["status"]:
            if state := servers.read_state(where):
                _show(state, where)
                return 0
            print("Not running.")
            return 1
        case ["supervise", *options] if options in ([], ["--tied"]):
            if options:
                processes.die_with_parent()
            return servers.supervise(where)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

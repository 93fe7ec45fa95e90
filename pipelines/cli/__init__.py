"""`overnight`: every step and the whole chain without Airflow. Exit codes: 0 done, 1 failed, 2 misuse."""

from __future__ import annotations

import logging
import os

import click

from pipelines import __version__
from pipelines.cli import (
    alerts,
    cards,
    chain,
    champion,
    decisions,
    delivery,
    drill,
    erasure,
    metrics,
    models,
    nights,
    provenance,
    snapshots,
    steps,
    watch,
)
from pipelines.cli.shared import Commands

#: A command is a function of one of these modules; each module lists its own.
_ROOMS = (
    alerts,
    chain,
    champion,
    decisions,
    watch,
    metrics,
    drill,
    nights,
    delivery,
    steps,
    cards,
    snapshots,
    models,
    provenance,
    erasure,
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Machine-learning nights without Airflow: for debugging, containers and tests.

    Everything is written under OVERNIGHT_HOME (default: var/).
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


for _room in _ROOMS:
    for _command in _room.COMMANDS:
        main.add_command(_command)

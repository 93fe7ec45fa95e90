"""`overnight erase`: a subject's rows, everywhere and for good."""

from __future__ import annotations

import click

from pipelines.cli.shared import json_option, print_json
from pipelines.records import Erasure
from pipelines.runtime import Runtime

#: What no command can look into.
_ELSEWHERE = (
    "Overnight removes nothing from the landing zone: it is the source system's. A file there that still holds the "
    "subject brings it back when it is ingested again.",
    "Logs and task messages of the scheduler may quote values of checks that failed (`airflow db clean`), and backups "
    "hold what they held.",
)
_HOLDS = {
    True: "; holds values of the column: retrain, then delete it",
    False: "",
    None: "; its artifact was not looked into",
}


@click.command()
@click.option("--use-case", required=True, help="Whose data.")
@click.option("--key", required=True, help="The subject, as column=value of any table of the use case.")
@click.option(
    "--reason", required=True, help="Why; kept for good in commits and tombstones. It may not name the subject."
)
@click.option("--yes", is_flag=True, help="Do it. Without this, nothing is changed: it says what would be.")
@json_option
def erase(use_case: str, key: str, reason: str, yes: bool, as_json: bool) -> None:
    """Remove a subject's rows for good: from every table and version, predictions, quarantine, samples and caches.

    Pause the use case's DAGs first: a run in flight must land its partitions again.
    """
    done = Runtime.open(use_case).erase(key, reason, act=yes)
    if as_json:
        print_json(done)
        return
    for line in told(done):
        click.echo(line)
    if not done.done and (done.found or done.staged):
        click.echo("Nothing was changed. Add --yes to erase.")


def told(done: Erasure) -> list[str]:
    """The result for a person; it does not name the subject."""
    was = "removed" if done.done else "to remove"
    lines = []
    if not done.found:
        lines.append(f"{done.use_case}: nothing is stored of this {done.column}.")
    elif done.tables:
        lines.append(f"{'table':<16} {'rows':>8} {'partitions':>11} {'files':>6}   ({was})")
        lines += [f"{t.table:<16} {t.rows:>8} {len(t.partitions):>11} {t.files:>6}" for t in done.tables]
    for title, entries in (
        (f"staged partitions, {was}: their runs must land them again", done.staged),
        (f"original files in quarantine, {was}", done.quarantined),
        (f"report pages, training sets and copies, {was}", done.files),
        ("predictions that can no longer be replayed byte for byte (erased)", done.unreplayable),
        ("still there, not Overnight's to remove", done.remains),
    ):
        if entries:
            lines += [f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries)]
    if done.models:
        earlier = "" if done.found else " earlier"
        lines.append(f"models trained on data that was erased{earlier}: {len(done.models)}")
        for entry in done.models:
            lines.append(f"  {entry.name} ({', '.join(entry.parts)}){_HOLDS[entry.holds_values]}")
    if done.id:
        lines.append(f"erasure {done.id}")
    return [*lines, *_ELSEWHERE]


COMMANDS = (erase,)

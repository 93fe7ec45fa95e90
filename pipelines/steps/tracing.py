"""`trace`: from the name of anything, where it came from and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipelines.errors import NotFoundError, RemovedError, explain
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import Link, SnapshotRef, Trace
from pipelines.spec import UseCase
from pipelines.steps.decisions import DECISIONS, decision_key
from pipelines.steps.links import ALIASES, Links, commit_link, is_data
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import PROMOTIONS, epoch_key
from pipelines.steps.provenance import Books, Part, all_tables, key_columns

FORMS = (
    "<use case>/<table>/<partition>, <use case>/<table>/<partition>#<key> (several key columns joined by |), "
    f"<use case>@<version>, <use case>@{'|'.join(ALIASES)}, a snapshot's id such as delta:flights/rows@12, "
    "a DAG run's id, or <dag>/<run id>"
)
_NAME = r"[a-z][a-z0-9_]{0,47}"
_PARTITION = re.compile(rf"({_NAME})/({_NAME})/([A-Za-z0-9][A-Za-z0-9_-]{{0,99}})(?:#([^\x00-\x1f\x7f]{{1,500}}))?")
_MODEL = re.compile(rf"({_NAME})@([1-9][0-9]{{0,8}}|{'|'.join(ALIASES)})")
#: What Airflow allows of ids.
_RUN = re.compile(r"(?:([A-Za-z0-9_][A-Za-z0-9_.-]{0,249})/)?([A-Za-z0-9_][A-Za-z0-9_.~:+-]{0,249})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A name, taken apart. What it names may not exist."""

    form: Literal["partition", "model", "snapshot", "run"]
    use_case: str | None = None
    """None for a run: any use case may know it."""
    table: str = ""
    partition: str = ""
    key: str | None = None
    model: str = ""
    """A version or an alias."""
    snapshot: SnapshotRef | None = None
    dag: str | None = None
    run: str = ""


def parse(text: str) -> Name:
    """Takes a name apart.

    Raises:
        NotFoundError: it has none of the forms.
    """
    if (found := _PARTITION.fullmatch(text)) is not None:
        use_case, table, partition, key = found.groups()
        return Name(form="partition", use_case=use_case, table=table, partition=partition, key=key)
    if (found := _MODEL.fullmatch(text)) is not None:
        return Name(form="model", use_case=found[1], model=found[2])
    if ":" in text and "@" in text:
        ref = SnapshotRef.parse(text)
        return Name(form="snapshot", use_case=ref.use_case, table=ref.table, snapshot=ref)
    if (found := _RUN.fullmatch(text)) is not None and ".." not in text:
        return Name(form="run", dag=found[1], run=found[2])
    raise _unknown(text, "it is no name of anything")


def _unknown(text: str, what: str) -> NotFoundError:
    return NotFoundError(explain(f"trace {text!r}", what, allowed=FORMS))


def trace(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, text: str) -> Trace:
    """Finds everything that is recorded of a thing, back to the files that landed and on to the predictions.

    Args:
        text: see `FORMS`.

    Raises:
        NotFoundError: it has none of the forms, or names nothing of this use case.
    """
    name = parse(text)
    if name.use_case not in (None, spec.name):
        raise _unknown(text, f"it is of another use case than {spec.name}")
    if name.table and name.table not in all_tables(spec):
        tables = ", ".join(all_tables(spec))
        raise NotFoundError(explain(f"trace {text!r}", f"{spec.name} has no table {name.table!r}", allowed=tables))
    books = Books(spec=spec, store=store, registry=registry)
    form = _Forms(books, Links(books), text)
    return Trace(name=text, use_case=spec.name, root=getattr(form, name.form)(name))


class _Forms:
    """One method a form of name."""

    def __init__(self, books: Books, links: Links, text: str) -> None:
        self._books = books
        self._links = links
        self._text = text

    def partition(self, name: Name) -> Link:
        """The partition as it is now, or was last; with a key, that row first."""
        commits = self._books.published(name.table, name.partition)
        aside = [] if name.table in (PROMOTIONS, DECISIONS) else self._quarantined(name)
        if not commits:
            if not aside:
                raise _unknown(self._text, f"{name.table} never held partition {name.partition!r}")
            what = {"state": "never published"}
            return Link(kind="partition", id=self._text.partition("#")[0], facts=what, links=tuple(aside))
        part = Part(table=name.table, partition=name.partition, digest=commits[0].partitions[name.partition])
        digests = dict.fromkeys(commit.partitions[name.partition] for commit in commits)
        before = [Part(table=name.table, partition=name.partition, digest=digest) for digest in digests]
        earlier = [self._before(each) for each in before if each != part]
        link = self._links.part(part, more=[*self._around(part), *earlier, *aside])
        return link if name.key is None else self._row(name, part, link)

    def _before(self, part: Part) -> Link:
        """Bytes that the partition held earlier: what was made of them may still be there."""
        scoring = self._books.scoring(part) if part.table == PREDICTIONS else None
        if scoring is not None:
            return self._links.scored(scoring, "before that", model=True)
        return self._links.part(part, "before that", more=self._links.used_by([part]) if is_data(part.table) else ())

    def _around(self, part: Part) -> list[Link]:
        """What a partition was made from beyond its files, and what was made of it."""
        if is_data(part.table):
            return self._links.used_by([part])
        if part.table == PREDICTIONS:
            scoring = self._books.scoring(part)
            if scoring is None:
                return [Link(kind="note", id="nothing is recorded of the model that made it")]
            model = self._links.model(scoring.version, "scored by", learned=True)
            return [*self._links.inputs(scoring), model]
        if part.table == PROMOTIONS:
            entries = [entry for entry in self._books.promotions if epoch_key(entry.epoch) == part.partition]
            return [
                link
                for entry in entries
                for link in (self._links.promotion(entry, "says"), self._links.model(entry.version, "champion since"))
            ]
        decided = [entry for entry in self._books.decisions if decision_key(entry.id) == part.partition]
        return [link for entry in decided for link in self._decided(entry.id)]

    def _decided(self, decision: str) -> list[Link]:
        entry = next(entry for entry in self._books.decisions if entry.id == decision)
        asked = [
            self._links.learner(training, "led to", scored=True)
            for training in self._books.trainings
            if training.tags.get("overnight.dag_run", "").partition("/")[2] == decision
        ]
        return [self._links.decision(entry, "says"), self._links.model(entry.champion, "about"), *asked]

    def _quarantined(self, name: Name) -> list[Link]:
        entries = [e for e in self._books.store.quarantined(name.table) if e.partition == name.partition]
        return [
            Link(
                kind="audit",
                id=entry.report.digest,
                how="set aside by",
                facts={
                    "suite": entry.report.suite,
                    "failed": [f"{c.name} {c.column or ''}".strip() for c in entry.report.failed],
                },
                links=tuple(
                    Link(kind="file", id=file.path, how="landed as", facts={"sha256": file.sha256, "bytes": file.bytes})
                    for file in entry.report.sources
                ),
            )
            for entry in entries
        ]

    def _row(self, name: Name, part: Part, partition: Link) -> Link:
        """The row itself; of a prediction, the input row that it was made from too."""
        assert name.key is not None
        columns = key_columns(self._books.spec, name.table)
        if not columns:
            raise _unknown(self._text, f"rows of {name.table} have no key")
        head = self._books.origin(part)
        assert head is not None
        facts = self._find(head.snapshot, name.partition, columns, name.key)
        links = [partition]
        scoring = self._books.scoring(part) if name.table == PREDICTIONS else None
        if scoring is not None and "rows" in scoring.snapshots:
            ref = scoring.snapshots["rows"]
            found = self._find(ref, name.partition, columns, name.key)
            row = f"{ref.use_case}/rows/{name.partition}#{name.key}"
            links.insert(0, Link(kind="row", id=row, how="scored from", facts=found))
        return Link(kind="row", id=self._text, facts=facts, links=tuple(links))

    def _find(self, snapshot: SnapshotRef, partition: str, columns: tuple[str, ...], key: str) -> dict[str, Any]:
        named = pl.concat_str([pl.col(column).cast(pl.String) for column in columns], separator="|")
        try:
            rows = self._books.store.scan(snapshot, [partition]).filter(named == key).collect()
            if rows.height != 1:
                example = self._books.store.scan(snapshot, [partition]).select(named).head(1).collect()
                allowed = (
                    f"the {' | '.join(columns)} of one row, such as {example.item()!r}" if example.height else None
                )
                what = f"{rows.height} rows of {snapshot.id} {partition} have the key {key!r}"
                raise NotFoundError(explain(f"trace {self._text!r}", what, allowed=allowed))
        except RemovedError as error:
            return {"state": str(error)}
        return {column: value if isinstance(value, int | float | None) else str(value)
                for column, value in rows.row(0, named=True).items()}  # fmt: skip

    def model(self, name: Name) -> Link:
        """A version with everything it learned from and everything it scored."""
        version = self._books.alias(name.model) if name.model in ALIASES else int(name.model)
        if version is None or self._books.training(version) is None:
            there = [str(run.model.version) for run in self._books.trainings if run.model is not None]
            allowed = f"versions {', '.join(there)}" if there else "none: train first"
            what = "there is no such model version" if version else f"nothing is {name.model}"
            raise NotFoundError(explain(f"trace {self._text!r}", what, allowed=allowed))
        return self._links.model(version, learned=True, scored=True)

    def snapshot(self, name: Name) -> Link:
        """What a snapshot's commit changed, and who read the snapshot."""
        ref = name.snapshot
        assert ref is not None
        held = self._books.store.partitions(ref)
        commit = self._books.commit(ref)
        facts: dict[str, Any] = {"partitions": len(held), "rows": sum(part.rows for part in held.values())}
        links: list[Link] = []
        if commit is not None:
            links = [commit_link(commit, "made as"), *self._changed(commit.table, commit.partitions)]
            if commit.removed:
                facts["removed"] = list(commit.removed)
        return Link(kind="snapshot", id=ref.id, facts=facts, links=(*links, *self._links.named_by(ref)))

    def _changed(self, table: str, partitions: dict[str, str]) -> list[Link]:
        parts = [Part(table=table, partition=key, digest=digest) for key, digest in sorted(partitions.items())]
        scorings = [self._books.scoring(part) if table == PREDICTIONS else None for part in parts]
        return [
            self._links.scored(scoring, "changed", model=True) if scoring else self._links.part(part, "changed")
            for part, scoring in zip(parts, scorings, strict=True)
        ]

    def run(self, name: Name) -> Link:
        """Everything that a run did, and what was made of it."""
        commits = [
            commit
            for commit in self._books.commits
            if commit.run.run_id == name.run and name.dag in (None, commit.run.dag_id)
        ]
        links = []
        for commit in sorted(commits, key=lambda commit: commit.at):
            made = commit_link(commit, "committed")
            links.append(made.model_copy(update={"links": (*made.links, *self._did(commit.table, commit.partitions))}))
        for training in self._books.trainings:
            dag, _, run = training.tags.get("overnight.dag_run", "").partition("/")
            if run == name.run and name.dag in (None, dag):
                links.append(self._links.learner(training, "trained"))
        for stone in dict.fromkeys(self._books.store.tombstones()):
            if stone.run.run_id == name.run and name.dag in (None, stone.run.dag_id):
                told = {"kind": stone.kind, "table": stone.table, "files": len(stone.parts), "reason": stone.reason}
                links.append(Link(kind="tombstone", id=stone.id, how="removed", facts=told))
        if not links:
            raise _unknown(self._text, f"no commit, promotion or training of {self._books.spec.name} is by such a run")
        made_of = {
            Part(table=commit.table, partition=key, digest=digest)
            for commit in commits
            if is_data(commit.table)
            for key, digest in commit.partitions.items()
        }
        return Link(kind="run", id=self._text, links=(*links, *(self._links.used_by(made_of) if made_of else ())))

    def _did(self, table: str, partitions: dict[str, str]) -> list[Link]:
        if table == PROMOTIONS:
            found = [entry for entry in self._books.promotions if epoch_key(entry.epoch) in partitions]
            return [
                link
                for entry in found
                for link in (
                    self._links.promotion(entry, "promoted"),
                    self._links.model(entry.version, "champion since"),
                )
            ]
        if table == DECISIONS:
            decided = [entry.id for entry in self._books.decisions if decision_key(entry.id) in partitions]
            return [link for decision in decided for link in self._decided(decision)]
        return self._changed(table, partitions)

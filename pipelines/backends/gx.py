"""Validation by Great Expectations 1.x, in process, a validation a partition."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pipelines import partitions
from pipelines.backends.gx_html import page
from pipelines.backends.gx_suite import Rule, asked, build, is_static, rules, rules_digest
from pipelines.backends.gx_words import check_of
from pipelines.errors import IntegrityError, SpecError, explain
from pipelines.parquet import digest_of
from pipelines.records import Check, SourceFile, StagedPartition, ValidationReport
from pipelines.spec import UseCase

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,63}")
#: Enough failing values for `observed`, which shows the first distinct ones.
_SHOW_FAILURES = {"result_format": "SUMMARY", "partial_unexpected_count": 20}
_COUNT_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}


class GreatExpectations:
    """A `Validator`. What an expectation needs is planned once a table; each partition is then run by itself.

    A partition that passes costs one walk through its table's metric graph, with the library's own metrics and
    verdicts. One that does not, or for which anything at all went wrong on that walk, is run again through a
    `ValidationDefinition`, whose result decides and names the failing values. (900 rows, 17 expectations, two busy
    cores: 23 ms by the graph; 187 ms by `ValidationDefinition.run` with counts only, 258 ms with failing values, most
    of it spent on building that graph anew.)

    A page for people is written for every failed partition, and for a passed one when it is the only one.
    """

    def __init__(self, reports: Path) -> None:
        self._reports = reports

    def validate(
        self, spec: UseCase, staged: Sequence[StagedPartition], files: Sequence[Path]
    ) -> list[ValidationReport]:
        """One report a partition, in the same order, of exactly the staged bytes.

        Raises:
            SpecError: an expectation does not exist or its arguments do not fit.
            IntegrityError: a staged file is gone, or is not what was staged.
        """
        _quiet()
        suites: dict[tuple[str, bool], _Suite] = {}
        reports = []
        for part, file in zip(staged, files, strict=True):
            kind = (part.table, is_static(part.partition))
            if kind not in suites:
                suites[kind] = _Suite(spec, part.table, rules(spec, part.table, static=kind[1]))
            report = self._judge(spec, suites[kind], part, file)
            if len(staged) == 1 or not report.passed:
                report = self._with_page(report)
            reports.append(report)
        return reports

    def suite(self, spec: UseCase, table: str, partition: str) -> str:
        """Digest of the suite that judges a partition now."""
        return rules_digest(asked(spec, table, static=is_static(partition)))

    def report_unreadable(
        self, spec: UseCase, table: str, partition: str, sources: Sequence[SourceFile], check: Check
    ) -> ValidationReport:
        """The failed report of files that could not be read at all, so that no expectation could be tried."""
        _quiet()
        suite = rules(spec, table, static=is_static(partition))
        report = ValidationReport(
            use_case=spec.name,
            table=table,
            partition=partition,
            digest=hashlib.sha256("".join(source.sha256 for source in sources).encode()).hexdigest(),
            suite=f"{spec.name}.{table}",
            suite_digest=rules_digest(suite),
            rows=0,
            passed=False,
            checks=(check.model_copy(update={"passed": False}),),
            sources=tuple(sources),
        )
        return self._with_page(report)

    def _judge(self, spec: UseCase, suite: _Suite, part: StagedPartition, file: Path) -> ValidationReport:
        frame, digest = _read(part, file)
        problems = tuple(problem.model_copy(update={"passed": False}) for problem in part.problems)
        checks = problems + suite.run(frame, part.partition)
        return ValidationReport(
            use_case=part.use_case,
            table=part.table,
            partition=part.partition,
            digest=digest,
            suite=f"{spec.name}.{part.table}",
            suite_digest=suite.digest,
            rows=frame.height,
            passed=all(check.passed for check in checks),
            checks=checks,
            sources=part.sources,
        )

    def _with_page(self, report: ValidationReport) -> ValidationReport:
        return report.model_copy(update={"html": str(write_html(report, self._reports))})


def write_html(report: ValidationReport, folder: Path) -> Path:
    """Writes the page that people read, and returns its path.

    Args:
        folder: root of the reports; the page lies at `<use_case>/validation/<table>/<partition>-<digest>.html`.
    """
    for part in (report.use_case, report.table, report.partition):
        if not _PART.fullmatch(part):
            raise SpecError(explain("validation report", f"{part!r} is no file name", allowed=_PART.pattern))
    name = f"{report.partition}-{report.digest[:12]}.html"
    path = folder / report.use_case / "validation" / report.table / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{name}.{os.getpid()}")
    draft.write_text(page(report), "utf-8")
    draft.replace(path)
    return path


class _Suite:
    """The expectations of one table, ready to be run on any of its partitions."""

    def __init__(self, spec: UseCase, table: str, chosen: tuple[Rule, ...]) -> None:
        self._name = f"{spec.name}.{table}"
        self._granularity = spec.granularity
        self._rules = chosen
        self.digest = rules_digest(chosen)

    def run(self, frame: pl.DataFrame, partition: str) -> tuple[Check, ...]:
        """Every check of one partition, in the order of the rules."""
        bounds: dict[str, datetime] = {}
        if any(rule.bounded for rule in self._rules):
            bounds = {
                "start": partitions.start(partition, self._granularity),
                "end": partitions.end(partition, self._granularity),
            }
        table = _to_pandas(frame)
        found = self._plan.run(table, bounds)
        if found is None:
            found = self._definition.run(table, bounds)
        return tuple(
            check_of(rule.at(bounds), *verdict, frame) for rule, verdict in zip(self._rules, found, strict=True)
        )

    @cached_property
    def _plan(self) -> _Plan:
        return _Plan(self._rules)

    @cached_property
    def _definition(self) -> _Definition:
        return _Definition(self._name, self._rules)


#: The plan's name of whatever partition is loaded, and what it asks the metrics for: counts, no values.
_BATCH = "partition"
_RUNTIME = {"result_format": "BOOLEAN_ONLY"}
#: success, result, and what was raised
_Verdict = tuple[object, Mapping[str, Any], str | None]


class _Plan:
    """The metric graph of all expectations, built once: it is the same for every partition but for the bounds."""

    def __init__(self, chosen: tuple[Rule, ...]) -> None:
        from great_expectations.execution_engine import PandasExecutionEngine
        from great_expectations.validator.metrics_calculator import MetricsCalculator

        # Not caching: the engine's cache is keyed by batch, and every partition is the batch of the same name here.
        self._engine = PandasExecutionEngine(caching=False)
        self._calculator = MetricsCalculator(execution_engine=self._engine)
        self._rules = chosen
        self._fixed: dict[int, tuple[Any, dict[str, Any], list[Any]]] | None = None

    def run(self, table: Any, bounds: Mapping[str, datetime]) -> list[_Verdict] | None:
        """The verdicts when every expectation was evaluated and holds; None when that is not certain."""
        from great_expectations.validator.validation_graph import ValidationGraph

        try:
            self._engine.load_batch_data(_BATCH, table)
            if self._fixed is None:
                self._fixed = {i: self._prepare(rule) for i, rule in enumerate(self._rules) if not rule.bounded}
            parts = [
                self._fixed[i] if i in self._fixed else self._prepare(rule.at(bounds))
                for i, rule in enumerate(self._rules)
            ]
            edges = [edge for _, _, own in parts for edge in own]
            graph = ValidationGraph(execution_engine=self._engine, edges=edges)
            metrics, aborted = graph.resolve(runtime_configuration=_RUNTIME, show_progress_bars=False)
            if aborted:
                return None
            verdicts: list[_Verdict] = []
            for expectation, needed, _ in parts:
                found = expectation._validate(
                    metrics={name: metrics[key] for name, key in needed.items()},
                    runtime_configuration={"result_format": dict(_COUNT_ONLY)},
                    execution_engine=self._engine,
                )
                found = found if isinstance(found, dict) else found.to_json_dict()
                if found.get("success") is not True:
                    return None
                verdicts.append((True, found.get("result") or {}, None))
        except Exception:  # whatever it was, the full run names it
            return None
        return verdicts

    def _prepare(self, rule: Rule) -> tuple[Any, dict[str, Any], list[Any]]:
        """The expectation, the ids of the metrics that it reads, and the edges of their graph."""
        configuration = build(rule).configuration
        configuration.kwargs["batch_id"] = _BATCH
        expectation = configuration.to_domain_obj()
        needed = expectation.get_validation_dependencies(execution_engine=self._engine, runtime_configuration=_RUNTIME)
        graph = self._calculator.build_metric_dependency_graph(
            metric_configurations=needed.get_metric_configurations(), runtime_configuration=_RUNTIME
        )
        return expectation, {name: metric.id for name, metric in needed.metric_configurations.items()}, graph.edges


class _Definition:
    """The same expectations as a `ValidationDefinition` in an ephemeral context, also made once."""

    def __init__(self, name: str, chosen: tuple[Rule, ...]) -> None:
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        context = gx.get_context(
            mode="ephemeral",
            cloud_mode=False,
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(),
                analytics_enabled=False,
                progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            ),
        )
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[build(rule) for rule in chosen]))
        asset = context.data_sources.add_pandas("staged").add_dataframe_asset("partition")
        self._definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=asset.add_batch_definition_whole_dataframe("whole"), suite=suite)
        )
        self._ids = [expectation.id for expectation in suite.expectations]

    def run(self, table: Any, bounds: Mapping[str, datetime]) -> list[_Verdict]:
        """The verdict of each expectation, in order; one that raised, or that gave none, did not pass."""
        try:
            outcome = self._definition.run(
                batch_parameters={"dataframe": table},
                expectation_parameters=dict(bounds),
                result_format=dict(_SHOW_FAILURES),
            )
        except Exception as error:  # a library that errs has not audited anything
            return [(False, {}, f"{type(error).__name__}: {error}") for _ in self._ids]
        found = {each.expectation_config.id: each for each in outcome.results}
        return [
            (found[key].success, found[key].result or {}, _raised(found[key].exception_info))
            if key in found
            else (False, {}, "Great Expectations gave no verdict")
            for key in self._ids
        ]


def _raised(info: Any) -> str | None:
    """What an expectation raised. Great Expectations keeps it flat, or by metric."""
    if not info:
        return None
    if "raised_exception" in info:
        return str(info.get("exception_message") or "an exception") if info["raised_exception"] else None
    messages = {_raised(inner.get("exception_info", inner)) or "an exception" for inner in info.values()}
    return "; ".join(sorted(messages))


def _read(part: StagedPartition, file: Path) -> tuple[pl.DataFrame, str]:
    """The staged rows, and the digest of the very bytes that they were parsed from."""
    where = f"{part.use_case}/{part.table} {part.partition}"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise IntegrityError(
            explain(where, f"the staged file cannot be read: {error}", remedy="land the partition again")
        ) from None
    digest = digest_of(data)
    if digest != part.digest:
        raise IntegrityError(
            explain(
                where, f"the staged file has digest {digest}", allowed=part.digest, remedy="land the partition again"
            )
        )
    try:
        return pl.read_parquet(io.BytesIO(data)), digest
    except pl.exceptions.PolarsError as error:
        raise IntegrityError(explain(where, f"the staged file is no Parquet file: {error}")) from None


def _to_pandas(frame: pl.DataFrame) -> Any:
    """The rows as pandas. Integers with nulls stay integers: as floats, keys past 2**53 would fall together."""
    import pandas as pd

    table = frame.to_pandas()
    for name, dtype in frame.schema.items():
        column = frame[name]
        if dtype.is_integer() and column.null_count():
            values = column.fill_null(0).cast(pl.Int64).to_numpy()
            table[name] = pd.arrays.IntegerArray(values.copy(), column.is_null().to_numpy().copy())
    return table


def _quiet() -> None:
    """The library logs some 250 lines when it is imported, and one for each unknown default later on."""
    logger = logging.getLogger("great_expectations")
    if logger.level < logging.ERROR:
        logger.setLevel(logging.ERROR)

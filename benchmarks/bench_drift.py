"""Drift: exact PSI of every column and partition, from rows against Evidently's PSI, and from what scoring counted.

Limits and predictions, each written before measuring:

- From rows the limit is one pass over the columns. 20 columns x 50k rows are binned in well under 0.1 s; Evidently took
  3.4 s for that size on a comparable machine, so 20x or more.
- While scoring, 40 numeric columns x 1M rows are 40M floats of a batch that lies in a core's own cache, compared ten
  times each (nine edges, and whether it is a number), 16 at once: 25M instructions that read 1.6 GB of cache and write
  0.4 GB, which is 0.03 s of one core; 0.06 to 0.1 s in numpy, whose comparison and count are two passes. Limit: 0.12 s.
- A word's code is a place in an array, a word is a hash and a comparison: codes five times faster; twice as fast where
  the model pools words, whose rows are looked at as text.
- From counts already made, drift is a hundred logarithms a column: 50 columns in some milliseconds. Limit: 50 ms.
- A partition's state is ten figures of up to seven digits a column: 50 columns in 5 KB. Limit: 10 KB.
- A year is 365 footers (tenths of a millisecond each), 2 MB of JSON and 365 times the drift: under 1 s. Limit: 2 s.
- 50 columns x 1M rows against a frozen reference, from rows in memory: the numeric ones as above, ten of words at 20 ms
  each, and the cutting into batches: 0.5 s. Evidently reads the reference again, and compares every column four times
  (the count of drifted columns, the column's own metric, and two tables). One number and one word of this size took it
  13 CPU-seconds by default, which for a number sorts 2M floats for the Wasserstein distance, and 6 by PSI: 300 s and
  150 s for all. Limits: 100 times and 20 times.

The two comparisons over 50 columns take minutes: by default a fifth of the rows; the size that the limits are of is
OVERNIGHT_BENCH_DRIFT_ROWS=1000000.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks.evidently_peer import Peer
from benchmarks.harness import Result, publish, seconds
from pipelines.backends.delta import DeltaStore
from pipelines.backends.psi import PopulationStability
from pipelines.counts import NOTE, Counter, total
from pipelines.parquet import Writer
from pipelines.partitions import span
from pipelines.ports import Draft
from pipelines.records import Counts, Reference
from pipelines.scoring.encode import Encoder
from pipelines.spec import UseCase, load_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS, _COLUMNS = 50_000, 20
#: Rows a side of the comparisons over the columns of a night.
_FULL = int(os.environ.get("OVERNIGHT_BENCH_DRIFT_ROWS", "200000"))
#: A night: rows, those of a batch of scoring, numeric and categorical columns, and the words of one of these.
_NIGHT, _BATCH, _NUMERIC, _CATEGORICAL, _WORDS = 1_000_000, 65_536, 40, 10, 30
_KIB = 1 / 1024

#: CPU seconds of the best of several calls.
_cpu = partial(seconds, repeats=5, clock=time.process_time)


def _spec(numeric: int = _COLUMNS, categorical: int = 0) -> UseCase:
    root = Path(__file__).resolve().parents[1]
    flights = load_spec(root / "include" / "use_cases" / "flights.yaml")
    names = {
        "numeric": tuple(f"c{i}" for i in range(numeric)),
        "categorical": tuple(f"w{i}" for i in range(categorical)),
    }
    return flights.model_copy(update={"features": flights.features.model_copy(update={**names, "slices": ()})})


def measure() -> list[Result]:
    """From rows, while scoring, and from counts."""
    return [*_sampled(), *_full(), *_from_counts()]


def _sampled() -> list[Result]:
    """A sample of numbers, as Evidently is mostly given."""
    spec, generator = _spec(), np.random.default_rng(7)
    shift = [0.8 if index % 4 == 0 else 0.0 for index in range(_COLUMNS)]
    reference = pl.DataFrame({f"c{i}": generator.normal(size=_ROWS) for i in range(_COLUMNS)})
    current = pl.DataFrame({f"c{i}": generator.normal(loc=shift[i], size=_ROWS) for i in range(_COLUMNS)})
    return _against_evidently(spec, reference, current, {"drift_vs_evidently_psi": (20, _psi(spec))})


def _full() -> list[Result]:
    """All rows of a night, of whose columns each fourth drifts."""
    spec = _spec(_NUMERIC, _CATEGORICAL)
    reference, current = _night(1, _FULL), _night(2, _FULL)
    current = current.with_columns(
        *(pl.col(f"c{i}") + 0.8 for i in range(0, _NUMERIC, 4)),
        # A third of the words become one of them.
        *(
            pl.when(pl.int_range(_FULL) % 3 == 0).then(pl.lit("word-0")).otherwise(f"w{i}").alias(f"w{i}")
            for i in range(0, _CATEGORICAL, 4)
        ),
    )
    peers = {"drift_full_vs_evidently_default": (100, {}), "drift_full_vs_evidently_psi": (20, _psi(spec))}
    return _against_evidently(spec, reference, current, peers)


def _psi(spec: UseCase) -> dict[str, object]:
    return {"method": "psi", "threshold": spec.drift.alarm}


def _against_evidently(
    spec: UseCase, reference: pl.DataFrame, current: pl.DataFrame, peers: dict[str, tuple[float, dict[str, object]]]
) -> list[Result]:
    """The same reference and current rows for both; both must flag the same columns, some and not all.

    Args:
        peers: by the result's name, the goal and Evidently's preset.
    """
    detector = PopulationStability()
    frozen = detector.reference(spec, *_held(reference, np.random.default_rng(8).random(1000)))
    rows = current.with_columns(pl.lit("2013-01-01").alias("partition")).lazy()
    ours = detector.measure(spec, frozen, rows)["2013-01-01"]
    flagged = {column.column for column in ours if column.psi >= spec.drift.alarm}
    assert 0 < len(flagged) < len(ours)
    took = seconds(lambda: detector.measure(spec, frozen, rows))
    # What a first report imports and builds is not its subject.
    Peer.of(spec, reference.head(100), current.head(100)).flagged()
    peer = Peer.of(spec, reference, current)
    results = []
    for name, (goal, preset) in peers.items():
        begun = time.perf_counter()
        theirs = peer.flagged(**preset)
        results.append(
            Result(
                name=name,
                ours=took,
                peer=time.perf_counter() - begun,
                unit="s",
                goal=goal,
                note=f"{reference.height:,} + {current.height:,} rows x {len(ours)} columns, the same {len(flagged)}"
                f" flagged; peer: Evidently DataDriftPreset({preset.get('method', '')})",
            )
        )
        assert flagged == theirs, f"{name}: flags differ: {sorted(flagged ^ theirs)}"
    return results


def _held(rows: pl.DataFrame, scores: NDArray[np.float64]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and scores as those of one partition."""
    return rows.with_columns(partition=pl.lit("2012-12-31")), pl.DataFrame({"partition": "2012-12-31", "score": scores})


def _night(seed: int, rows: int) -> pl.DataFrame:
    """Features as scoring has them: Float32 and String."""
    generator = np.random.default_rng(seed)
    words = pl.Series([f"word-{i}" for i in range(_WORDS)])
    numeric = {f"c{i}": generator.normal(size=rows).astype(np.float32) for i in range(_NUMERIC)}
    return pl.DataFrame(numeric).with_columns(
        words.gather(generator.integers(0, _WORDS, rows)).alias(f"w{i}") for i in range(_CATEGORICAL)
    )


def _from_counts() -> list[Result]:
    spec, detector = _spec(_NUMERIC, _CATEGORICAL), PopulationStability()
    numeric, words = spec.features.numeric, spec.features.categorical
    reference = detector.reference(spec, *_held(_night(1, 100_000), np.random.default_rng(2).random(100_000)))
    frozen = reference.model_dump_json().encode()
    # The same batch again and again: of a night's batches each has just been made, and lies in the cache as this does.
    batch, batches = _night(3, _BATCH), _NIGHT / _BATCH
    edges = {name: np.asarray(reference.numeric[name].edges, np.float32) for name in numeric}
    columns = {name: batch.get_column(name).to_numpy() for name in numeric}

    def searched() -> list[object]:
        return [
            np.bincount(np.searchsorted(edges[name], column, side="right"), minlength=len(edges[name]) + 1)
            for name, column in columns.items()
        ]

    vocabulary = tuple(f"word-{i}" for i in range(1, _WORDS))
    encoders = {
        name: Encoder(feature=name, words=vocabulary, null_words=("",), unknown=0, missing=1, first=2) for name in words
    }
    codes = {name: batch.select(encoder.expression()).to_series().to_numpy() for name, encoder in encoders.items()}

    def counted(names: tuple[str, ...], *, coded: bool = False) -> Counts:
        counter = Counter(frozen, names, encoders if coded else None)
        counter.add(batch, codes=codes if coded else None)
        return counter.counts()

    assert counted(words, coded=True) == counted(words)

    found = counted(numeric)
    assert [tuple(bins) for bins in searched()] == [found.columns[name].bins for name in numeric]  # type: ignore[call-overload]
    counter = Counter(frozen)
    scores = np.random.default_rng(5).random(_NIGHT).astype(np.float32)
    counter.add(_night(4, _NIGHT), scores, pl.Series("prediction", scores > 0.5))
    night = counter.counts()
    note = night.model_dump_json(exclude_defaults=True)
    size = f"{_NIGHT:,} rows x {len(numeric)} numeric columns, one core"
    wide = f"{len(spec.features.columns)} columns, {len(words)} of them of {_WORDS} categories"
    cpu = _cpu(lambda: counted(numeric)) * batches
    results = [
        Result(
            name="counting_numeric_vs_search",
            ours=cpu,
            peer=_cpu(searched) * batches,
            unit="s",
            goal=5,
            note=f"CPU, {size}; peer: numpy searchsorted and bincount, same counts",
        ),
        Result(
            name="counting_numeric_vs_limit",
            ours=cpu,
            peer=0.12,
            unit="s",
            goal=1,
            note=f"CPU, {size}; peer: the limit",
        ),
        Result(
            name="counting_categorical_by_codes",
            ours=_cpu(lambda: counted(words, coded=True)) * batches,
            peer=_cpu(lambda: counted(words)) * batches,
            unit="s",
            goal=2,
            note=f"CPU, {_NIGHT:,} rows x {len(words)} columns of {_WORDS} words, one of them unknown to the model;"
            " peer: the text, same counts",
        ),
        Result(
            name="drift_from_counts",
            ours=seconds(lambda: detector.drift_of(spec, reference, night, "2013-06-03"), repeats=7),
            peer=0.05,
            unit="s",
            goal=1,
            note=f"{wide}; peer: the limit",
        ),
        Result(
            name="state_of_a_partition",
            ours=len(note) * _KIB * _KIB,
            peer=10 * _KIB,
            unit="MiB",
            goal=1,
            note=f"{len(note):,} bytes of JSON in the file's footer, {_NIGHT:,} rows x {wide}; peer: the limit, 10 KiB",
        ),
    ]
    return [*results, _year(spec, reference, note)]


def _year(spec: UseCase, reference: Reference, note: str) -> Result:
    """Reads the counts of a year of nights and summarises them: drift of each night, and of all together."""
    detector, days = PopulationStability(), span("2013-01-01", "2013-12-31", "day")
    rows = pl.DataFrame({"score": np.random.default_rng(6).random(1_000, np.float32)})

    def write(path: Path) -> int:
        with Writer(path, rows.schema) as file:
            file.write(rows)
            return file.close({NOTE: note})

    with tempfile.TemporaryDirectory() as folder:
        store = partial(DeltaStore, Path(folder) / "snapshots", "bench", Path(folder) / "cache")
        publish(store(), *(Draft(partition=day, write=write) for day in days), table="predictions")

        def summarise() -> None:
            opened = store()
            head = opened.head("predictions")
            assert head is not None
            counts = {day: Counts.model_validate_json(text) for day, text in opened.notes(head, days, NOTE).items()}
            drift = {day: detector.drift_of(spec, reference, each, day) for day, each in counts.items()}
            assert len(drift) == len(days)
            detector.drift_of(spec, reference, total(counts.values()), None)

        return Result(
            name="a_year_from_counts",
            ours=seconds(summarise),
            peer=2.0,
            unit="s",
            goal=1,
            note=f"{len(days)} partitions x {len(spec.features.columns)} columns, store opened, read from disk,"
            " drift of each and of all together; peer: the limit",
        )

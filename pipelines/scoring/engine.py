"""The scoring engine: an artifact's graph, entered behind its string encoders, in tiles on this machine's cores."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from pipelines.artifacts import DIGESTS, read
from pipelines.errors import IntegrityError, SchemaMismatch, SpecError, UnavailableError, explain
from pipelines.machine import usable_cores
from pipelines.scoring.cut import cut
from pipelines.scoring.encode import Encoder, encoders
from pipelines.scoring.session import Session, Unsupported
from pipelines.scoring.torch_session import TorchSession

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]

_CARD, _GRAPH = "model.json", "model.onnx"
#: Of binary artifacts that were sealed before they kept a threshold.
_EVEN = 0.5
#: Tiles that are encoded by one query: what a query costs besides its rows is as much as a tile's numbers.
_ENCODED = 4
#: Frames that wait for their scores, or for whoever takes them, while the next one is read.
_WAITING = 2
#: A GPU's tile in tiles of a core. By the default, 65,536 rows: half of what a night reads at once, so that one half is
#: packed while the other is computed; the calls of a tile should then take no longer than copying 70 columns of it.
_GPU_TILE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """A scored frame."""

    scores: Scores
    """[n], or [n, classes]."""
    unknown: Mapping[str, int]
    """Rows whose value the model takes for unknown, neither missing nor in its vocabulary, by categorical feature."""
    codes: Mapping[str, NDArray[np.int64]]
    """[n] by categorical feature; see `Engine.encoders`."""


class Engine:
    """One loaded model. Load once, score many partitions.

    A row's score is the same bytes for any tile size, thread count and neighbours, and the same as the artifact's whole
    graph gives: tests hold both.
    """

    def __init__(
        self,
        folder: Path,
        *,
        digest: str | None = None,
        tile_rows: int = 8192,
        threads: int | None = None,
        graph: str = _GRAPH,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        """Loads a graph of a verified artifact folder.

        Args:
            folder: sealed or, in training, about to be; the bytes of a sealed one are compared with their digests.
            digest: of a registered artifact: what is loaded is what has this digest, whatever the folder holds by now.
            tile_rows: rows that a thread scores at once, and encodes four times as many; bounds the memory, changes no
                score.
            threads: tiles at once; what the affinity and the cgroup of this process allow when not given.
            graph: the file; what is served when not given.
            device: cuda computes by torch on a GPU, in tiles of eight times the rows. Its scores may differ from the
                processor's: see `torch_session`. Such an engine is no good after a fork.

        Raises:
            IntegrityError: the folder holds no such artifact.
            SpecError: cuda, of a model that is scored on the cpu only: trees.
            UnavailableError: cuda, and this process has no GPU.
        """
        try:
            card, model = _read(folder, digest, graph)
            self.facts: dict[str, Any] = json.loads(card)
            self.numeric: list[str] = list(self.facts["numeric"])
            self.categorical: list[str] = list(self.facts["categorical"])
            self._encoders = encoders(self.facts)
            self.threshold = threshold(self.facts)
            """The score from which a row is decided positive; None unless binary."""
            entered = cut(model, self.facts, self._encoders)
            self._session = _session(model if entered is None else entered, device)
        except Unsupported as error:
            raise SpecError(
                explain(f"scoring.device of {folder}", str(error), allowed="cuda for networks, cpu for every model")
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(explain(str(folder), f"not a model artifact: {error}")) from None
        self.enters_behind_encoders = entered is not None
        """Whether text is encoded here; otherwise the whole graph is run, text in."""
        self.encoders: Mapping[str, Encoder] = self._encoders if self.enters_behind_encoders else {}
        """What made the codes of a batch, by categorical feature; none when the graph itself encodes."""
        self.threads = threads or usable_cores()
        self._asked, self._tile = tile_rows, tile_rows * (_GPU_TILE if device == "cuda" else 1)
        tensors: dict[str, str] = self.facts["codes"]["tensors"] if self.enters_behind_encoders else {}
        self._tensors = tensors  # by categorical feature
        text = dict.fromkeys(tensors.values() or self.categorical, "tensor(int64)" if tensors else "tensor(string)")
        self._check_inputs(folder, dict.fromkeys(self.numeric, "tensor(float)") | text)

    def score(self, features: pl.DataFrame) -> Scores:
        """Scores of each row.

        Args:
            features: at least the model's features; numeric null and NaN are "missing", a null string is too.

        Returns:
            float32, shape [n] (binary: probability; regression: the label's unit) or [n, classes].

        Raises:
            SchemaMismatch: a feature is not there, or is text where a number belongs, or the other way round.
            UnavailableError: there is no memory for half a tile.
        """
        (batch,) = self.score_batches([features])
        return batch.scores

    def score_batches(self, frames: Iterable[pl.DataFrame]) -> Iterator[Batch]:
        """Scores of each frame, in order; the next frames are read while the last ones are scored.

        No more than three frames are held at once: feed it frames of bounded size, and memory is bounded.

        Raises:
            SchemaMismatch: see `score`.
            UnavailableError: see `score`.
        """
        # Made here and gone with the call: an engine that is handed to a forked process has no threads to lose.
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="score")
        waiting: deque[list[Future[Batch]]] = deque()
        try:
            for frame in frames:
                self._check(frame)
                if 0 < frame.height <= self._tile and not waiting:  # no thread is worth starting
                    yield self._scored(frame)
                    continue
                waiting.append([pool.submit(self._scored, part) for part in frame.iter_slices(self._stretch(frame))])
                if len(waiting) > _WAITING:
                    yield self._joined(waiting.popleft())
            while waiting:
                yield self._joined(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    @property
    def tile_rows(self) -> int:
        """Rows that a thread scores at once."""
        return self._tile

    @property
    def inputs(self) -> dict[str, str]:
        """The input of what is run, by feature: see `encode`."""
        return {name: self._tensors.get(name, name) for name in [*self.numeric, *self.categorical]}

    def encode(self, features: pl.DataFrame) -> dict[str, NDArray[np.generic]]:
        """What the graph is fed with: [n] by its input.

        Raises:
            SchemaMismatch: see `score`.
        """
        self._check(features)
        return self._columns(features)

    def score_encoded(self, columns: Mapping[str, NDArray[np.generic]]) -> Scores:
        """Scores of what `encode` gave, n at least 1, in one piece; columns of several frames may be mixed.

        Raises:
            UnavailableError: see `score`.
        """
        return self._run(dict(columns), len(next(iter(columns.values()))))

    def decide(self, scores: Scores) -> NDArray[np.bool_] | None:
        """Which rows are decided positive.

        Args:
            scores: what `score` gave.

        Returns:
            [n]; None where rows are not decided by one score: multiclass, regression.
        """
        if self.threshold is None:
            return None
        # In float64, which has every float32 and every number of JSON.
        decided: NDArray[np.bool_] = scores.astype("float64") >= self.threshold
        return decided

    def _joined(self, tiles: list[Future[Batch]]) -> Batch:
        import numpy as np

        if not tiles:
            classes = len(self.facts.get("classes") or ())
            empty = np.empty((0, classes) if classes else (0,), dtype=np.float32)
            codes = {name: np.empty(0, np.int64) for name in self.encoders}
            return Batch(empty, dict.fromkeys(self.categorical, 0), codes)
        parts = [tile.result() for tile in tiles]
        if len(parts) == 1:
            return parts[0]
        unknown = {name: sum(part.unknown[name] for part in parts) for name in self.categorical}
        codes = {name: np.concatenate([part.codes[name] for part in parts]) for name in self.encoders}
        return Batch(np.concatenate([part.scores for part in parts]), unknown, codes)

    def _stretch(self, frame: pl.DataFrame) -> int:
        """Rows that a thread encodes at once: some tiles, but so few that every thread has some."""
        tiles = -(-frame.height // self._tile)
        return self._tile * max(1, min(_ENCODED, tiles // self.threads))

    def _scored(self, rows: pl.DataFrame) -> Batch:
        """Encodes rows by one query, and scores them tile by tile."""
        import numpy as np

        columns = self._columns(rows)
        tiles = (
            {name: values[start : start + self._tile] for name, values in columns.items()}
            for start in range(0, rows.height, self._tile)
        )
        scores = [self._run(tile, len(next(iter(tile.values())))) for tile in tiles]
        codes = {name: np.asarray(columns[self._tensors[name]], np.int64) for name in self.encoders}
        joined = scores[0] if len(scores) == 1 else np.concatenate(scores)
        return Batch(joined, self._unknown(rows, columns), codes)

    def _unknown(self, tile: pl.DataFrame, columns: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        import numpy as np

        if self.enters_behind_encoders:
            return {
                name: int(np.count_nonzero(columns[self._tensors[name]] == self._encoders[name].unknown))
                for name in self.categorical
            }
        strange = [
            (self._encoders[name].expression() == self._encoders[name].unknown).sum() for name in self.categorical
        ]
        return dict(zip(self.categorical, tile.select(strange).row(0), strict=True)) if strange else {}

    def _run(self, columns: dict[str, NDArray[np.generic]], rows: int) -> Scores:
        """Out of memory, a tile is scored in two halves; there is no second try."""
        import numpy as np

        try:
            return self._session.run(columns)
        except MemoryError:
            half = -(-rows // 2)
        parts = [
            {name: values[start : start + half] for name, values in columns.items()} for start in range(0, rows, half)
        ]
        try:
            self._session = self._session.lean()
            return np.concatenate([self._session.run(part) for part in parts])
        except MemoryError as error:
            raise UnavailableError(
                explain(
                    "scoring",
                    f"out of memory at {half} rows, half of a tile of {rows}: {error}",
                    remedy=f"lower scoring.tile_rows ({self._asked}), or give the task more memory",
                )
            ) from None

    def _columns(self, rows: pl.DataFrame) -> dict[str, NDArray[np.generic]]:
        """The graph's inputs, [n] each. A float32 column without nulls is handed over as it lies in memory."""
        numbers = [rows.get_column(name) for name in self.numeric]
        if any(column.dtype != pl.Float32 or column.null_count() for column in numbers):
            numbers = rows.select(pl.col(self.numeric).cast(pl.Float32).fill_null(float("nan"))).get_columns()
        columns: dict[str, NDArray[np.generic]] = {column.name: column.to_numpy() for column in numbers}
        for name in self.categorical:
            if self.enters_behind_encoders:
                columns[self._tensors[name]] = self._encoders[name].encode(rows.get_column(name))
            else:
                columns[name] = rows.get_column(name).cast(pl.String).fill_null("").to_numpy().astype(object)
        return columns

    def _check(self, features: pl.DataFrame) -> None:
        held = features.schema
        for name in [*self.numeric, *self.categorical]:
            dtype = held.get(name)
            if dtype is None or not (_is_text(dtype) if name in self.categorical else _is_number(dtype)):
                found = f"there is no {name!r}" if dtype is None else f"{name!r} is {dtype}"
                raise SchemaMismatch(
                    explain(
                        "scoring",
                        f"the model and the snapshot disagree: {found}",
                        allowed=f"numbers: {', '.join(self.numeric)}; text: {', '.join(self.categorical)}",
                        remedy="retrain on this schema, or restore the column",
                    )
                )

    def _check_inputs(self, folder: Path, told: dict[str, str]) -> None:
        asked = self._session.inputs
        if told != asked:
            differ = ", ".join(f"{name} {kind}" for name, kind in sorted(told.items() ^ asked.items()))
            raise IntegrityError(explain(str(folder), f"{_CARD} and {_GRAPH} disagree about the inputs: {differ}"))


def read_facts(folder: Path, digest: str) -> dict[str, Any]:
    """model.json of a sealed artifact, without the model.

    Raises:
        IntegrityError: the folder holds no such artifact.
    """
    facts: dict[str, Any] = json.loads(read(folder, digest, _CARD)[0])
    return facts


def threshold(facts: dict[str, Any]) -> float | None:
    """The score from which a row is decided positive; None unless binary.

    Args:
        facts: model.json.
    """
    if facts.get("task") != "binary":
        return None
    told = facts.get("threshold")
    return _EVEN if told is None else float(told)


def _session(model: bytes, device: Literal["cpu", "cuda"]) -> Session | TorchSession:
    return TorchSession(model, device) if device == "cuda" else Session(model)


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.Null or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)


def _read(folder: Path, digest: str | None, graph: str) -> tuple[bytes, bytes]:
    """The bytes of model.json and of the graph, read once: what is parsed is what was compared with its digest."""
    if digest is not None or (folder / DIGESTS).is_file():
        card, model = read(folder, digest, _CARD, graph)
        return card, model
    return (folder / _CARD).read_bytes(), (folder / graph).read_bytes()

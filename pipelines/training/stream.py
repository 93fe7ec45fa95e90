"""Rows of a file that does not fit into memory. Shapes: n rows of the file, w of a window, b of a batch.

An epoch has one order of all rows, made of windows: the file's row groups in a seeded order, as many at a time as
`window_rows` holds (one at least), the rows of a window shuffled among themselves. Batches are cut from that order
without regard to the windows, so that each row comes once, the last batch alone is smaller, and an epoch may begin in
its middle without reading what lies before. How well rows mix depends on the row groups in a window: write files with
groups far smaller than a window.

A thread reads and encodes one window while the other is consumed: two windows are in memory, whatever the file's
length, and of every row its target and weight. On a GPU batches are copied through two pinned buffers on a stream of
their own, one batch ahead.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipelines.errors import TrainingError, explain
from pipelines.spec import UseCase
from pipelines.training.data import Table, decode, read
from pipelines.training.feed import Batch, shard
from pipelines.training.pinned import ahead
from pipelines.training.prepare import Preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOW_ROWS = 2**20
#: What is learnt before any gradient (fills, scales, vocabularies, bin edges) is learnt from at least so many rows.
_SAMPLE_ROWS = 1_500_000


def sample(spec: UseCase, path: Path, rows: int = _SAMPLE_ROWS) -> Table:
    """At least `rows` rows (all, when there are fewer): row groups drawn by the spec's seed, in the file's order.

    Quantiles of 1.5 million rows are within 0.1% of the file's in rank; a category rarer than some 10 rows in a sample
    shares the index of the unseen ones.

    Raises:
        TrainingError: as `data.read`.
    """
    counts, chosen, total = row_groups(path), [], 0
    for group in np.random.default_rng(spec.training.seed).permutation(len(counts)):
        if total >= rows:
            break
        chosen.append(int(group))
        total += counts[group]
    return read(spec, path, groups=sorted(chosen))


def row_groups(path: Path) -> tuple[int, ...]:
    """Rows of each row group.

    Raises:
        TrainingError: the file is not readable.
    """
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """A feed over a Parquet file (see `feed.Feed`); targets and weights of all rows stay in host memory."""

    spec: UseCase
    path: Path
    preparation: Preparation
    groups: tuple[int, ...]
    """Rows of each of the file's row groups."""
    targets: Tensor
    """[n] or [n, classes], float32, on the host."""
    weights: Tensor | None
    """[n], float32, on the host."""
    device: torch.device
    window_rows: int = _WINDOW_ROWS

    @classmethod
    def of(
        cls,
        spec: UseCase,
        path: Path,
        preparation: Preparation,
        target: Tensor,
        weight: Tensor | None,
        device: torch.device,
        window_rows: int = _WINDOW_ROWS,
    ) -> Streamed:
        """Looks at the file's row groups; reads no row.

        Raises:
            TrainingError: the file is not readable, or has not one row a target.
        """
        groups = row_groups(path)
        if sum(groups) != len(target):
            raise TrainingError(explain(str(path), f"{sum(groups)} rows, {len(target)} targets"))
        weights = None if weight is None else weight.to("cpu", torch.float32)
        return cls(
            spec=spec,
            path=path,
            preparation=preparation,
            groups=groups,
            targets=target.to("cpu", torch.float32),
            weights=weights,
            device=device,
            window_rows=window_rows,
        )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def target(self) -> Tensor:
        """See `Feed.target`."""
        return self.targets.to(self.device)

    @property
    def weight(self) -> Tensor | None:
        """See `Feed.weight`."""
        return None if self.weights is None else self.weights.to(self.device)

    def taught(self, target: Tensor, weight: Tensor | None) -> Streamed:
        """See `Feed.taught`."""
        weights = None if weight is None else weight.to("cpu", torch.float32)
        return replace(self, targets=target.to("cpu", torch.float32), weights=weights)

    def batches(
        self, batch_rows: int, seed: int, epoch: int, start: int = 0, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """See `Feed.batches`. Each of several processes reads the whole file, and keeps its shards.

        Raises:
            TrainingError: the file changed, or a part of it is not readable.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self.groups))
        windows: list[_Window] = []
        for number, groups in enumerate(self._packed(order)):
            windows.append(_Window(groups, sum(self.groups[g] for g in groups), (seed, epoch, number)))
        first, skip = 0, start * batch_rows
        while first < len(windows) and windows[first].rows <= skip:
            skip -= windows[first].rows
            first += 1
        with closing(_read_ahead(self, windows[first:])) as read_windows:
            yield from self._sent(_shards(_cut(read_windows, batch_rows, skip), rank, size))

    def tiles(self, rows: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """See `Feed.tiles`; raises as `batches`."""
        windows = [_Window((group,), count, None) for group, count in enumerate(self.groups)]
        with closing(_read_ahead(self, windows)) as read_windows:
            yield from self._sent(itertools.islice(_cut(read_windows, rows, 0), rank, None, size))

    def _packed(self, order: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
        held: list[int] = []
        rows = 0
        for group in order.tolist():
            if held and rows + self.groups[group] > self.window_rows:
                yield tuple(held)
                held, rows = [], 0
            held.append(group)
            rows += self.groups[group]
        if held:
            yield tuple(held)

    def _sent(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return ahead(batches, self.device) if self.device.type == "cuda" else batches


@dataclass(frozen=True, slots=True)
class _Window:
    """What is to be read together."""

    groups: tuple[int, ...]
    rows: int
    seed: tuple[int, int, int] | None
    """Of the shuffle; None keeps the file's order."""


def _cut(windows: Iterator[Batch], rows: int, skip: int) -> Iterator[Batch]:
    """Batches of `rows` rows from windows, across their borders; the first `skip` rows are left out."""
    held: list[Batch] = []
    missing = rows
    for window in windows:
        begin, skip = skip, 0
        while len(window) - begin >= missing:
            held.append(window[begin : begin + missing])
            yield _joined(held)
            begin, held, missing = begin + missing, [], rows
        if begin < len(window):
            # A copy: a view of a few rows would keep all of the window in memory.
            held.append(window[torch.arange(begin, len(window))])
            missing -= len(window) - begin
    if held:
        yield _joined(held)


def _shards(batches: Iterator[Batch], rank: int, size: int) -> Iterator[Batch]:
    for batch in batches:
        first, last = shard(0, len(batch), rank, size)
        yield replace(batch[first:last], share=size * (last - first) / len(batch))


def _joined(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(
        torch.cat([part.numeric for part in parts]),
        torch.cat([part.missing for part in parts]),
        torch.cat([part.codes for part in parts]),
        torch.cat([part.target for part in parts]),
        _together([part.weight for part in parts]),
        numbers=_together([part.numbers for part in parts]),
    )


def _together(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _read_ahead(feed: Streamed, windows: Sequence[_Window]) -> Generator[Batch, None, None]:
    """Encoded windows in host memory, read by a thread that is one ahead. Closing the generator ends the thread."""
    ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
    # Two windows at a time: the consumer's, and the one that is read.
    room, stop = threading.Semaphore(2), threading.Event()

    def work() -> None:
        try:
            with pq.ParquetFile(feed.path) as file:
                for window in windows:
                    room.acquire()
                    if stop.is_set():
                        return
                    ready.put(_encoded(feed, file, window))
        except (OSError, pa.ArrowException) as error:
            ready.put(_unreadable(feed.path, error))
        except BaseException as error:  # raised again where the rows are asked for
            ready.put(error)

    thread = threading.Thread(target=work, name=f"reader of {feed.path.name}", daemon=True)
    thread.start()
    try:
        for _ in windows:
            window = ready.get()
            if isinstance(window, BaseException):
                raise window
            yield window
            del window
            room.release()
    finally:
        stop.set()
        room.release()
        thread.join()


def _encoded(feed: Streamed, file: pq.ParquetFile, window: _Window) -> Batch:
    """One window, its rows shuffled as they are written."""
    spec, preparation = feed.spec, feed.preparation
    place = np.arange(window.rows)
    if window.seed is not None:
        place = np.random.default_rng(window.seed).permutation(window.rows)
    numeric = np.empty((window.rows, len(preparation.varying)), np.float32)
    missing = np.empty((window.rows, len(preparation.flagged)), np.float32)
    codes = np.empty((window.rows, len(preparation.vocabularies)), np.int64)
    rows = np.empty(window.rows, np.int64)
    begins = np.cumsum([0, *feed.groups])
    done = 0
    for group in window.groups:
        table = file.read_row_group(group, list(spec.features.columns))
        if len(table) != feed.groups[group]:
            raise TrainingError(
                explain(
                    str(feed.path),
                    f"row group {group} has {len(table)} rows, and had {feed.groups[group]}",
                    remedy="leave the files of a training set alone while it is trained on",
                )
            )
        to = place[done : done + len(table)]
        raw, words = decode(spec, table, feed.path)
        encoded = preparation.encode(Table(raw, words, np.empty(len(table), np.float32)))
        numeric[to], missing[to], codes[to] = encoded.numeric, encoded.missing, encoded.codes
        rows[to] = np.arange(begins[group], begins[group] + len(table))
        done += len(table)
    at = torch.from_numpy(rows)
    return Batch(
        torch.from_numpy(numeric),
        torch.from_numpy(missing),
        torch.from_numpy(codes),
        feed.targets[at],
        None if feed.weights is None else feed.weights[at],
        numbers=at,
    )


def _unreadable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(explain(str(path), f"not a readable Parquet file: {error}", remedy="build the set again"))

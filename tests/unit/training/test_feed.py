"""Feeds: what an epoch is made of, over one process and over several."""

from __future__ import annotations

import pytest
import torch

from pipelines.training.feed import Batch, Resident


def table(rows: int) -> Resident:
    numeric = torch.arange(rows, dtype=torch.float32)[:, None]
    return Resident(Batch(numeric, torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.long), torch.zeros(rows)))


@pytest.mark.parametrize(("rows", "batch_rows", "size"), [(100, 32, 1), (100, 32, 2), (101, 30, 3), (65, 16, 4)])
def test_the_shards_of_a_batch_are_the_batch_and_an_epoch_has_each_row_once(
    rows: int, batch_rows: int, size: int
) -> None:
    feed = table(rows)
    whole = list(feed.batches(batch_rows, 3, 1))
    shards = [list(feed.batches(batch_rows, 3, 1, rank=rank, size=size)) for rank in range(size)]
    assert {len(part) for part in shards} == {len(whole)}, "every process takes every step"
    for step, batch in enumerate(whole):
        parts = [shards[rank][step] for rank in range(size)]
        assert torch.equal(torch.cat([part.numeric for part in parts]), batch.numeric)
        assert [part.share * len(batch) / size for part in parts] == pytest.approx([len(part) for part in parts])
    seen = torch.cat([batch.numeric[:, 0] for part in shards for batch in part])
    assert sorted(seen.tolist()) == list(range(rows))


def test_an_epoch_can_be_entered_in_the_middle_and_rows_know_where_they_lie() -> None:
    feed = table(50)
    whole, rest = list(feed.batches(8, 3, 2)), list(feed.batches(8, 3, 2, start=4))
    assert [batch.numeric.tolist() for batch in rest] == [batch.numeric.tolist() for batch in whole[4:]]
    assert all(torch.equal(batch.numeric[:, 0].long(), batch.numbers) for batch in rest if batch.numbers is not None)
    assert all(batch.numbers is not None for batch in rest)
    other = next(feed.batches(8, 3, 1))
    assert other.numeric.tolist() != whole[0].numeric.tolist(), "each epoch has an order of its own"


def test_the_tiles_of_all_processes_are_the_table() -> None:
    feed = table(50)
    shared = [tile.numeric[0, 0].item() for rank in range(3) for tile in feed.tiles(8, rank, 3)]
    assert sorted(shared) == [tile.numeric[0, 0].item() for tile in feed.tiles(8)]

"""Batches hold every tile once, in the order of coming, whosever it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.extraction.pipeline.batching import Batch, TileBatcher, TileChunk

WORKS: list[Any] = [SimpleNamespace(name=name) for name in "abc"]


def chunk(work: int, first: int, count: int, edge: int = 2) -> TileChunk:
    rows = np.arange(first, first + count, dtype=np.int64)
    pixels = np.broadcast_to((rows % 256).astype(np.uint8)[:, None, None, None], (count, edge, edge, 3))
    return TileChunk(WORKS[work], rows, pixels)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=20), st.integers(1, 7))
def test_all_but_the_last_batch_are_full(parts: list[tuple[int, int]], size: int) -> None:
    batcher, batches, expected = TileBatcher(size), [], []
    for number, (work, count) in enumerate(parts):
        given_chunk = chunk(work, 100 * number, count)
        expected += [(WORKS[work].name, row) for row in given_chunk.rows.tolist()]
        batches += batcher.add(given_chunk)
    assert all(len(batch) == size for batch in batches)
    last = batcher.flush(0.0)
    assert (last is None) == (len(expected) % size == 0)
    assert batcher.is_empty
    assert batcher.flush(0.0) is None
    found = []
    for batch in [*batches, *([last] if last else [])]:
        for each in batch.chunks:
            found += [(each.work.name, row) for row in each.rows.tolist()]
        # Pixels go with their rows.
        rows = np.concatenate([each.rows for each in batch.chunks])
        np.testing.assert_array_equal(batch.pixels[:, 0, 0, 0], rows % 256)
        assert batch.n_bytes == batch.pixels.nbytes
    assert found == expected


def test_tiles_of_another_size_never_share_a_batch() -> None:
    batcher = TileBatcher(3)
    assert batcher.add(chunk(0, 0, 2, edge=2)) == []
    assert batcher.add(chunk(1, 0, 2, edge=4)) == []
    (batch,) = batcher.add(chunk(2, 0, 1, edge=2))
    assert batch.pixels.shape == (3, 2, 2, 3)
    rest = batcher.flush(0.0)
    assert rest is not None
    assert rest.pixels.shape == (2, 4, 4, 3)


def test_the_room_of_the_batch_that_is_being_filled() -> None:
    batcher = TileBatcher(4)
    assert batcher.free_slots((2, 2, 3)) == 4
    batcher.add(chunk(0, 0, 3))
    assert batcher.free_slots((2, 2, 3)) == 1
    assert batcher.free_slots((8, 8, 3)) == 4
    assert len(batcher.add(chunk(1, 0, 1))) == 1
    assert batcher.free_slots((2, 2, 3)) == 4


def test_tiles_wait_for_company_for_a_while() -> None:
    batcher = TileBatcher(4)
    batcher.add(chunk(0, 0, 1))
    assert batcher.flush(60.0) is None
    assert not batcher.is_empty
    assert isinstance(batcher.flush(0.0), Batch)


def test_huge_tiles_make_small_batches() -> None:
    assert TileBatcher(64).size_for(8192 * 8192 * 3) == 5
    assert TileBatcher(64).size_for(224 * 224 * 3) == 64
    assert TileBatcher(4).size_for(1 << 40) == 1

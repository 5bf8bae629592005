"""Reductions over bags, against one bag at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.mil import BagBatch
from wsi_ncmi.mil import segments as s

lengths_of = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def _batch(lengths: list[int], seed: int) -> BagBatch:
    generator = torch.Generator().manual_seed(seed)
    return BagBatch(
        torch.randn(sum(lengths), 3, generator=generator, dtype=torch.float64), torch.tensor(lengths)
    )


@settings(deadline=None)
@given(lengths_of, st.integers(0, 10_000), st.sampled_from([1.0, 50.0, 2000.0]))
def test_every_reduction_is_that_of_its_bags(lengths, seed, scale):
    batch = _batch(lengths, seed)
    values = batch.features
    bags = values.split(lengths)
    scores = values * scale
    weights = s.segment_softmax(scores, batch)
    for whole, bag in zip(weights.split(lengths), scores.split(lengths), strict=True):
        torch.testing.assert_close(whole, bag.softmax(0))
    torch.testing.assert_close(s.segment_softmax(scores[:, 0], batch), weights[:, 0])
    torch.testing.assert_close(s.segment_sum(values, batch), torch.stack([b.sum(0) for b in bags]))
    torch.testing.assert_close(s.segment_mean(values, batch), torch.stack([b.mean(0) for b in bags]))
    torch.testing.assert_close(
        s.segment_mean(values[:, 0], batch), torch.stack([b[:, 0].mean() for b in bags])
    )
    torch.testing.assert_close(s.segment_max(values, batch), torch.stack([b.amax(0) for b in bags]))
    sums = torch.stack([w.T @ b for w, b in zip(weights.split(lengths), bags, strict=True)])
    torch.testing.assert_close(s.segment_branch_sums(values, weights, batch), sums)
    torch.testing.assert_close(s.segment_weighted_sum(values, weights[:, 1], batch), sums[:, 1])


@settings(deadline=None)
@given(lengths_of, st.integers(0, 10_000), st.integers(1, 5), st.booleans())
def test_the_best_of_each_bag(lengths, seed, count, largest):
    batch = _batch(lengths, seed)
    scores, start = batch.features[:, 0], 0
    for rows, length in zip(s.segment_top(scores, count, batch, largest=largest), lengths, strict=True):
        order = sorted(range(start, start + length), key=lambda i: scores[i].item(), reverse=largest)
        assert rows.tolist() == order[:count]
        start += length


def test_a_moved_batch_keeps_its_sizes_and_places():
    places = torch.arange(10).view(5, 2)
    batch = BagBatch(torch.randn(5, 3), torch.tensor([2, 3]), places)
    moved = batch.to("cpu", torch.float16)
    assert moved.features.dtype == torch.float16
    assert moved.sizes is batch.sizes
    assert torch.equal(moved.coordinates, places)

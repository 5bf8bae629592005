"""Batches: padded and back, sub-sampled, refused when empty."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import BagBatch
from wsi_ncmi.mil.bags import make_buckets, scatter_buckets
from wsi_ncmi.mil.transmil import make_squares

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def _batch(lengths: list[int]) -> BagBatch:
    total = sum(lengths)
    places = torch.arange(2 * total).view(total, 2)
    return BagBatch(torch.arange(total * 3.0).view(total, 3), torch.tensor(lengths), places)


@settings(deadline=None)
@given(lengths_of)
def test_padded_and_packed_again_is_the_same(lengths):
    batch = _batch(lengths)
    features, kept = batch.padded()
    assert features.shape == (len(lengths), max(lengths), 3)
    assert kept.sum(1).tolist() == lengths
    assert features[~kept].abs().sum() == 0
    again = BagBatch.from_padded(features, batch.lengths)
    assert torch.equal(again.features, batch.features)
    assert again.sizes == lengths


@settings(deadline=None)
@given(lengths_of, st.integers(1, 20), st.integers(0, 1000))
def test_subsampled_bags_are_parts_in_order(lengths, limit, seed):
    batch = _batch(lengths)
    part = batch.subsampled(limit, torch.Generator().manual_seed(seed))
    assert part.sizes == [min(n, limit) for n in lengths]
    start = 0
    for bag, places, n in zip(
        part.features.split(part.sizes), part.coordinates.split(part.sizes), lengths, strict=True
    ):
        rows = bag[:, 0] / 3
        assert (rows.diff() > 0).all()
        assert rows.min() >= start
        assert rows.max() < start + n
        assert torch.equal(places[:, 0], 2 * rows.long())  # the coordinates come along
        start += n


def test_subsampling_is_uniform():
    batch, counts = _batch([10]), torch.zeros(10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        counts[(batch.subsampled(3, generator).features[:, 0] / 3).long()] += 1
    assert (counts / 2000 - 0.3).abs().max() < 5 * (0.21 / 2000) ** 0.5


@settings(deadline=None)
@given(lengths_of, st.sampled_from([0.0, 0.2, 0.9]))
def test_buckets_hold_every_instance_once_and_little_padding(lengths, slack):
    batch = _batch(lengths)
    buckets = make_buckets(batch, slack=slack)
    assert sorted(bag for bucket in buckets for bag in bucket.bags) == list(range(len(lengths)))
    rows = torch.cat([bucket.instances() for bucket in buckets])
    assert rows.sort().values.tolist() == list(range(sum(lengths)))
    for bucket in buckets:
        sizes = [lengths[bag] for bag in bucket.bags]
        assert bucket.rows.shape == (len(sizes), max(sizes))
        assert min(sizes) >= (1 - slack) * max(sizes)
        assert (bucket.kept is None) == (min(sizes) == max(sizes))
    # Results come back in the batch's order: the embedding of a bag is its length, the attention its row.
    embeddings = [torch.tensor([[float(lengths[bag])] for bag in bucket.bags]) for bucket in buckets]
    attentions = [bucket.rows.float() for bucket in buckets]
    embedding, attention = scatter_buckets(buckets, embeddings, attentions)
    assert embedding[:, 0].tolist() == lengths
    assert attention.tolist() == list(range(sum(lengths)))


def test_a_bucket_has_an_end():
    buckets = make_buckets(BagBatch(torch.zeros(120_000, 1), torch.tensor([30_000] * 4)))
    assert [len(bucket.bags) for bucket in buckets] == [2, 2]


def test_empty_bags_and_wrong_lengths_are_refused_in_a_sentence():
    with pytest.raises(InputError, match=r"lengths \[2, 0\] for 2 instances; a batch needs .* no empty bag"):
        BagBatch(torch.zeros(2, 3), torch.tensor([2, 0]))
    with pytest.raises(InputError, match=r"lengths \[\] for 0 instances"):
        BagBatch(torch.zeros(0, 3), torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match=r"lengths \[2\] for 3 instances"):
        BagBatch(torch.zeros(3, 3), torch.tensor([2]))
    with pytest.raises(InputError, match="each must be between 1 and 4"):
        BagBatch.from_padded(torch.zeros(2, 4, 3), torch.tensor([4, 5]))
    with pytest.raises(InputError, match="limit of 0"):
        _batch([3]).subsampled(0)
    with pytest.raises(ValueError, match="coordinates must be"):
        BagBatch(torch.zeros(2, 3), torch.tensor([2]), torch.zeros(3, 2))


@settings(deadline=None)
@given(lengths_of)
def test_squares_repeat_a_bags_first_instances_and_nothing_else(lengths):
    batch = _batch(lengths)
    starts = [0, *itertools.accumulate(lengths)]
    squares = make_squares(batch)
    assert sorted(bag for square in squares for bag in square.bags) == list(range(len(lengths)))
    for square in squares:
        for bag, rows in zip(square.bags, square.rows.tolist(), strict=True):
            own = list(range(starts[bag], starts[bag + 1]))
            assert (square.side - 1) ** 2 < len(own) <= square.side**2
            assert rows == (own + own)[: square.side**2]
    sides = [square.side for square in squares]
    assert len(set(sides)) == len(sides)  # bags of one side go together


def test_a_square_of_many_bags_has_an_end():
    squares = make_squares(BagBatch(torch.zeros(119_999, 1), torch.tensor([30_000, 29_999, 30_000, 30_000])))
    assert [square.bags for square in squares] == [(0, 1), (2, 3)]
    assert [square.rows.shape for square in squares] == [(2, 174**2)] * 2

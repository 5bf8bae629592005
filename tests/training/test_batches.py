"""The bag cache: same content whatever the budget, memory within it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training.bags import BagCache


class CountingSource:
    def __init__(self, inner):
        self.inner = inner
        self.loads = 0
        for name in ("path", "slide_ids", "width", "lengths", "encoder"):
            setattr(self, name, getattr(inner, name))

    def load(self, slide_id):
        self.loads += 1
        return self.inner.load(slide_id)


def total_values(task):
    return int(task.source.lengths.sum()) * task.source.width


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_batches_are_equal_and_memory_is_bounded(task, share):
    """Share of the float16 size: 4 = room for float32 and more, 0 = nothing may be kept."""
    budget = int(share * 2 * total_values(task))
    source = CountingSource(task.source)
    cache = BagCache(source, budget)
    ids = task.source.slide_ids
    for _ in range(2):
        batch = cache.pack(ids)
        expected = np.concatenate([task.source.load(slide_id) for slide_id in ids]).astype(np.float32)
        np.testing.assert_array_equal(batch.features.numpy(), expected)
        assert batch.features.dtype == torch.float32
        assert batch.lengths.tolist() == task.source.lengths.tolist()
    assert cache.bytes_kept <= budget
    everything_kept = share >= 1.0
    assert (source.loads == len(ids)) == everything_kept
    if share == 0.5:
        assert len(ids) < source.loads < 2 * len(ids)


def test_drawn_rows(task):
    cache = BagCache(task.source, 2**20)
    ids = task.source.slide_ids[:2]
    batch = cache.pack(ids, [np.array([0, 2]), None])
    np.testing.assert_array_equal(
        batch.features[:2].numpy(), task.source.load(ids[0])[[0, 2]].astype(np.float32)
    )
    assert batch.lengths.tolist() == [2, int(task.source.lengths[1])]


def test_whole_batches_keep_order_and_split_by_rows(task, monkeypatch):
    monkeypatch.setattr("wsi_ncmi.training.bags.EVALUATION_ROWS", 20)
    cache = BagCache(task.source, 2**20)
    ids = task.source.slide_ids[::-1]
    batches = list(cache.whole_batches(ids))
    assert len(batches) > 3
    assert torch.cat([batch.lengths for batch in batches]).tolist() == cache.lengths(ids).tolist()
    np.testing.assert_array_equal(
        torch.cat([batch.features for batch in batches]).numpy(), cache.pack(ids).features.numpy()
    )


def test_slides_without_features_or_tiles_are_refused(tmp_path, kit):
    kit.save_cohort(tmp_path / "b.npz", np.ones((3, 4)), np.array([2, 0, 1]), ["alpha", "beta", "beta"])
    cache = BagCache(kit.open_task(tmp_path / "b.npz").source, 2**20)
    with pytest.raises(InputError, match=r"'slide_001' has no tiles"):
        cache.lengths(["slide_000", "slide_001"])
    with pytest.raises(InputError, match=r"'other' has no features"):
        cache.lengths(["other"])


def test_statistics_are_those_of_the_pooled_instances(task):
    source = task.source
    cache = BagCache(source, 1 << 30)
    slide_ids = source.slide_ids[:5]
    pooled = np.concatenate([source.load(slide_id) for slide_id in slide_ids]).astype(np.float64)
    mean, deviation = cache.statistics(slide_ids)
    np.testing.assert_allclose(mean.numpy(), pooled.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), pooled.std(axis=0), rtol=1e-5, atol=1e-6)

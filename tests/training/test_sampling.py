"""Order of bags, draws of tiles, learning rate: pure functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.training.config import TrainingConfig
from wsi_ncmi.training.optim import learning_rate_at
from wsi_ncmi.training.sampling import EpochSampler, derive_seed, draw_instances


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5), st.integers(0, 3))
def test_shuffle_visits_every_bag_once_in_near_equal_batches(count, size, seed, epoch):
    sampler = EpochSampler(np.zeros(count, dtype=np.int64), batch_size=size, mode="shuffle", seed=seed)
    batches = sampler.batches(epoch)
    assert len(batches) == sampler.steps_per_epoch == math.ceil(count / size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_an_epoch_follows_from_seed_and_number_alone():
    labels = np.array([0, 1] * 20, dtype=np.int64)
    one = EpochSampler(labels, batch_size=8, mode="shuffle", seed=3)
    for epoch in range(3):
        one.batches(epoch)
    other = EpochSampler(labels, batch_size=8, mode="shuffle", seed=3)
    np.testing.assert_array_equal(one.batches(5), other.batches(5))
    assert not np.array_equal(one.batches(5), one.batches(6))
    different = EpochSampler(labels, batch_size=8, mode="shuffle", seed=4)
    assert not np.array_equal(one.batches(5), different.batches(5))


def test_balanced_sampler_draws_present_classes_equally():
    labels = np.array([0] * 900 + [2] * 100, dtype=np.int64)  # class 1 has no slide
    sampler = EpochSampler(labels, batch_size=50, mode="class_balanced", seed=0)
    drawn = labels[np.concatenate([np.concatenate(sampler.batches(e)) for e in range(10)])]
    assert len(drawn) == 10_000
    assert np.mean(drawn == 2) == pytest.approx(0.5, abs=0.03)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 20))
def test_instances_are_drawn_without_replacement_in_order(lengths, limit):
    kept = draw_instances(np.array(lengths), limit, 1, 2, 3)
    for length, rows in zip(lengths, kept, strict=True):
        if length <= limit:
            assert rows is None
        else:
            assert rows is not None
            assert len(rows) == limit
            assert np.all(np.diff(rows) > 0)
            assert rows[0] >= 0
            assert rows[-1] < length


def test_instances_differ_between_steps():
    first, second = (draw_instances(np.array([1000]), 10, 0, 0, step)[0] for step in (0, 1))
    assert not np.array_equal(first, second)


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_learning_rate_rises_then_falls_and_is_never_idle(total, warmup):
    rates = [learning_rate_at(step, total, peak=2.0, warmup=warmup) for step in range(total)]
    assert all(0 < rate <= 2.0 for rate in rates)
    top = math.ceil(warmup * total)
    if top < total:
        assert rates[top] == pytest.approx(2.0)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_learning_rate_at_the_middle_of_the_cosine():
    assert learning_rate_at(50, 100, peak=1.0, warmup=0.0) == pytest.approx(0.5)


def test_seeds_differ_by_purpose_and_are_stable():
    assert derive_seed(0, "aggregator") != derive_seed(0, "criterion") != derive_seed(1, "criterion")
    assert derive_seed(0, "order", 1) == 4489457307835839548
    assert 0 <= derive_seed(7, "x") < 2**63


def test_patient_balanced_draws_patients_equally():
    """Patient 9 has ten slides, three others one each."""
    patients = np.array([9] * 10 + [2, 5, 7])
    sampler = EpochSampler(
        np.zeros(13, dtype=np.int64), batch_size=4, mode="patient_balanced", seed=0, patients=patients
    )
    drawn = np.concatenate([b for epoch in range(400) for b in sampler.batches(epoch)])
    counts = np.bincount(patients[drawn], minlength=10)[[2, 5, 7, 9]]
    np.testing.assert_allclose(counts / len(drawn), 0.25, atol=0.02)
    assert len(np.unique(drawn)) == 13


@pytest.mark.parametrize(
    ("slides", "epochs", "accumulate", "bags"),
    [(10, 20, 1, 1), (190, 20, 1, 4), (450, 20, 1, 9), (800, 20, 1, 16), (5000, 20, 1, 16), (190, 20, 2, 2)],
)
def test_a_small_cohort_gets_smaller_batches_of_itself(slides, epochs, accumulate, bags):
    options = TrainingConfig(epochs=epochs, accumulate=accumulate)
    assert options.bags_per_batch(slides) == bags
    assert TrainingConfig(batch_size=16).bags_per_batch(slides) == 16

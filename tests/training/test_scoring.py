"""Scores against scikit-learn; identity against itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.training.resume import first_difference, identity_hash
from wsi_ncmi.training.scoring import f1_and_recall, probabilities_of, validation_scores


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 2**31))
def test_macro_f1_and_balanced_accuracy_equal_scikit_learn(classes, count, seed):
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, classes, (2, count))
    f1, balanced = f1_and_recall(y, predicted, classes)
    expected = f1_score(y, predicted, labels=range(classes), average="macro", zero_division=0)
    np.testing.assert_allclose(f1, expected, rtol=1e-12)
    present = np.unique(y)
    np.testing.assert_allclose(
        balanced, recall_score(y, predicted, labels=present, average="macro"), rtol=1e-12
    )


def test_identity_ignores_the_order_of_keys_and_names_the_difference():
    one = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    other = {"d": None, "a": {"c": (1, 2), "b": 1}}
    assert identity_hash(one) == identity_hash(other)
    assert first_difference(one, other) == ""
    assert first_difference(one, {**one, "a": {"b": 2, "c": [1, 2]}}) == "a.b is 1 there and 2 now"
    assert first_difference(one, {"a": one["a"]}) == "d is None there and absent now"


def test_validation_information_equals_a_slow_loop():
    """CMI = mean KL(p‖class mean), Γ = mean over all pairs of 1{y≠v} H(p, q), on CE's probabilities."""
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(9, 5, generator=generator), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    criterion = build_loss(loss_config(name="ce"), 3, 5)
    scores = validation_scores(criterion, z, y)
    p = probabilities_of(criterion, z)
    means = [p[y.numpy() == c].mean(axis=0) for c in range(3)]
    cmi = np.mean([np.sum(p[i] * np.log(p[i] / means[int(y[i])])) for i in range(9)])
    pairs = [-np.sum(p[i] * np.log(p[j])) if y[i] != y[j] else 0.0 for i in range(9) for j in range(9)]
    np.testing.assert_allclose(scores["val_cmi"], cmi, rtol=1e-9)
    np.testing.assert_allclose(scores["val_gamma"], np.mean(pairs), rtol=1e-9)
    np.testing.assert_allclose(scores["val_ncmi"], cmi / np.mean(pairs), rtol=1e-9)
    assert scores["val_loss"] == pytest.approx(criterion(z, y).item(), rel=1e-6)


def test_a_slide_a_class_has_no_concentration():
    """A class mean of one slide is that slide: 0 would be no finding."""
    scores = validation_scores(build_loss(loss_config(name="ce"), 3, 4), torch.randn(3, 4), torch.arange(3))
    assert np.isnan(scores["val_cmi"])
    assert np.isfinite(scores["val_gamma"])


def test_information_of_one_class_leaves_the_ratio_undefined():
    scores = validation_scores(
        build_loss(loss_config(name="ce"), 3, 4), torch.randn(5, 4), torch.ones(5).long()
    )
    assert np.isfinite(scores["val_cmi"])
    assert np.isnan(scores["val_gamma"])
    assert np.isnan(scores["val_ncmi"])

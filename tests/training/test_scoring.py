"""Scores against scikit-learn; identity against itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from wsi_ncmi.training.identity import first_difference, identity_hash
from wsi_ncmi.training.scoring import f1_and_recall


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

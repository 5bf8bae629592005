"""The smooth top-1 SVM loss against a plain form, with its bounds."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.peers import plain_loss
from wsi_ncmi.mil.clam import smooth_top1_svm

scores_of = st.lists(st.floats(-12, 12), min_size=2, max_size=5)


@settings(deadline=None)
@given(scores_of, st.integers(0, 4))
def test_it_equals_the_plain_form_and_bounds_the_hinge(scores, target):
    target %= len(scores)
    row = torch.tensor([scores], dtype=torch.float64)
    found = smooth_top1_svm(row, torch.tensor([target])).item()
    assert math.isclose(found, plain_loss(row[0], target, "svm").item(), rel_tol=1e-9, abs_tol=1e-9)
    hinge = max(s + (j != target) - scores[target] for j, s in enumerate(scores))
    assert hinge - 1e-9 <= found <= hinge + math.log(len(scores)) + 1e-9


def test_far_apart_scores_take_the_maximum_itself():
    scores = torch.tensor([[0.0, 7.0], [0.0, 6.9]], dtype=torch.float64)
    hard, smooth = smooth_top1_svm(scores, torch.tensor([0, 0])).tolist()
    assert hard == 8.0
    assert smooth > 7.9

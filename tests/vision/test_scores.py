"""Scores equal scikit-learn's and those of wsi_ncmi.metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, top_k_accuracy_score

from wsi_ncmi.losses import build_loss, list_losses, loss_config
from wsi_ncmi.metrics import information_metrics
from wsi_ncmi.vision.loop import SCORES, scores_of, top_share


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_top_k_equals_scikit_learn(k):
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(10), size=200), rng.integers(0, 10, 200)
    expected = 1.0 if k == 10 else top_k_accuracy_score(y, p, k=k, labels=range(10))
    assert top_share(p, y, k) == pytest.approx(expected)


def test_a_tie_is_no_hit_for_all():
    p = np.full((4, 4), 0.25)
    assert top_share(p, np.arange(4), 1) == 0.25
    assert top_share(p, np.arange(4), 2) == 0.5


@pytest.mark.parametrize("name", [info.name for info in list_losses()])
def test_scores_of_every_loss(name):
    torch.manual_seed(0)
    criterion = build_loss(loss_config(name=name), 6, 16, [30] * 6)
    z, y = torch.randn(700, 16), torch.randint(0, 6, (700,))
    scores = scores_of(criterion, z, y)
    assert tuple(scores) == SCORES
    p = criterion.eval().predict_proba(z).detach().double().numpy()
    predicted = p.argmax(axis=1)
    assert scores["top1"] == pytest.approx((predicted == y.numpy()).mean())
    assert scores["macro_f1"] == pytest.approx(f1_score(y, predicted, average="macro"))
    assert scores["ncmi"] == pytest.approx(information_metrics(p, y.numpy())["ncmi"], rel=1e-5)
    assert math.isfinite(scores["loss"])
    if name == "ncmi":
        nearest = criterion.distances(z).argmin(dim=1)
        assert scores["top1_nearest"] == pytest.approx((nearest == y).double().mean())
    else:
        assert math.isnan(scores["top1_nearest"])


def test_the_loss_is_the_mean_over_all_images():
    criterion = build_loss(loss_config(name="ce"), 3, 4)
    z, y = torch.randn(1000, 4), torch.randint(0, 3, (1000,))
    with torch.no_grad():
        expected = float(criterion(z, y))
    assert scores_of(criterion, z, y)["loss"] == pytest.approx(expected, rel=1e-5)

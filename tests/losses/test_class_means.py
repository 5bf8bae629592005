"""The class means' share in NCMI's decision: scikit-learn's discriminant, what it changes, what it leaves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.nn.functional import nll_loss, one_hot

from wsi_ncmi.losses import NCMILoss
from wsi_ncmi.losses.decision import ClassMeanDecision, _discriminant


def _samples(count: int, classes: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return torch.randn(count, width, generator=generator) + 2.5 * one_hot(y, width) + 100.0, y


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(6, 12), st.integers(0, 1000))
def test_the_discriminant_is_scikit_learns(classes, width, seed):
    z, y = _samples(90, classes, width, seed)
    z, y = z[: 60 + seed % 30].double(), y[: 60 + seed % 30]
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(z.numpy(), y.numpy())
    weight, bias = _discriminant(z, y, classes, prior=1.0)
    ours = (z @ weight.T + bias).log_softmax(dim=1)
    np.testing.assert_allclose(ours.numpy(), reference.predict_log_proba(z.numpy()), atol=1e-8)


def test_class_means_join_where_the_training_inputs_are_given_and_only_there():
    z, y = _samples(200, 4, 8)
    criterion, plain = (NCMILoss(4, 8, class_mean_decision=on) for on in (True, False))
    plain.load_state_dict(criterion.state_dict())
    for each in (criterion, plain):
        each.fit_decision(z[:60], y[:60], z[60:140], y[60:140])
    alone = NCMILoss(4, 8)
    alone.load_state_dict(
        {k: v for k, v in criterion.state_dict().items() if k.split(".")[0] not in ("class_means", "far")}
    )
    assert torch.equal(alone.predict_proba(z), plain.predict_proba(z))
    # An untrained projection knows little, the class means know the classes.
    right = [(each.predict_proba(z[140:]).argmax(1) == y[140:]).float().mean() for each in (plain, criterion)]
    assert right[1] > right[0] + 0.3
    torch.testing.assert_close(criterion.predict_proba(z).sum(dim=1), torch.ones(200))


def test_the_scale_is_the_one_that_fits_validation_best():
    z, y = _samples(150, 3, 5)
    log_p = (torch.randn(150, 3, generator=torch.Generator().manual_seed(1)) + one_hot(y, 3)).log_softmax(1)
    decision = ClassMeanDecision(3, 5)
    decision.fit(log_p[:70], z[:70], y[:70], z[70:], y[70:], balance=0.0)
    weight, bias = _discriminant(z[70:].double(), y[70:], 3, prior=1.0)
    spread = [
        (s - s.mean(1, keepdim=True)).square().mean().sqrt()
        for s in (log_p[:70], z[:70].double() @ weight.T + bias)
    ]
    scores = log_p[:70] / spread[0] + 2 * (z[:70].double() @ weight.T + bias) / spread[1]
    best = float(decision.own_weight * spread[0])
    losses = [
        float(nll_loss((scale * scores).log_softmax(1), y[:70])) for scale in (0.97 * best, best, 1.03 * best)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_the_state_carries_them_and_one_without_takes_them_away():
    z, y = _samples(80, 3, 6)
    fitted, other, fresh = NCMILoss(3, 6), NCMILoss(3, 6), NCMILoss(3, 6)
    fitted.fit_decision(z[:30], y[:30], z[30:], y[30:])
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.predict_proba(z), fitted.predict_proba(z))
    other.load_state_dict(fresh.state_dict())
    assert torch.equal(other.predict_proba(z), fresh.predict_proba(z))
    torn = {**fitted.state_dict(), "class_means.weight": torch.zeros(4, 6)}
    with pytest.raises(RuntimeError, match=r"class_means\.weight"):
        fresh.load_state_dict(torn)


def test_a_class_without_a_sample_and_embeddings_that_do_not_vary_do_no_harm():
    z, y = _samples(60, 3, 6)
    criterion = NCMILoss(5, 6)
    criterion.fit_decision(z[:20], y[:20], z[20:], y[20:])
    p = criterion.predict_proba(z)
    assert torch.isfinite(p).all()
    assert int(p.argmax(1).max()) < 3
    still = torch.ones(30, 6)
    criterion.fit_decision(still, y[:30], still, y[:30])
    assert torch.isfinite(criterion.predict_proba(still)).all()

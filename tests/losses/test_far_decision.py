"""Samples far from all of the training: NumPy's distances, who decides them, and that no other one changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from wsi_ncmi.losses import NCMILoss
from wsi_ncmi.losses.decision import CalibratedDecision, FarDecision


def _samples(count: int, classes: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(count, generator=generator).square() * classes).long()  # the first class is the commonest
    spread = torch.linspace(0.2, 3.0, width)
    return spread * torch.randn(count, width, generator=generator) + 2.5 * one_hot(y, width) + 7.0, y


def _numpys_remoteness(z: np.ndarray, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """The whole covariance, with all but the 16 first directions taken for alike."""
    covariance = np.cov(train.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    values[: max(len(values) - 16, 0)] = 0.0
    kept = vectors @ np.diag(values) @ vectors.T
    metric = np.linalg.inv(0.7 * kept + 0.3 * np.trace(covariance) / len(values) * np.eye(len(values)))

    def distance(x: np.ndarray) -> np.ndarray:
        return np.einsum("ni,ij,nj->n", x - train.mean(0), metric, x - train.mean(0))

    # torch's median of an even number is the lower one of the two in the middle.
    medians = [np.sort(distance(part))[(len(part) - 1) // 2] for part in (train, validation)]
    return distance(z) / (8 * max(medians))


@settings(max_examples=20)
@given(st.integers(2, 5), st.integers(5, 40), st.integers(1, 60), st.integers(0, 1000))
def test_how_far_a_sample_is(classes, width, held_out, seed):
    z, _ = _samples(100 + held_out, classes, width, seed)
    train, validation = z[held_out:].double().numpy(), z[:held_out].double().numpy()
    other = 20 * torch.randn(30, width, generator=torch.Generator().manual_seed(seed))
    decision = FarDecision(classes, width)
    decision.fit(CalibratedDecision(classes, 1.0), z[:held_out], z[held_out:])
    expected = _numpys_remoteness(other.double().numpy(), train, validation)
    np.testing.assert_allclose(decision.remoteness(other).numpy(), expected, rtol=2e-4, atol=1e-5)


def _fitted(criterion: NCMILoss, z: torch.Tensor, y: torch.Tensor) -> NCMILoss:
    criterion.fit_decision(z[:80], y[:80], z[80:200], y[80:200])
    return criterion


def test_far_samples_are_decided_by_the_distances_under_the_prior_and_near_ones_as_before():
    z, y = _samples(300, 4, 24, seed=3)
    near, far = z[200:], z[200:] + 60.0
    criterion, without = NCMILoss(4, 24), NCMILoss(4, 24, plain_when_far=False)
    without.load_state_dict(criterion.state_dict())
    assert torch.equal(criterion(z, y), without(z, y))
    plain = CalibratedDecision(4, 1 / criterion.tau, ridge=20.0)
    plain.fit(criterion.distances(z[:80]), y[:80])
    _fitted(criterion, z, y), _fitted(without, z, y)
    both = torch.cat([near, far])
    assert (criterion.far.remoteness(both) > 1).tolist() == [False] * 100 + [True] * 100
    torch.testing.assert_close(criterion.predict_proba(near), without.predict_proba(near))
    torch.testing.assert_close(criterion.predict_proba(far), plain(criterion.distances(far)).exp())
    assert (without.predict_proba(far) - criterion.predict_proba(far)).abs().max() > 0.02


@pytest.mark.parametrize("options", [{"class_mean_decision": False}, {"decision_balance": 0.0}])
def test_either_correction_ends_where_a_sample_is_far(options):
    z, y = _samples(300, 4, 24, seed=4)
    criterion = NCMILoss(4, 24, **options)
    plain = CalibratedDecision(4, 1 / criterion.tau, ridge=20.0)
    plain.fit(criterion.distances(z[:80]), y[:80])
    assert criterion.uses_training
    p = _fitted(criterion, z, y).predict_proba(z + 60)
    torch.testing.assert_close(p, plain(criterion.distances(z + 60)).exp())


def test_without_the_training_inputs_no_sample_is_far():
    z, y = _samples(120, 3, 6, seed=5)
    criterion, without = NCMILoss(3, 6), NCMILoss(3, 6, plain_when_far=False)
    without.load_state_dict(criterion.state_dict())
    for each in (criterion, without):
        each.fit_decision(z[:60], y[:60])
    assert torch.equal(criterion.predict_proba(z + 1e4), without.predict_proba(z + 1e4))
    with pytest.raises(RuntimeError, match="isn't fitted"):
        criterion.far.remoteness(z)


def test_embeddings_that_do_not_vary_make_no_sample_far():
    y = torch.arange(30) % 3
    criterion = NCMILoss(3, 6)
    still = torch.ones(30, 6)
    criterion.fit_decision(still, y, still, y)
    assert criterion.far.scale is None
    assert torch.isfinite(criterion.predict_proba(100 * still)).all()

"""The fused log form against the same formula written out operation by operation."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import kl_div

from wsi_ncmi.losses import NCMILoss
from wsi_ncmi.losses.fixed_centroids import linear_class_scores, linear_log_form


def written_out(u, y, log_s, tau, power, sigmax, shift, weights):
    """From the divergences of normalised distributions, nothing shared with the fused form."""
    p = torch.sigmoid(u) if sigmax else u.exp()
    log_p = (p / p.sum(dim=1, keepdim=True)).log()
    scores = []
    for s in log_s:
        target = s.exp().expand_as(log_p)
        scores.append(-kl_div(log_p, target, reduction="none").sum(dim=1) / tau)
    shares = (torch.stack(scores, dim=1) + shift).softmax(dim=1)
    own = shares[torch.arange(len(y)), y]
    losses = -own.log() if power == 0 else (1 - own**power) / power
    return (losses * weights).mean()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 9),
    classes=st.integers(2, 6),
    power=st.sampled_from([-1.0, -0.3, 0.0, 0.5, 1.0]),
    tau=st.sampled_from([0.3, 1.0, 2.5]),
    sigmax=st.booleans(),
    weighted=st.booleans(),
)
def test_value_and_gradient_equal_the_formula(seed, size, classes, power, tau, sigmax, weighted):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u = normal(size, classes + 1).requires_grad_()
    y = torch.randint(classes, (size,), generator=generator)
    log_s, shift = normal(classes, classes + 1).log_softmax(dim=1), normal(classes)
    weights = normal(size).exp() if weighted else None
    words, offset = linear_class_scores(log_s, tau)
    loss = linear_log_form(u, y, words, offset + shift, power=power, sigmax=sigmax, sample_weights=weights)
    expected = written_out(u, y, log_s, tau, power, sigmax, shift, 1.0 if weights is None else weights)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    (found,) = torch.autograd.grad(3 * loss, u)
    (wanted,) = torch.autograd.grad(3 * expected, u)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        again = linear_log_form(
            u, y, words, offset + shift, power=power, sigmax=sigmax, sample_weights=weights
        )
    assert again.item() == loss.item()


@pytest.mark.parametrize("form", [{}, {"power": 0.0}, {"balance": 1.0, "class_counts": [3, 1, 2]}], ids=str)
def test_second_derivatives(form):
    torch.manual_seed(0)
    criterion = NCMILoss(3, 4, **form).double()
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: criterion(a, torch.tensor([0, 1, 2, 0, 1])), z)


def test_symbols_that_all_centroids_share_have_no_gradient():
    criterion = NCMILoss(3, 16)  # 8 symbols: the first and the fifth are on for all of the 3 classes
    criterion(torch.randn(32, 16), torch.arange(32) % 3).backward()
    assert criterion.head.bias.grad.nonzero().flatten().tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_large_scores_stay_finite(scale):
    u = (torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]) * scale).requires_grad_()
    words, offset = linear_class_scores(torch.eye(3).mul(3.0).log_softmax(dim=1), 1.0)
    loss = linear_log_form(u, torch.tensor([0, 0]), words, offset, power=0.5, sigmax=True)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(u.grad).all()


def test_the_layer_of_class_scores_follows_the_centroids():
    z, y = torch.randn(8, 6), torch.arange(8) % 3
    first, other = NCMILoss(3, 6), NCMILoss(3, 6, code_scale=1.0)
    values = {criterion: criterion(z, y).item() for criterion in (first, other)}
    assert values[first] != values[other]
    kept = copy.deepcopy(first)
    first.load_state_dict(other.state_dict())
    assert first(z, y).item() == values[other]
    assert kept(z, y).item() == values[first]
    assert first.double()(z.double(), y).item() == pytest.approx(values[other], rel=1e-6)

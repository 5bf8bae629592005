"""The Nyström attention's parts: the pseudo-inverse, and the limit in which it is exact."""

from __future__ import annotations

import pytest
import torch

from tests.mil import peers
from wsi_ncmi.mil.transmil import NystromAttention, iterative_pinv


def test_the_pseudo_inverse_converges_to_the_inverse():
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 5, 5, dtype=torch.float64) * 2).softmax(-1)
    norm = x.sum(-2).amax((1, 2))
    torch.testing.assert_close(iterative_pinv(x, norm, 40), torch.linalg.pinv(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 8, 9, 16, 26, 37, 40])
def test_landmarks_of_nothing_count_as_they_would_one_by_one(n):
    """The compressed form against the plain one, which pads with zeros: fewer tokens than landmarks and more."""
    torch.manual_seed(n)
    plain = peers.Nystrom(16, 4, 5).double()
    layer = NystromAttention(16, heads=4, landmarks=8, iterations=6, residual_kernel=5, dropout=0.0).double()
    layer.load_state_dict(
        {
            "qkv.weight": plain.to_qkv.weight,
            "out.weight": plain.to_out[0].weight,
            "out.bias": plain.to_out[0].bias,
            "residual.weight": plain.res_conv.weight,
        }
    )
    with torch.no_grad():  # attention far from uniform
        layer.qkv.weight.mul_(4)
        plain.to_qkv.weight.mul_(4)
    x = torch.randn(2, n, 16, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    found, seen = layer(x, need_weights=True)
    expected = [plain(bag) for bag in y]
    torch.testing.assert_close(found, torch.stack([mixed for mixed, _ in expected]), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(seen, torch.stack([row for _, row in expected]).detach(), rtol=1e-7, atol=1e-9)
    probe = torch.randn_like(found)
    (a,) = torch.autograd.grad((found * probe).sum(), x)
    (b,) = torch.autograd.grad((torch.stack([m for m, _ in expected]) * probe).sum(), y)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_with_as_many_landmarks_as_tokens_it_is_plain_attention():
    torch.manual_seed(0)
    layer = NystromAttention(8, heads=2, landmarks=6, iterations=60, residual_kernel=3, dropout=0.0).double()
    with torch.no_grad():
        layer.residual.weight.zero_()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    found, seen = layer(x, need_weights=True)
    q, k, v = layer.qkv(x).view(6, 3, 2, 4).permute(1, 2, 0, 3)
    weights = torch.softmax(q @ k.transpose(1, 2) / 2, -1)
    expected = layer.out((weights @ v).transpose(0, 1).reshape(6, 8))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[0], weights[:, 0].mean(0), rtol=1e-5, atol=1e-6)

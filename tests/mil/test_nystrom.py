"""The Nyström attention's parts: the pseudo-inverse, and the limit in which it is exact."""

from __future__ import annotations

import torch

from wsi_ncmi.mil.nystrom import NystromAttention, iterative_pinv


def test_the_pseudo_inverse_converges_to_the_inverse():
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 5, 5, dtype=torch.float64) * 2).softmax(-1)
    torch.testing.assert_close(iterative_pinv(x, 40), torch.linalg.pinv(x), rtol=1e-6, atol=1e-6)


def test_the_start_is_a_bags_own():
    """One step is far from convergence, so a norm shared between bags would show."""
    torch.manual_seed(0)
    x = torch.stack([(torch.randn(3, 5, 5) * scale).softmax(-1) for scale in (0.1, 9.0)]).double()
    single = torch.cat([iterative_pinv(bag.unsqueeze(0), 1) for bag in x])
    torch.testing.assert_close(iterative_pinv(x, 1), single)


def test_with_as_many_landmarks_as_tokens_it_is_plain_attention():
    torch.manual_seed(0)
    layer = NystromAttention(8, heads=2, landmarks=6, iterations=60, residual_kernel=3, dropout=0.0).double()
    with torch.no_grad():
        layer.residual.weight.zero_()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    found, seen = layer(x, look=True)
    q, k, v = layer.qkv(x).view(6, 3, 2, 4).permute(1, 2, 0, 3)
    weights = torch.softmax(q @ k.transpose(1, 2) / 2, -1)
    expected = layer.out((weights @ v).transpose(0, 1).reshape(6, 8))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[0], weights[:, 0].mean(0), rtol=1e-5, atol=1e-6)

"""The fast dropout is dropout."""

from __future__ import annotations

import pytest
import torch

from wsi_ncmi.mil.augmentation import FastDropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
def test_share_scale_and_independence(p):
    torch.manual_seed(0)
    layer = FastDropout(p)
    out = layer(torch.ones(401, 499))
    kept = out != 0
    n = out.numel()
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
    assert out[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    # Neighbours share a 64-bit draw; their fates must not depend on each other.
    flat = kept.flatten().float()
    for lag in (1, 2, 3, 4):
        correlation = torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1]
        assert correlation.abs() < 5 / n**0.5
    # Every place of the four in a draw has the same share.
    quarters = flat[: n // 4 * 4].view(-1, 4).mean(0)
    assert (quarters - (1 - p)).abs().max() < 5 * (p * (1 - p) / (n / 4)) ** 0.5


def test_identity_in_eval_and_at_zero():
    x = torch.randn(5, 3)
    assert FastDropout(0.5).eval()(x) is x
    assert FastDropout(0.0)(x) is x


def test_seed_repeats_it_and_the_gradient_is_the_mask():
    layer = FastDropout(0.5)
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    out = layer(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(gradient * x, out)
    torch.manual_seed(3)
    assert torch.equal(layer(x), out)
    assert not torch.equal(layer(x), out)


def test_transposed_and_double_inputs():
    torch.manual_seed(0)
    x = torch.ones(4, 6, dtype=torch.float64).t()
    out = FastDropout(0.5)(x)
    assert out.shape == (6, 4)
    assert set(out.flatten().tolist()) <= {0.0, 2.0}
    assert out.dtype == torch.float64

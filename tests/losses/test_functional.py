"""The functional core against slow formulas, and at the edges of its range."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.losses import functional as f


def _batch(seed: int, batch: int, classes: int, symbols: int, scale: float, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, symbols, generator=generator, dtype=torch.float64) * scale
    v = torch.randn(classes, symbols, generator=generator, dtype=torch.float64) * scale
    y = torch.randint(classes, (batch,), generator=generator)
    return f.log_sigmax(u.to(dtype)), f.log_sigmax(v.to(dtype)), y


def _kl(a: list[float], b: list[float]) -> float:
    return sum(math.exp(x) * (x - w) for x, w in zip(a, b, strict=True))


SHAPES = {
    "seed": st.integers(0, 10_000),
    "batch": st.integers(1, 9),
    "classes": st.integers(2, 6),
    "symbols": st.integers(2, 9),
    "scale": st.floats(0.1, 30),
}


@settings(max_examples=40, deadline=None)
@given(**SHAPES)
def test_divergences_equal_the_loop(seed, batch, classes, symbols, scale):
    log_p, log_s, _ = _batch(seed, batch, classes, symbols, scale, torch.float64)
    forward = f.kl_to_centroids(log_p, log_s, "sample_to_code")
    backward = f.kl_to_centroids(log_p, log_s, "code_to_sample")
    for i, p in enumerate(log_p.tolist()):
        for j, s in enumerate(log_s.tolist()):
            assert forward[i, j].item() == pytest.approx(_kl(p, s), rel=1e-9, abs=1e-11)
            assert backward[i, j].item() == pytest.approx(_kl(s, p), rel=1e-9, abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(**SHAPES)
def test_cmi_separation_and_ratio_equal_the_loop(seed, batch, classes, symbols, scale):
    log_p, log_s, y = _batch(seed, batch, classes, symbols, scale, torch.float64)
    rows, centroids, labels = log_p.tolist(), log_s.tolist(), y.tolist()
    concentration = sum(_kl(p, centroids[c]) for p, c in zip(rows, labels, strict=True)) / batch
    centroid = (
        sum(
            sum(_kl(centroids[j], p) for j in range(classes) if j != c) / (classes - 1)
            for p, c in zip(rows, labels, strict=True)
        )
        / batch
    )
    pairwise = 0.0
    for p, c in zip(rows, labels, strict=True):
        for q, d in zip(rows, labels, strict=True):
            if c != d:
                pairwise -= sum(math.exp(a) * b for a, b in zip(p, q, strict=True))
    pairwise /= batch**2
    assert f.cmi(log_p, y, log_s).item() == pytest.approx(concentration, rel=1e-9)
    assert f.separation(log_p, y, log_s, "centroid").item() == pytest.approx(centroid, rel=1e-9)
    assert f.separation(log_p, y, log_s, "pairwise").item() == pytest.approx(pairwise, rel=1e-9, abs=1e-12)
    assert f.ncmi(log_p, y, log_s, "centroid").item() == pytest.approx(concentration / centroid, rel=1e-9)
    if pairwise > 0:
        assert f.ncmi(log_p, y, log_s, "pairwise").item() == pytest.approx(concentration / pairwise, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(**SHAPES)
def test_class_means_minimise_the_cmi(seed, batch, classes, symbols, scale):
    log_p, other, y = _batch(seed, batch, classes, symbols, scale, torch.float64)
    means, counts = f.class_means(log_p, y, classes)
    assert counts.tolist() == [labels.count(c) for labels in [y.tolist()] for c in range(classes)]
    assert torch.allclose(means.exp().sum(1), torch.ones(classes, dtype=torch.float64))
    for c in set(y.tolist()):
        assert torch.allclose(means[c].exp(), log_p.exp()[y == c].mean(0))
    assert f.cmi(log_p, y, means) <= f.cmi(log_p, y, other) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_is_zero_and_its_gradient_finite_where_sample_is_the_centroid(dtype):
    u = torch.linspace(-3, 3, 8, dtype=dtype).repeat(3, 1).requires_grad_()
    log_p = f.log_sigmax(u)
    for direction in ("sample_to_code", "code_to_sample"):
        distances = f.kl_to_centroids(log_p, log_p.detach(), direction)
        assert distances.abs().max() < 10 * torch.finfo(dtype).eps
        (gradient,) = torch.autograd.grad(distances.sum(), u, retain_graph=True)
        assert gradient.abs().max() < 10 * torch.finfo(dtype).eps


@settings(max_examples=60, deadline=None)
@given(**(SHAPES | {"scale": st.floats(0.01, 1000)}))
def test_divergences_are_not_negative_beyond_rounding(seed, batch, classes, symbols, scale):
    log_p, log_s, _ = _batch(seed, batch, classes, symbols, scale, torch.float32)
    log_s = torch.cat([log_s, log_p])
    for direction in ("sample_to_code", "code_to_sample"):
        distances = f.kl_to_centroids(log_p, log_s, direction)
        assert torch.isfinite(distances).all()
        largest = max(log_p.abs().max().item(), log_s.abs().max().item())
        assert distances.min() >= -8 * torch.finfo(torch.float32).eps * max(largest, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sigmax_stays_finite_at_huge_scores_and_computes_in_float32(dtype):
    u = torch.tensor([[-100.0, 100.0, 0.0], [-100.0, -100.0, -100.0], [100.0, 100.0, 100.0]], dtype=dtype)
    log_p = f.log_sigmax(u)
    assert log_p.dtype == torch.float32
    assert torch.isfinite(log_p).all()
    assert torch.allclose(log_p.exp().sum(1), torch.ones(3))
    assert log_p[0].tolist() == pytest.approx(
        [-100 - math.log(1.5), -math.log(1.5), math.log(0.5) - math.log(1.5)], rel=1e-6
    )


def test_sigmax_keeps_float64():
    assert f.log_sigmax(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_zero_probabilities_give_no_nan():
    p = torch.eye(3, dtype=torch.float64)
    log_p = f.safe_log(p)
    y = torch.arange(3)
    means, _ = f.class_means(log_p, y, 3)
    assert f.cmi(log_p, y, means).item() == 0
    assert f.separation(log_p, y, means, "pairwise") > 1e30
    assert f.ncmi(log_p, y, means, "pairwise").item() == 0
    assert f.kl_to_centroids(log_p, means).diagonal().tolist() == [0, 0, 0]


def test_functions_pass_gradcheck():
    log_p, log_s, y = _batch(3, 5, 3, 4, 2.0, torch.float64)
    u, v = log_p.clone().requires_grad_(), log_s.clone().requires_grad_()
    for form in ("pairwise", "centroid"):
        assert torch.autograd.gradcheck(
            lambda a, b, form=form: f.ncmi(f.log_sigmax(a), y, f.log_sigmax(b), form), (u, v)
        )

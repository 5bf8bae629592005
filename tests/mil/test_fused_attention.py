"""The fused training step of ABMIL against its layers one after the other, and against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch

from wsi_ncmi.mil import ABMIL, BagBatch, GatedABMIL, fused_attention
from wsi_ncmi.mil import abmil as abmil_module
from wsi_ncmi.mil.fused_attention import _Bags


def bags(dtype: torch.dtype, lengths: tuple[int, ...] = (1, 7, 3, 20)) -> BagBatch:
    generator = torch.Generator().manual_seed(0)
    return BagBatch.pack([torch.randn(n, 6, generator=generator, dtype=dtype) for n in lengths])


def gradients(model, batch, monkeypatch, *, fused: bool):
    model = copy.deepcopy(model).train()
    features = batch.features.clone().requires_grad_()
    monkeypatch.setattr(abmil_module, "_fits_fused", lambda features: fused)
    torch.manual_seed(5)
    output = model(BagBatch(features, batch.lengths))
    weights = torch.randn(output.embedding.shape, generator=torch.Generator().manual_seed(1)).to(features)
    # A loss that also looks at the attention, as an entropy term does.
    (output.embedding * weights).sum().add((output.attention.square()).sum()).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return output, {**found, "features": features.grad}


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "bag by bag"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", [ABMIL, GatedABMIL])
def test_it_equals_the_layers(kind, dropout, dense, monkeypatch):
    monkeypatch.setattr(fused_attention, "_DENSE_LENGTH", 512 if dense else 0)
    if not dense:
        monkeypatch.setattr(fused_attention, "_LARGE_ROWS", 0)
        monkeypatch.setattr(fused_attention, "_BLOCK_ROWS", 7)
    torch.manual_seed(0)
    model = kind(6, hidden=9, attention=5, dropout=dropout).double()
    batch = bags(torch.float64)
    expected, of_expected = gradients(model, batch, monkeypatch, fused=False)
    found, of_found = gradients(model, batch, monkeypatch, fused=True)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.attention, expected.attention, rtol=1e-12, atol=1e-12)
    assert of_found.keys() == of_expected.keys()
    for name, gradient in of_expected.items():
        torch.testing.assert_close(of_found[name], gradient, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", [ABMIL, GatedABMIL])
def test_its_gradients_are_finite_differences(kind):
    torch.manual_seed(0)
    model = kind(6, hidden=4, attention=3, dropout=0.0).double().train()
    batch = bags(torch.float64, (2, 5))

    def pooled(features):
        output = model(BagBatch(features, batch.lengths))
        return output.embedding, output.attention

    assert torch.autograd.gradcheck(pooled, batch.features.clone().requires_grad_())


def test_it_is_what_trains_on_the_cpu_and_only_there(monkeypatch):
    calls = []
    pool = abmil_module.attention_pool
    monkeypatch.setattr(abmil_module, "attention_pool", lambda *a, **k: calls.append(1) or pool(*a, **k))
    model, batch = GatedABMIL(6), bags(torch.float32)
    model.train()(batch)
    assert len(calls) == 1
    with torch.no_grad():
        model(batch)
    model.eval()(batch)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [ABMIL, GatedABMIL])
def test_in_bfloat16_it_is_as_near_as_the_layers_are(kind, monkeypatch):
    """Both are compared with the float64 truth: the fused step may not be worse than the layers by much."""
    torch.manual_seed(0)
    model = kind(6, hidden=32, attention=16, dropout=0.0)
    batch = bags(torch.float32, (40, 7, 300, 20))
    exact = BagBatch(batch.features.double(), batch.lengths)
    _, truth = gradients(copy.deepcopy(model).double(), exact, monkeypatch, fused=False)
    errors = {}
    for fused in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            output, found = gradients(model, batch, monkeypatch, fused=fused)
        assert output.embedding.dtype == output.attention.dtype == torch.float32
        assert {gradient.dtype for gradient in found.values()} == {torch.float32}
        errors[fused] = {
            name: float((found[name].double() - truth[name]).norm() / (truth[name].norm() + 1e-3))
            for name in truth
        }
    for name, error in errors[True].items():
        assert error < max(0.02, 1.5 * errors[False][name]), (name, errors[True], errors[False])


@pytest.mark.parametrize("tiles", [1, 45, 700])
def test_a_bag_alone_takes_the_same_steps_bit_for_bit(tiles):
    generator = torch.Generator().manual_seed(tiles)
    values, scores = torch.randn(tiles, 8, generator=generator), torch.randn(tiles, generator=generator)
    row = torch.randn(1, 8, generator=generator)
    alone, general = (_Bags(BagBatch.pack([values])) for _ in range(2))
    assert alone.alone
    general.alone = False
    weights = alone.softmax(scores)
    assert torch.equal(weights, general.softmax(scores))
    assert torch.equal(alone.sums(values, weights), general.sums(values, weights))
    assert torch.equal(alone.dots(values, row), general.dots(values, row))
    assert torch.equal(alone.of_instances(row[:, 0]).expand(tiles), general.of_instances(row[:, 0]))
    one, other = values.clone(), values.clone()
    alone.add_outer(one, weights, row)
    general.add_outer(other, weights, row)
    assert torch.equal(one, other)

"""CLAM, DSMIL and TransMIL: logits, losses and gradients equal slow one-bag forms with the published names."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tests.mil.peers import PeerClam, PeerDsmil, PeerTransMil
from wsi_ncmi.mil import BagBatch, build_aggregator, model_config
from wsi_ncmi.mil.config import ClamConfig, DsmilConfig, TransMilConfig
from wsi_ncmi.mil.external_checkpoints import Tensors
from wsi_ncmi.mil.external_models import translate_clam, translate_dsmil, translate_transmil

D, LENGTHS, LABELS = 5, [1, 9, 23, 9], [0, 2, 1, 1]


def _bags():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, D, generator=generator, dtype=torch.float64, requires_grad=True) for n in LENGTHS]


def _ours(options, translated):
    model = build_aggregator(options, D, 3).double()
    state = {"input_mean": model.input_mean, "input_scale": model.input_scale, **translated.aggregator}
    model.load_state_dict(state, strict=True)
    head = model.make_head(3).double()
    head.load_state_dict(dict(translated.head), strict=True)
    return model, head


def _compare(peer, translate, model, head, loss, slow_loss):
    """``loss`` and ``slow_loss`` are scalars of the two sides; all gradients must agree."""
    mine, theirs = _bags(), _bags()
    loss(mine).backward()
    slow_loss(theirs).backward()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-10)
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in peer.named_parameters()}
    # A translation only joins and reshapes, so it holds for the gradients as it does for the weights.
    expected = translate(Tensors(grads, "gradients"))
    found = {name: p.grad for name, p in model.named_parameters()}
    assert set(found) == set(expected.aggregator)
    for name, gradient in expected.aggregator.items():
        got = torch.zeros_like(gradient) if found[name] is None else found[name]
        torch.testing.assert_close(got, gradient, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(head.weight.grad, expected.head["weight"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(head.bias.grad, expected.head["bias"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("several", "gated", "subtyping", "kind"),
    [
        (False, True, False, "svm"),
        (False, False, True, "ce"),
        (True, True, True, "svm"),
        (True, False, False, "ce"),
    ],
)
def test_clam(several, gated, subtyping, kind):
    torch.manual_seed(0)
    peer = PeerClam(D, 3, gated=gated, several=several).double()
    with torch.no_grad():  # far apart scores reach the hard part of the SVM loss as well
        peer.instance_classifiers[1].weight.mul_(40)
    settings = ClamConfig(
        gated=gated, subtyping=subtyping, instance_loss=kind, k_sample=4, instance_weight=0.5
    )
    options = model_config(
        name="clam_mb" if several else "clam_sb", hidden=6, attention=5, dropout=0.0, clam=settings
    )
    model, head = _ours(options, translate_clam(Tensors(peer.state_dict(), "peer")))

    def loss(bags):
        output = model.train()(BagBatch.pack(bags), torch.tensor(LABELS))
        assert list(output.auxiliary) == ["instance"]
        return cross_entropy(head(output.embedding), torch.tensor(LABELS)) + output.auxiliary["instance"]

    def slow_loss(bags):
        total = 0.0
        for bag, y in zip(bags, LABELS, strict=True):
            total = total + cross_entropy(peer(bag)[0], torch.tensor(y))
            total = total + 0.5 * peer.instance_loss(bag, y, k=4, subtyping=subtyping, kind=kind)
        return total / len(bags)

    torch.testing.assert_close(loss(_bags()), slow_loss(_bags()), rtol=1e-9, atol=1e-10)
    output = model.eval()(BagBatch.pack(_bags()))
    weights = torch.cat([peer(bag)[1] for bag in _bags()])
    torch.testing.assert_close(output.attention, weights.mean(1))
    torch.testing.assert_close(head(output.embedding), torch.stack([peer(bag)[0] for bag in _bags()]))
    assert (output.branches is None) == (not several)
    if several:
        torch.testing.assert_close(output.branches, weights)
    _compare(peer, translate_clam, model, head, loss, slow_loss)


@pytest.mark.parametrize(
    ("nonlinear", "value", "kind"),
    [(True, "identity", "bce"), (True, "relu", "ce"), (False, "linear", "bce")],
)
def test_dsmil(nonlinear, value, kind):
    torch.manual_seed(0)
    peer = PeerDsmil(D, 3, nonlinear=nonlinear, value=value).double()
    query = "nonlinear" if nonlinear else "linear"
    settings = DsmilConfig(query=query, query_width=5, value=value, instance_loss=kind)
    model, head = _ours(
        model_config(name="dsmil", dsmil=settings), translate_dsmil(Tensors(peer.state_dict(), "peer"))
    )
    assert translate_dsmil(Tensors(peer.state_dict(), "peer")).config.dsmil.value == value

    def loss(bags):
        output = model.train()(BagBatch.pack(bags), torch.tensor(LABELS))
        return (
            cross_entropy(head(output.embedding), torch.tensor(LABELS))
            + output.auxiliary["critical_instance"]
        )

    def slow_loss(bags):
        total = 0.0
        for bag, y in zip(bags, LABELS, strict=True):
            logits, best, _ = peer(bag)
            target = torch.eye(3, dtype=torch.float64)[y]
            second = (
                binary_cross_entropy_with_logits(best, target)
                if kind == "bce"
                else cross_entropy(best, torch.tensor(y))
            )
            total = total + cross_entropy(logits, torch.tensor(y)) + second
        return total / len(bags)

    torch.testing.assert_close(loss(_bags()), slow_loss(_bags()), rtol=1e-9, atol=1e-10)
    output = model.eval()(BagBatch.pack(_bags()))
    torch.testing.assert_close(output.branches, torch.cat([peer(bag)[2] for bag in _bags()]))
    torch.testing.assert_close(output.attention, output.branches.mean(1))
    torch.testing.assert_close(head(output.embedding), torch.stack([peer(bag)[0] for bag in _bags()]))
    _compare(peer, translate_dsmil, model, head, loss, slow_loss)


def test_transmil():
    torch.manual_seed(0)
    peer = PeerTransMil(D, 3).double()
    options = model_config(name="transmil", hidden=16, dropout=0.0, transmil=TransMilConfig(heads=8))
    model, head = _ours(options, translate_transmil(Tensors(peer.state_dict(), "peer")))
    probe = torch.randn(len(LENGTHS), 3, dtype=torch.float64)

    def loss(bags):
        return (head(model.train()(BagBatch.pack(bags)).embedding) * probe).sum()

    def slow_loss(bags):
        return (torch.stack([peer(bag)[0] for bag in bags]) * probe).sum()

    output = model.eval()(BagBatch.pack(_bags()))
    torch.testing.assert_close(head(output.embedding), torch.stack([peer(bag)[0] for bag in _bags()]))
    torch.testing.assert_close(output.attention, torch.cat([peer(bag)[1] for bag in _bags()]))
    _compare(peer, translate_transmil, model, head, loss, slow_loss)


@pytest.mark.parametrize("name", ["clam_sb", "dsmil", "dtfd", "acmil"])
def test_labels_that_training_needs_are_asked_for(name):
    from wsi_ncmi.core.errors import InputError

    model = build_aggregator(model_config(name=name), D, 3)
    with pytest.raises(
        InputError, match=r"needs one label a bag \(4,\), got none; call model\(batch, labels\)"
    ):
        model.train()(BagBatch.pack([bag.float() for bag in _bags()]))
    with pytest.raises(InputError, match="is a whole number of at least 2, got None"):
        build_aggregator(model_config(name=name), D)


def test_a_class_wise_head_sees_its_own_class_alone():
    model = build_aggregator(model_config(name="clam_mb", hidden=6), D, 3)
    head = model.make_head(3)
    x = torch.randn(1, 18, requires_grad=True)
    for c in range(3):
        (gradient,) = torch.autograd.grad(head(x)[0, c], x)
        assert torch.count_nonzero(gradient[0].view(3, 6).abs().sum(1)) == 1
        assert gradient[0].view(3, 6)[c].abs().sum() > 0

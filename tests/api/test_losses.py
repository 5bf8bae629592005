"""Losses stand in for ``nn.CrossEntropyLoss``: reduction, class weights, and one sentence for wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import NCMILoss, build_loss, list_losses
from wsi_ncmi.losses.functional import generalised_log

Y = torch.tensor([0, 2, 1, 2, 2, 0])
WEIGHT = [0.5, 2.0, 3.0]
FORMS = {
    "default": {},
    "log": {"preset": "log"},
    "ratio": {"preset": "ratio"},
    "paper": {"preset": "paper"},
    "means": {"preset": "log", "code_words": "means", "means_update": "running"},
    "learned": {"code_words": "learned"},
    "pairwise": {"preset": "ratio", "separation": "pairwise"},
    "balanced": {"balance": 1.0, "prior_shift": 1.0, "class_counts": [5, 3, 9]},
}


def scores(width: int = 8) -> torch.Tensor:
    return torch.randn(6, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def made(form: str, **more) -> NCMILoss:
    torch.manual_seed(0)
    return NCMILoss(3, 8, **FORMS[form], **more).double().eval()


@pytest.mark.parametrize("form", FORMS)
def test_reductions_and_weights_are_those_of_cross_entropy(form):
    z, w = scores().requires_grad_(), torch.tensor(WEIGHT, dtype=torch.float64)[Y]
    each = made(form, reduction="none")(z, Y)
    assert each.shape == (6,)
    plain = made(form)(z, Y)
    torch.testing.assert_close(plain, each.mean())
    torch.testing.assert_close(made(form, reduction="sum")(z, Y), each.sum())
    weighted = made(form, weight=WEIGHT)(z, Y)
    torch.testing.assert_close(weighted, (w * each).sum() / w.sum())
    torch.testing.assert_close(made(form, weight=torch.tensor(WEIGHT), reduction="none")(z, Y), w * each)
    torch.testing.assert_close(made(form, weight=np.array(WEIGHT), reduction="sum")(z, Y), (w * each).sum())
    (ours,) = torch.autograd.grad(plain, z, retain_graph=True)
    (theirs,) = torch.autograd.grad(each.mean(), z)
    torch.testing.assert_close(ours, theirs)


def test_a_sample_s_loss_is_the_formula_of_its_class_scores():
    """(1 − P_y^q)/q with P = softmax_j(−KL(s_j‖p)/τ), p ∝ σ(W z + b), s_j ∝ σ(3 × a row of ±1), slowly."""
    criterion, z = made("default", reduction="none"), scores()
    u = z @ criterion.head.weight.T + criterion.head.bias
    p = torch.sigmoid(u) / torch.sigmoid(u).sum(1, keepdim=True)
    s = criterion.log_centroids.exp()
    expected = []
    for sample, label in zip(p, Y.tolist(), strict=True):
        kl = torch.stack([(word * (word / sample).log()).sum() for word in s])
        own = (-kl / (2 / 8)).softmax(0)[label]
        expected.append((1 - own**0.3) / 0.3)
    torch.testing.assert_close(criterion(z, Y), torch.stack(expected))


def test_a_weighted_ratio_of_a_batch_has_both_means_weighted():
    z, w = scores(), torch.tensor(WEIGHT, dtype=torch.float64)[Y]
    kl = {}
    criterion = made("ratio", ratio="batch", weight=WEIGHT)
    p, s = criterion.log_symbols(z).exp(), criterion.log_centroids.exp()
    for name, (a, b) in {"own": (p[:, None], s[None]), "others": (s[None], p[:, None])}.items():
        kl[name] = (a * (a / b).log()).sum(-1)
    concentration = kl["own"][range(6), Y]
    others = torch.ones(6, 3, dtype=torch.float64)
    others[range(6), Y] = 0
    separation = (kl["others"] * others).sum(1) / 2
    torch.testing.assert_close(criterion(z, Y), (w * concentration).sum() / (w * separation).sum())
    with pytest.raises(InputError, match="one number"):
        NCMILoss(3, 8, preset="ratio", ratio="batch", reduction="none")


def test_on_logits_the_decision_is_the_argmax_and_a_loop_learns():
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    x[range(60), y] += 4
    network, criterion = nn.Linear(5, 3), NCMILoss(3)
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(40):
        optimiser.zero_grad()
        criterion(network(x), y).backward()
        optimiser.step()
    logits = network(x)
    assert (logits.argmax(1) == y).float().mean() > 0.95
    assert torch.equal(criterion.predict_proba(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("info", list_losses(), ids=lambda info: info.name)
def test_every_loss_takes_embeddings_logits_arrays_and_a_single_sample(info):
    counts = {"class_counts": [1, 2, 3]} if info.class_counts == "required" else {}
    embeddings = build_loss(info.name, 3, in_features=8, **counts)
    assert embeddings(scores(), Y).ndim == 0
    logits = build_loss(info.name, 3, **counts).eval()
    expected = logits(scores(3).float(), Y)
    torch.testing.assert_close(logits(scores(3).float().numpy(), Y.numpy()), expected)
    torch.testing.assert_close(logits(scores(3).float(), Y.int()), expected)
    torch.testing.assert_close(logits(scores(3).float(), Y.tolist()), expected)
    torch.testing.assert_close(logits(scores(3).float(), list(Y.numpy())), expected)
    torch.testing.assert_close(logits.predict_proba(scores(3).numpy()), logits.predict_proba(scores(3)))
    for one, label in ((scores(3)[0], Y[0]), (scores(3)[:1], Y[0]), (scores(3)[:1], 0)):
        torch.testing.assert_close(logits(one.float(), label), logits(scores(3)[:1].float(), Y[:1]))
    assert logits.predict_proba(scores(3)).shape == (6, 3)


@pytest.mark.parametrize("info", list_losses(), ids=lambda info: info.name)
def test_wrong_input_of_the_decision_is_one_sentence(info):
    counts = {"class_counts": [1, 2, 3]} if info.class_counts == "required" else {}
    for criterion in (build_loss(info.name, 3, **counts), build_loss(info.name, 3, 8, **counts)):
        for z in (torch.zeros(2, 9), None, torch.zeros(2, criterion.in_features or 3).long()):
            with pytest.raises(InputError):
                criterion.predict_proba(z)
        z = torch.zeros(2, criterion.in_features or 3)
        for hook, needed in (
            (criterion.fit_decision, criterion.fits_decision),
            (criterion.end_epoch, criterion.needs_epoch_pass),
        ):
            for y in ([0, 3], [0], ["a", "b"]):
                if needed:
                    with pytest.raises(InputError, match="label"):
                        hook(z, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("info", list_losses(), ids=lambda info: info.name)
def test_every_loss_can_be_cast_to_half_precision(info, dtype):
    counts = {"class_counts": [1, 2, 3]} if info.class_counts == "required" else {}
    criterion = build_loss(info.name, 3, in_features=8, **counts)
    plain = criterion(scores().float(), Y)
    torch.testing.assert_close(criterion.to(dtype)(scores().to(dtype), Y), plain, rtol=0.1, atol=0.1)


def test_cross_entropy_is_torch_s():
    torch.testing.assert_close(build_loss("ce", 3)(scores(3), Y), nn.functional.cross_entropy(scores(3), Y))


def test_a_weight_of_one_class_is_part_of_the_state_alone_where_it_is_given():
    assert "weight" in NCMILoss(3, 8, weight=WEIGHT).state_dict()
    assert "weight" not in NCMILoss(3, 8).state_dict()


Z = torch.zeros(2, 3)
WRONG = {
    "text": (("logits", Y[:2]), "must be .*, got 'logits'"),
    "whole numbers": ((Z.long(), Y[:2]), "floating-point numbers, got"),
    "three dimensions": ((Z[None], Y[:2]), r"got shape \(1, 2, 3\)"),
    "another count": ((Z, Y), r"labels of a loss must be \(2,\)"),
    "one-hot": ((Z, Z), r"one class index a sample, got shape \(2, 3\)"),
    "names": ((Z, ["a", "b"]), "one class index a sample"),
    "with a point": ((Z, torch.tensor([0.0, 1.0])), "one class index a sample, got"),
    "truth values": ((Z, torch.tensor([True, False])), "one class index a sample, got"),
    "above": ((Z, torch.tensor([0, 3])), "A label is 3, and the classes are 0 to 2"),
    "ignored": ((Z, torch.tensor([0, -100])), "A label is -100"),
    "from one": ((Z, [1, 3]), "number the classes from 0"),
    "other classes": ((torch.zeros(2, 5), Y[:2]), "5"),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("loss", ["ncmi", "focal", "supcon"])
def test_wrong_input_is_one_sentence(loss, fault):
    arguments, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        build_loss(loss, 3)(*arguments)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("focall", 3), {}, "did you mean 'focal'"),
        (("focal", 3), {"gama": 1}, "has no setting 'gama'"),
        (("focal", 3), {"reduction": "none"}, "has no setting 'reduction'"),
        (("focal", "3"), {}, "classes of a loss is a whole number of at least 2, got '3'"),
        (("ncmi", 3), {"in_features": 2.5}, "in_features, is a whole number"),
        (("ncmi", 3), {"reduction": "average"}, "mean, sum, none, got 'average'"),
        (("ncmi", 3), {"weight": [1, 2]}, "3 numbers of at least 0"),
        (("ncmi", 3), {"weight": "balanced"}, "got 'balanced'"),
        (("ncmi", 3), {"weight": [1, -1, 1]}, "3 numbers of at least 0"),
        (("weighted_ce", 3), {}, "pass class_counts"),
        (("weighted_ce", 3), {"class_counts": "123"}, "must be 3 numbers of at least 1"),
        (("weighted_ce", 3), {"class_counts": [1, None, 2]}, r"got \[1, None, 2\]; give every class"),
        (("weighted_ce", 3), {"class_counts": [1, float("nan"), 2]}, "of at least 1"),
        (("ncmi", 3), {"class_counts": [1, -2, 3], "balance": 1.0}, "must be 3 numbers of at least 0"),
        (("ncmi", 3), {"class_counts": [10**30, 1, 1], "balance": 1.0}, "must be 3 numbers"),
        ((nn.CrossEntropyLoss(), 3), {}, "by its name or its config"),
    ],
)
def test_a_loss_that_can_t_be_built(arguments, settings, message):
    with pytest.raises(InputError, match=message):
        build_loss(*arguments, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0}, "ridge .* above 0, got 0"),
        ({"ridge": "a"}, "got 'a'"),
        ({"preset": []}, "no NCMI preset"),
    ],
)
def test_a_criterion_that_can_t_be_made(settings, message):
    with pytest.raises(InputError, match=message):
        NCMILoss(3, **settings)


def test_the_bound_is_torch_s_generalised_logarithm():
    criterion = made("default", reduction="none")
    d = criterion.distances(scores())
    log_ratio = nn.functional.cross_entropy(-d / criterion.tau, Y, reduction="none")
    torch.testing.assert_close(criterion(scores(), Y), generalised_log(log_ratio, 0.3))

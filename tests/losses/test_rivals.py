"""Every rival against an independent slow formula, and the list of losses."""

from __future__ import annotations

import math

import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import build_loss, list_losses, loss_config
from wsi_ncmi.losses.cmi_constrained import CMIConstrained
from wsi_ncmi.losses.orthogonal_projection import orthogonal_projection
from wsi_ncmi.losses.supervised_contrastive import supervised_contrastive

NAMES = [info.name for info in list_losses()]
COUNTS = [6, 3, 1]


def _softmax(row: list[float]) -> list[float]:
    top = max(row)
    e = [math.exp(x - top) for x in row]
    return [x / sum(e) for x in e]


def _cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * w for x, w in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))


def _ce(rows, y):
    return sum(-math.log(_softmax(r)[c]) for r, c in zip(rows, y, strict=True)) / len(y)


def _weighted(rows, y):
    weight = [sum(COUNTS) / (3 * n) for n in COUNTS]
    total = sum(-weight[c] * math.log(_softmax(r)[c]) for r, c in zip(rows, y, strict=True))
    return total / sum(weight[c] for c in y)


def _focal(rows, y):
    p = [_softmax(r)[c] for r, c in zip(rows, y, strict=True)]
    return sum(-((1 - q) ** 2.0) * math.log(q) for q in p) / len(p)


def _smooth(rows, y):
    total = 0.0
    for r, c in zip(rows, y, strict=True):
        total -= sum((0.9 * (j == c) + 0.1 / 3) * math.log(q) for j, q in enumerate(_softmax(r)))
    return total / len(y)


def _poly(rows, y):
    p = [_softmax(r)[c] for r, c in zip(rows, y, strict=True)]
    return sum(-math.log(q) + 1.0 * (1 - q) for q in p) / len(p)


def _square(rows, y):
    total = sum((x - (j == c)) ** 2 for r, c in zip(rows, y, strict=True) for j, x in enumerate(r))
    return total / (3 * len(y))


def _effective(beta):
    weight = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [3 * w / sum(weight) for w in weight]


def _cb_focal(rows, y):
    weight, p = _effective(0.999), [_softmax(r)[c] for r, c in zip(rows, y, strict=True)]
    return sum(-weight[c] * (1 - q) * math.log(q) for q, c in zip(p, y, strict=True)) / len(p)


def _adjusted(rows, y):
    return _ce([[x + math.log(n / sum(COUNTS)) for x, n in zip(r, COUNTS, strict=True)] for r in rows], y)


def _ldam(rows, y):
    margin = [30 * 0.5 * (min(COUNTS) / n) ** 0.25 for n in COUNTS]
    return _ce([[x - margin[c] * (j == c) for j, x in enumerate(r)] for r, c in zip(rows, y, strict=True)], y)


def _contrast(rows, y, tau):
    terms = []
    for i, a in enumerate(rows):
        positives = [k for k in range(len(y)) if k != i and y[k] == y[i]]
        bottom = sum(math.exp(_cosine(a, rows[k]) / tau) for k in range(len(y)) if k != i)
        if positives:
            shares = [math.log(math.exp(_cosine(a, rows[k]) / tau) / bottom) for k in positives]
            terms.append(-sum(shares) / len(shares))
    return sum(terms) / len(terms)


def _opl(rows, y, gamma):
    pairs = [(i, k) for i in range(len(y)) for k in range(len(y)) if i != k]
    same = [_cosine(rows[i], rows[k]) for i, k in pairs if y[i] == y[k]]
    other = [_cosine(rows[i], rows[k]) for i, k in pairs if y[i] != y[k]]
    return 1 - sum(same) / len(same) + gamma * abs(sum(other) / len(other))


def _cmic(rows, y):
    p = [_softmax(r) for r in rows]
    n = len(y)
    means = {c: [sum(p[i][j] for i in range(n) if y[i] == c) / y.count(c) for j in range(3)] for c in set(y)}
    cmi = sum(p[i][j] * math.log(p[i][j] / means[y[i]][j]) for i in range(n) for j in range(3)) / n
    gamma = 0.0
    for i in range(n):
        for k in range(n):
            if y[i] != y[k]:
                gamma -= sum(p[i][j] * math.log(p[k][j]) for j in range(3)) / n**2
    return _ce(rows, y) + 0.5 * cmi - 0.1 * gamma


SLOW = {
    "ce": _ce,
    "weighted_ce": _weighted,
    "focal": _focal,
    "label_smoothing": _smooth,
    "poly1": _poly,
    "square": _square,
    "supcon": lambda rows, y: _ce(rows, y) + _contrast(rows, y, 0.1),
    "opl": lambda rows, y: _ce(rows, y) + _opl(rows, y, 0.5),
    "cmic": _cmic,
    "cb_focal": _cb_focal,
    "logit_adjusted": _adjusted,
    "ldam": _ldam,
}


def test_every_rival_has_a_slow_formula():
    assert set(SLOW) == set(NAMES) - {"ncmi"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(SLOW))
def test_rival_equals_its_slow_formula_and_its_gradient_is_right(name, seed):
    torch.manual_seed(seed)
    logits = torch.randn(7, 3, dtype=torch.float64) * 2
    y = torch.tensor([0, 1, 1, 2, 0, 0, 1])
    criterion = build_loss(loss_config(name=name), 3, None, COUNTS).double()
    # The first update of CMIC-DL's centroids takes the batch's means; afterwards they rest.
    value = criterion(logits, y).item()
    assert value == pytest.approx(SLOW[name](logits.tolist(), y.tolist()), rel=1e-7)
    criterion.eval()
    assert torch.autograd.gradcheck(lambda a: criterion(a, y), logits.clone().requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_owns_its_head_and_works_with_one_slide_and_in_half_precision(name):
    torch.manual_seed(0)
    criterion = build_loss(loss_config(name=name), 3, 16, COUNTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in (1, 5):
            z = torch.where(torch.rand(batch, 16) > 0.5, 100.0, -100.0).bfloat16().requires_grad_()
            loss = criterion(z, torch.full((batch,), 2))
            loss.backward()
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss)
            assert torch.isfinite(z.grad).all()
            assert all(torch.isfinite(p.grad).all() for p in criterion.parameters() if p.grad is not None)
    criterion.eval()
    z, y = torch.randn(6, 16), torch.arange(6) % 3
    criterion.end_epoch(z, y)
    criterion.fit_decision(z, y)
    assert torch.allclose(criterion.predict_proba(z).sum(1), torch.ones(6))
    clone = build_loss(loss_config(name=name), 3, 16, COUNTS).eval()
    clone.load_state_dict(criterion.state_dict())
    assert torch.equal(clone.predict_proba(z), criterion.predict_proba(z))


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_learns_separable_classes(name):
    torch.manual_seed(1)
    y = torch.arange(90) % 3
    z = torch.randn(3, 8)[y] * 3 + torch.randn(90, 8) * 0.5
    criterion = build_loss(loss_config(name=name), 3, 8, [30, 30, 30])
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(z, y).backward()
        optimizer.step()
    criterion.eval()
    criterion.end_epoch(z, y)
    assert (criterion.predict_proba(z).argmax(1) == y).float().mean() > 0.95


def test_pair_terms_are_zero_without_pairs():
    one = torch.randn(1, 4, requires_grad=True)
    label = torch.tensor([0])
    assert supervised_contrastive(one, label, 0.1).item() == 0
    assert orthogonal_projection(one, label, 0.5).item() == 0
    # Only other classes: the within term is absent, the between term is there.
    two = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert orthogonal_projection(two, torch.tensor([0, 1]), 0.5).item() == pytest.approx(0.5 / math.sqrt(2))


def test_cmic_centroids_become_the_class_means_of_the_epoch():
    criterion = CMIConstrained(3)
    criterion(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
    logits, y = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    criterion.end_epoch(logits, y)
    assert torch.allclose(criterion.centroids[0], logits.softmax(1)[:3].mean(0), atol=1e-6)
    assert torch.equal(criterion.centroids[2], torch.full((3,), 1 / 3))


def test_logit_adjustment_is_the_balanced_softmax_at_one():
    """Ren et al. 2020, equation 4: N_y e^f_y / Σ N_j e^f_j."""
    logits, y = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 2, 0, 0, 1])
    shares = torch.tensor(COUNTS) * logits.exp()
    expected = -(shares[torch.arange(7), y] / shares.sum(1)).log().mean().item()
    assert build_loss("logit_adjusted", 3, None, COUNTS)(logits, y).item() == pytest.approx(
        expected, rel=1e-6
    )
    assert build_loss("logit_adjusted", 3, None, COUNTS, adjustment=0)(logits, y).item() == pytest.approx(
        _ce(logits.tolist(), y.tolist())
    )


def test_the_weights_of_ldam_set_in_when_their_share_of_the_epochs_is_done():
    logits, y = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 2, 0, 0, 1])
    criterion = build_loss("ldam", 3, None, COUNTS, ldam_deferral=0.5).double()
    plain = criterion(logits, y).item()
    criterion.start_epoch(0.49)
    assert criterion(logits, y).item() == plain
    criterion.start_epoch(0.5)
    weight, rows = _effective(0.9999), [(logits[i : i + 1].tolist(), [int(c)]) for i, c in enumerate(y)]
    expected = sum(weight[c[0]] * _ldam(r, c) for r, c in rows) / sum(weight[c[0]] for _, c in rows)
    assert criterion(logits, y).item() == pytest.approx(expected, rel=1e-6)
    always = build_loss("ldam", 3, None, COUNTS, ldam_deferral=0)  # also in a loop that calls no hook
    assert always(logits, y).item() == pytest.approx(expected, rel=1e-6)


def test_ldam_scores_cosines():
    criterion = build_loss("ldam", 3, 8, COUNTS)
    z = torch.randn(5, 8)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], criterion.head.weight[None], dim=-1)
    assert torch.allclose(criterion.logits(z), 30 * cosines, atol=1e-5)


def test_the_list_names_papers_and_the_registry_refuses_what_it_lacks():
    assert NAMES[0] == "ncmi"
    assert len(set(NAMES)) == len(NAMES) == 13
    assert all(info.paper and info.summary for info in list_losses())
    with pytest.raises(InputError, match="did you mean 'focal'"):
        build_loss(loss_config(name="focall"), 3)
    with pytest.raises(InputError, match="needs the number of training samples"):
        build_loss(loss_config(name="weighted_ce"), 3)
    with pytest.raises(InputError, match=r"class counts .* at least 1"):
        build_loss(loss_config(name="weighted_ce"), 3, None, [3, 0, 2])
    with pytest.raises(InputError, match="classes of a loss is a whole number of at least 2"):
        build_loss(loss_config(name="ce"), 1)


def test_listing_the_losses_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys; from wsi_ncmi.losses import list_losses, LossConfig, PRESETS; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_is_built_by_name_with_or_without_a_head(name):
    for in_features in (None, 8):
        criterion = build_loss(name, 3, in_features, COUNTS)
        z = torch.randn(6, in_features or 3)
        assert torch.isfinite(criterion(z, torch.arange(6) % 3))
        assert criterion.predict_proba(z).shape == (6, 3)


def test_settings_are_given_beside_a_name_or_a_config():
    assert build_loss("focal", 3).gamma == 2.0
    assert build_loss("focal", num_classes=3, focal_gamma=1.5).gamma == 1.5
    config = loss_config("square", square_scale=4.0)
    criterion = build_loss(config, 3, square_target=2.0)
    assert (criterion.scale, criterion.target) == (4.0, 2.0)
    with pytest.raises(
        InputError, match="the loss 'focal' has no setting 'gamma'; valid are name, focal_gamma"
    ):
        build_loss("focal", 3, gamma=1.0)
    with pytest.raises(InputError, match="no loss named 'nmci'; did you mean 'ncmi'"):
        build_loss("nmci", 3)
    with pytest.raises(InputError, match="the loss 'ce' has no setting 'power'; it has none"):
        build_loss(loss_config("ce"), 3, power=0.5)

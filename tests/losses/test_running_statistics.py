"""Class means that follow the batches, the generalised logarithm, and what knows the class counts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.losses.decision import CalibratedDecision
from wsi_ncmi.losses.functional import generalised_log
from wsi_ncmi.losses.ncmi import NCMILoss

BATCHES = [[0, 0, 1], [1], [2, 0, 2, 2], [0], [1, 1]]


def _outputs(criterion: NCMILoss, z: torch.Tensor) -> list[list[float]]:
    return criterion.log_symbols(z).exp().tolist()


def test_running_means_are_the_moving_average_of_each_class():
    torch.manual_seed(0)
    criterion = NCMILoss(
        3, 4, preset="ratio", code_words="means", means_update="running", means_momentum=0.8
    ).double()
    expected = criterion.log_centroids.exp().tolist()
    for labels in BATCHES:
        z = torch.randn(len(labels), 4, dtype=torch.float64)
        rows = _outputs(criterion, z)
        for c in set(labels):
            of = [row for row, label in zip(rows, labels, strict=True) if label == c]
            expected[c] = [
                0.8 * old + 0.2 * sum(row[i] for row in of) / len(of) for i, old in enumerate(expected[c])
            ]
        criterion(z, torch.tensor(labels))
        assert criterion.log_centroids.exp().tolist() == [pytest.approx(row) for row in expected]
    assert torch.equal(criterion.log_centroids, criterion.log_decision_centroids)
    assert not criterion.needs_epoch_pass
    criterion.eval()
    before = criterion.log_centroids.clone()
    criterion(torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2]))
    assert torch.equal(before, criterion.log_centroids)


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_the_bank_holds_the_last_samples(size):
    torch.manual_seed(0)
    criterion = NCMILoss(
        3, 4, preset="ratio", code_words="means", means_update="bank", bank_size=size
    ).double()
    kept: list[tuple[list[float], int]] = []
    expected = criterion.log_centroids.exp().tolist()
    for labels in BATCHES:
        z = torch.randn(len(labels), 4, dtype=torch.float64)
        kept = (kept + list(zip(_outputs(criterion, z), labels, strict=True)))[-size:]
        for c in range(3):
            of = [row for row, label in kept if label == c]
            if of:
                expected[c] = [sum(column) / len(of) for column in zip(*of, strict=True)]
        criterion(z, torch.tensor(labels))
        assert criterion.log_centroids.exp().tolist() == [pytest.approx(row) for row in expected]


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e4), st.floats(-1, 1))
def test_generalised_logarithm(ratio, power):
    value = generalised_log(torch.tensor(ratio, dtype=torch.float64).log1p(), power).item()
    if abs(power) > 1e-3:
        assert value == pytest.approx((1 - (1 + ratio) ** -power) / power, rel=1e-9, abs=1e-12)
    assert value == pytest.approx(math.log1p(ratio), rel=0.05 * (1 + abs(power) * 1e9), abs=1e-12)
    if power > 0:
        assert value <= 1 / power


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_power_is_a_function_of_the_ratio_of_each_sample(power):
    z, y = torch.randn(6, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0])
    plain = NCMILoss(3, None, preset="ratio", symbols=8).double()
    ratios = [plain(z[i : i + 1], y[i : i + 1]).item() for i in range(6)]
    expected = [math.log1p(r) if power == 0 else (1 - (1 + r) ** -power) / power for r in ratios]
    found = NCMILoss(3, None, preset="ratio", symbols=8, power=power).double()(z, y).item()
    assert found == pytest.approx(sum(expected) / 6, rel=1e-9)
    log_form = NCMILoss(3, None, preset="log_reverse", symbols=8, power=power).double()
    d = log_form.distances(z)
    soft = [sum(math.exp(d[i, y[i]] - d[i, j]) for j in range(3) if j != y[i]) for i in range(6)]
    expected = [math.log1p(r) if power == 0 else (1 - (1 + r) ** -power) / power for r in soft]
    assert log_form(z, y).item() == pytest.approx(sum(expected) / 6, rel=1e-9)


def test_class_weights_and_prior_shift():
    counts, z, y = [60, 30, 10], torch.randn(5, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1])
    plain = NCMILoss(3, None, preset="log_reverse", symbols=8).double()
    each = [plain(z[i : i + 1], y[i : i + 1]).item() for i in range(5)]
    weights = [n**-0.5 for n in counts]
    mean = sum(n * w for n, w in zip(counts, weights, strict=True)) / 100
    expected = sum(weights[c] / mean * v for c, v in zip(y.tolist(), each, strict=True)) / 5
    weighted = NCMILoss(3, None, preset="log_reverse", symbols=8, balance=0.5, class_counts=counts).double()
    assert weighted(z, y).item() == pytest.approx(expected, rel=1e-6)
    shifted = NCMILoss(
        3, None, preset="log_reverse", symbols=8, prior_shift=1.0, class_counts=counts
    ).double()
    scores = -plain.distances(z) + torch.tensor([0.6, 0.3, 0.1]).double().log()
    assert shifted(z, y).item() == pytest.approx(
        torch.nn.functional.cross_entropy(scores, y).item(), rel=1e-6
    )
    shifted.eval()
    assert shifted(z, y).item() == pytest.approx(plain(z, y).item(), rel=1e-9)


def test_an_even_decision_lets_classes_weigh_alike():
    torch.manual_seed(0)
    y = torch.cat([torch.zeros(180), torch.ones(20)]).long()
    d = torch.randn(200, 2) * 0.5
    d[torch.arange(200), y] -= 0.3
    natural, even = CalibratedDecision(2, 1.0, ridge=1e-6), CalibratedDecision(2, 1.0, ridge=1e-6)
    natural.fit(d, y)
    even.fit(d, y, balance=1.0)
    # At the optimum in the biases the (weighted) mean probability of a class is its (weighted) share.
    assert natural(d).exp().mean(0)[1].item() == pytest.approx(0.1, abs=1e-4)
    weights = torch.tensor([1 / 180, 1 / 20])[y] / 2
    assert (weights @ even(d).exp())[1].item() == pytest.approx(0.5, abs=1e-4)


def test_options_reach_the_loss_and_wrong_ones_are_named():
    options = loss_config(
        name="ncmi", balance=0.5, power=0.3, means_update="bank", code_words="means", ridge=3.0
    )
    criterion = build_loss(options, 3, 8, [5, 3, 2])
    assert (criterion.form.balance, criterion.form.power, criterion.decision.ridge) == (0.5, 0.3, 3.0)
    with pytest.raises(InputError, match="must be 3 numbers of at least 0, one a class, got None"):
        NCMILoss(3, 8, balance=1.0)
    with pytest.raises(InputError, match=r"'power' .*at most 1, got 2"):
        NCMILoss(3, 8, power=2.0)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm

from wsi_ncmi.metrics import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from wsi_ncmi.metrics.calibration import PRIOR_SD, nll_terms


def _slow_ece(truth, p, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i in range(len(truth)) if low < p[i].max() <= high]
        if inside:
            accuracy = np.mean([p[i].argmax() == truth[i] for i in inside])
            total += len(inside) * abs(accuracy - np.mean([p[i].max() for i in inside]))
    return total / len(truth)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5), st.sampled_from([1, 7, 10, 15]))
def test_ece_equals_a_slow_loop(seed, n, num_classes, bins):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(num_classes), n)
    truth = rng.integers(0, num_classes, n)
    assert expected_calibration_error(truth, p, bins) == pytest.approx(_slow_ece(truth, p, bins))


def test_ece_of_certain_and_right_predictions_is_zero_and_of_wrong_ones_is_one():
    p = np.eye(3)
    assert expected_calibration_error(np.array([0, 1, 2]), p) == 0.0
    assert expected_calibration_error(np.array([1, 2, 0]), p) == 1.0


def test_empty_bins_have_no_mean():
    confidence, accuracy, count = reliability_bins(np.array([0]), np.array([[0.9, 0.1]]), bins=10)
    assert count.tolist() == [0] * 8 + [1] + [0]
    assert np.isnan(confidence[0])
    assert np.isnan(accuracy[0])


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), 4000)
    truth = np.array([rng.choice(4, p=row) for row in honest])
    too_sure = apply_temperature(honest, 0.4)
    temperature = fit_temperature(truth, too_sure)
    assert temperature == pytest.approx(1 / 0.4, rel=0.06)
    repaired = apply_temperature(too_sure, temperature)
    assert nll_terms(truth, repaired).mean() < nll_terms(truth, too_sure).mean()
    assert expected_calibration_error(truth, repaired) < 0.3 * expected_calibration_error(truth, too_sure)
    assert (repaired.argmax(1) == too_sure.argmax(1)).all()


@pytest.mark.parametrize("sharp", [0.01, 0.3, 1.0, 3.0, 200.0])
@pytest.mark.parametrize("slides", [1, 7, 300])
def test_temperature_is_the_minimum_that_scipy_finds(sharp, slides):
    rng = np.random.default_rng(slides)
    honest = rng.dirichlet(np.ones(3), slides)
    truth = np.array([rng.choice(3, p=row) for row in honest])
    p = apply_temperature(honest, 1 / sharp).clip(1e-15)
    p /= p.sum(axis=1, keepdims=True)

    def loss(log_temperature):
        terms = -log_softmax(np.log(p) / np.exp(log_temperature), axis=1)[np.arange(slides), truth]
        return terms.sum() - norm.logpdf(log_temperature, scale=PRIOR_SD)

    best = minimize_scalar(loss, bracket=(-0.1, 0.1)).x
    assert np.log(fit_temperature(truth, p)) == pytest.approx(best, abs=1e-6)


def test_temperature_one_changes_nothing():
    p = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    assert apply_temperature(p, 1.0) == pytest.approx(p, abs=1e-12)


def test_temperature_needs_slides():
    with pytest.raises(ValueError, match="without slides"):
        fit_temperature(np.zeros(0, dtype=np.int64), np.zeros((0, 2)))

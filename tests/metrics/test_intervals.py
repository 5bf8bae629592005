"""BCa intervals against SciPy, and every interval of an evaluation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.metrics.test_evaluation import CLASSES, table
from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.metrics.bootstrap import bca_interval, leave_one_out
from wsi_ncmi.metrics.evaluation import PooledSeeds


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 60), st.sampled_from(["exponential", "normal"]))
def test_bca_equals_scipy_on_scipys_draws(seed, n, family):
    sample = getattr(np.random.default_rng(seed), family)(size=n)
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=400, method="BCa", random_state=seed)
    left_out = leave_one_out(n) @ sample / (n - 1)
    found = bca_interval(theirs.bootstrap_distribution, float(sample.mean()), left_out)
    assert found == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high))


def test_degenerate_resamples():
    ones = np.ones(50)
    assert bca_interval(ones, 1.0, ones) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in bca_interval(ones + 1, 1.0, ones))  # all on one side
    assert all(math.isnan(bound) for bound in bca_interval(np.full(50, np.nan), 1.0, ones))
    assert all(math.isfinite(bound) for bound in bca_interval(np.linspace(0, 2, 50), 1.0, ones))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 10))
def test_jackknife_is_evaluating_without_one_patient(seed, patients):
    df = table(patients=patients, seeds=2, seed=seed)
    pooled = PooledSeeds(df, CLASSES)
    left_out, by_class = pooled.jackknife()
    for i, patient in enumerate(pooled.patients):
        rest, rest_by_class = PooledSeeds(df[df["case_id"] != patient], CLASSES).values()
        for name, value in rest.items():
            assert left_out[name][i] == pytest.approx(value[0], nan_ok=True), name
        assert by_class["auroc"][i] == pytest.approx(rest_by_class["auroc"][0], nan_ok=True)


def test_both_intervals_are_in_the_json_and_hold_the_value():
    found = evaluate_predictions(table(patients=60), CLASSES, resamples=400).to_json()
    for name in ("macro_f1", "kappa_quadratic", "auroc_macro_ovr", "brier", "ece"):
        estimate = found[name]
        assert estimate["ci_low"] < estimate["ci_high"]
        assert estimate["bca_low"] < estimate["bca_high"]
        assert (estimate["bca_low"], estimate["bca_high"]) != (estimate["ci_low"], estimate["ci_high"])
    assert found["macro_f1"]["bca_low"] <= found["macro_f1"]["value"] <= found["macro_f1"]["bca_high"]
    assert found["per_class"]["a"]["recall"]["bca_low"] is not None
    assert found["per_centre"]["0"]["macro_f1"]["bca_low"] is not None
    for name in ("cmi", "gamma", "ncmi"):
        assert found[name]["ci_low"] < found[name]["value"] < found[name]["ci_high"]
        assert found[name]["bca_low"] < found[name]["bca_high"]


def test_ten_thousand_resamples_are_matrix_products():
    # Not a timing test: a loop over resamples would take minutes; see benchmarks/coverage.py for seconds.
    pooled = PooledSeeds(table(patients=300, slides=1, seeds=1), CLASSES)
    began = time.thread_time()
    overall, _ = pooled.bootstrap(10_000, 0, ranking=False)
    assert overall["macro_f1"].shape == (10_000,)
    assert time.thread_time() - began < 20

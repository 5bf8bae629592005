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
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.metrics.confusion import class_ranks
from wsi_ncmi.metrics.pooled_seeds import PooledSeeds
from wsi_ncmi.metrics.resampling import bca_interval, exact_interval, leave_one_out
from wsi_ncmi.metrics.results import NOT_INFORMATIVE


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
    assert all(math.isnan(bound) for bound in bca_interval(ones, 1.0, ones))  # no interval without width
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
    found = evaluate_predictions(table(patients=60), CLASSES, resamples=400, order=CLASSES).to_json()
    for name in ("macro_f1", "kappa", "kappa_quadratic", "auroc_macro_ovr", "brier"):
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
    overall, _ = pooled.bootstrap(10_000, 0, ("counts", "information"))
    assert overall["macro_f1"].shape == (10_000,)
    assert time.thread_time() - began < 20


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 500), st.sampled_from([0, 1]), st.sampled_from([0.9, 0.95, 0.99]))
def test_exact_intervals_are_scipys(units, share, confidence):
    theirs = stats.binomtest(share * units, units).proportion_ci(confidence, method="exact")
    assert exact_interval(float(share), units, confidence) == pytest.approx((theirs.low, theirs.high))


def right(df):
    return df.assign(prediction=df["label"])


def test_without_an_error_shares_have_exact_intervals_and_others_none():
    df = right(table(patients=18, slides=2, seeds=2))
    found = evaluate_predictions(df, CLASSES, resamples=200)
    low, high = stats.binomtest(18, 18).proportion_ci(method="exact")
    for name in ("accuracy", "micro_f1"):
        assert (found.metrics[name].ci_low, found.metrics[name].ci_high) == pytest.approx((low, high))
        assert "18 patients" in found.metrics[name].reason
    for name in ("macro_f1", "weighted_f1", "balanced_accuracy", "mcc", "kappa"):
        one = found.metrics[name]
        assert one.value == 1.0
        assert math.isnan(one.ci_low)
        assert math.isnan(one.bca_low)
        assert one.reason.startswith(NOT_INFORMATIVE)
    recall = found.per_class["a"]["recall"]
    units = df.loc[df["label"] == "a", "case_id"].nunique()
    assert recall.ci_low == pytest.approx(stats.binomtest(units, units).proportion_ci(method="exact").low)
    assert any("17 % of further patients" in w and "rule of three, 3/18" in w for w in found.warnings)


def test_no_interval_is_without_width_wherever_a_value_is_the_same_in_every_resample():
    df = table(patients=12, slides=1, seeds=1)
    constant = df.assign(prediction="a")  # recall of a is 1; of the others 0, and so is their precision
    one_patient = table(patients=1, slides=6, seeds=1, folds=1)
    certain = right(df).assign(**{f"p_{c}": (df["label"] == c).astype(float) for c in CLASSES})
    wrong = df.assign(prediction=df["label"].map({"a": "b", "b": "c", "c": "a"}))
    for each in (constant, one_patient, certain, wrong, right(one_patient)):
        found = evaluate_predictions(each, CLASSES, resamples=100)
        estimates = [*found.metrics.values(), *(e for of in found.per_class.values() for e in of.values())]
        for one in estimates:
            assert one.ci_low != one.ci_high
            assert one.bca_low != one.bca_high
            assert not math.isfinite(one.ci_low) or one.ci_low <= one.value <= one.ci_high
    found = evaluate_predictions(constant, CLASSES, resamples=100)
    units = df.loc[df["label"] == "b", "case_id"].nunique()
    assert found.per_class["b"]["recall"].ci_high == pytest.approx(
        stats.binomtest(0, units).proportion_ci(method="exact").high
    )
    assert found.per_class["b"]["precision"].reason.startswith(NOT_INFORMATIVE)  # nobody was called b
    assert evaluate_predictions(wrong, CLASSES, resamples=100).metrics["accuracy"].ci_low == 0.0


def test_stages_of_patients_without_an_error_have_an_exact_interval():
    df = right(table(patients=18, slides=5, seeds=1, classes=("negative", "itc", "micro", "macro")))
    staging = evaluate_predictions(df, ("negative", "itc", "micro", "macro"), resamples=100).staging
    expected = stats.binomtest(18, 18).proportion_ci(method="exact").low
    assert staging["accuracy"]["ci_low"] == pytest.approx(expected)
    assert staging["kappa_quadratic"]["ci_low"] is None


def test_the_calibration_errors_interval_is_not_that_of_resampling_noise():
    # Honest probabilities: the true error is 0, all that the bins show is noise.
    held = plain = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        df = table(patients=100, slides=1, seeds=1, seed=seed)
        p = df[[f"p_{c}" for c in CLASSES]].to_numpy()
        df["label"] = [CLASSES[rng.choice(3, p=row)] for row in p]
        ece = evaluate_predictions(df, CLASSES, resamples=200).metrics["ece"]
        drawn = PooledSeeds(df, CLASSES).bootstrap(200, 0, ("counts",))[0]["ece"]
        plain += np.quantile(drawn, 0.025) <= 0.02
        held += ece.ci_low <= 0.02
        assert ece.ci_low <= ece.value <= ece.ci_high
        assert math.isnan(ece.bca_low)
    assert plain == 0
    assert held >= 5


@pytest.mark.parametrize(
    ("classes", "order", "ranks"),
    [
        (("a", "b", "c"), (), None),
        (("N", "PB", "UDH"), (), None),
        (("negative", "itc", "micro", "macro"), (), [0, 1, 2, 3]),
        (("itc", "macro", "micro", "negative"), (), [1, 3, 2, 0]),  # the alphabet is no order
        (("negative", "macro"), (), [0, 1]),
        (("a", "b", "c"), ("c", "a", "b"), [1, 2, 0]),
    ],
)
def test_only_ordered_classes_have_ranks(classes, order, ranks):
    found = class_ranks(classes, order)
    assert (None if found is None else found.tolist()) == ranks


@pytest.mark.parametrize("order", [("a", "b"), ("a", "b", "c", "d"), ("a", "b", "b"), ("a", "b", "B")])
def test_an_order_of_other_classes_is_refused(order):
    with pytest.raises(InputError, match="each class of the task once"):
        class_ranks(("a", "b", "c"), order)


def test_weighted_kappas_of_classes_without_order_are_undefined_and_say_why():
    found = evaluate_predictions(table(patients=20), CLASSES, resamples=50)
    for name in ("kappa_linear", "kappa_quadratic"):
        assert math.isnan(found.metrics[name].value)
        assert "no order" in found.metrics[name].reason
    assert math.isfinite(found.metrics["kappa"].value)
    assert not any("kappa" in warning for warning in found.warnings)
    assert found.order == ()

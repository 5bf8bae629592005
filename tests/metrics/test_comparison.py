from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import compare_paired, corrected_resampled_t_test, evaluate_predictions
from wsi_ncmi.metrics.comparison import mcnemar_test

CLASSES = ("a", "b")


def run(accuracy, seed, patients=120):
    """Predictions that are right with this probability; slides, folds and seeds are always the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in range(2):
        for i in range(patients):
            y = i % 2
            predicted = y if rng.random() < accuracy else 1 - y
            p = np.full(2, 0.3)
            p[predicted] = 0.7
            rows.append((f"s{i}", f"p{i}", i % 5, model, CLASSES[y], CLASSES[predicted], *p))
    return pd.DataFrame(
        rows, columns=["slide_id", "case_id", "fold", "seed", "label", "prediction", "p_a", "p_b"]
    )


def test_difference_is_that_of_the_headlines():
    a, b = run(0.9, 0), run(0.6, 1)
    found = compare_paired(a, b, resamples=500)
    values = [evaluate_predictions(df, CLASSES, resamples=5).metrics["macro_f1"].value for df in (a, b)]
    assert found.difference == pytest.approx(values[0] - values[1])
    assert 0.1 < found.ci_low < found.difference < found.ci_high
    assert found.p_value < 0.01
    assert (found.wins + found.ties + found.losses) == 10
    assert found.wins >= 9
    back = compare_paired(b, a, resamples=500)
    assert (back.difference, back.ci_low, back.t) == pytest.approx(
        (-found.difference, -found.ci_high, -found.t)
    )
    assert (back.wins, back.losses) == (found.losses, found.wins)


def test_a_run_against_itself():
    a = run(0.8, 0)
    found = compare_paired(a, a.sample(frac=1, random_state=0), resamples=50)
    assert found.difference == 0.0
    assert math.isnan(found.ci_low)  # not 0 to 0, which would say that no other patient can tell them apart
    assert math.isnan(found.ci_high)
    assert (found.wins, found.ties, found.losses) == (0, 10, 0)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["p_value"] is None


def test_pairing_narrows_the_interval():
    a = run(0.8, 0)
    b = a.copy()
    wrong = b.index[:6]
    b.loc[wrong, "prediction"] = ["b" if x == "a" else "a" for x in b.loc[wrong, "prediction"]]
    paired = compare_paired(a, b, resamples=500)
    unpaired = compare_paired(a, run(0.8, 5), resamples=500)
    assert paired.ci_high - paired.ci_low < 0.5 * (unpaired.ci_high - unpaired.ci_low)


@pytest.mark.parametrize(
    "change",
    [
        lambda df: df[df["slide_id"] != "s3"],
        lambda df: df.assign(slide_id=df["slide_id"] + "x"),
        lambda df: df.assign(case_id=df["case_id"].replace("p3", "p4")),
        lambda df: df.assign(label=df["label"].where(df["slide_id"] != "s3", "a")),
    ],
)
def test_runs_on_other_slides_are_refused(change):
    with pytest.raises(InputError, match=r"aren't paired.*'s"):
        compare_paired(run(0.8, 0), change(run(0.8, 1)))


@pytest.mark.parametrize(
    "change",
    [lambda df: df.assign(fold=(df["fold"] + 1) % 5), lambda df: df[df["seed"] == 0], lambda df: df.iloc[1:]],
)
def test_other_folds_or_seeds_are_paired_by_patient_alone(change):
    a, b = run(0.9, 0), change(run(0.6, 1))
    found = compare_paired(a, b, resamples=200)
    values = [evaluate_predictions(df, CLASSES, resamples=5).metrics["macro_f1"].value for df in (a, b)]
    assert found.difference == pytest.approx(values[0] - values[1])
    assert 0.1 < found.ci_low < found.difference < found.ci_high
    assert found.runs == 0
    assert math.isnan(found.p_value)


def test_corrected_t_against_the_formula():
    from scipy import stats

    differences = np.array([0.02, -0.01, 0.03, 0.01, 0.0, 0.02])
    t, p = corrected_resampled_t_test(differences, 0.25)
    plain = stats.ttest_1samp(differences, 0.0)
    # Without correction it is the plain t-test; with it, t shrinks by sqrt((1/n) / (1/n + ratio)).
    assert corrected_resampled_t_test(differences, 0.0) == pytest.approx((plain.statistic, plain.pvalue))
    assert t == pytest.approx(plain.statistic * math.sqrt((1 / 6) / (1 / 6 + 0.25)))
    assert p == pytest.approx(2 * stats.t.sf(t, 5))


def test_corrected_t_where_it_is_undefined():
    for differences, ratio in (([0.1], 0.25), ([0.1, 0.1], 0.25), ([0.1, 0.2], math.nan)):
        assert all(math.isnan(x) for x in corrected_resampled_t_test(np.array(differences), ratio))


def test_hold_out_has_no_t_test():
    found = compare_paired(run(0.9, 0).assign(fold=0), run(0.6, 1).assign(fold=0), resamples=50)
    assert math.isnan(found.p_value)
    assert found.ci_low > 0


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 0), (7, 2), (5, 5), (40, 61)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar_test(only_a, only_b) == pytest.approx(expected, rel=1e-12)


def test_slides_that_one_alone_predicts_right():
    a, b = (
        run(accuracy, seed).query("seed == 0").reset_index(drop=True)
        for accuracy, seed in ((0.9, 0), (0.6, 1))
    )
    found = compare_paired(a, b.sample(frac=1, random_state=0), resamples=20)
    right_a, right_b = (frame["prediction"] == frame["label"] for frame in (a, b))
    assert (found.only_a, found.only_b) == (sum(right_a & ~right_b), sum(right_b & ~right_a))
    assert found.mcnemar_p == pytest.approx(binomtest(found.only_a, found.only_a + found.only_b).pvalue)
    assert found.mcnemar_p < 0.001
    same = compare_paired(a, a, resamples=20)
    assert same.to_json()["mcnemar_p"] is None
    several = compare_paired(run(0.9, 0), run(0.6, 1), resamples=20)  # two seeds: no one answer a slide
    assert (several.only_a, several.to_json()["mcnemar_p"]) == (0, None)

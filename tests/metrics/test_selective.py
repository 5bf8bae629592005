from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_curve

from tests.metrics.test_evaluation import CLASSES, table
from wsi_ncmi.metrics import apply_temperature, expected_calibration_error
from wsi_ncmi.metrics.calibration import recalibrate
from wsi_ncmi.metrics.selective import (
    COVERAGES,
    area_under_risk_coverage,
    operating_points,
    risk_coverage,
    selective_metrics,
    threshold_for_sensitivity,
)

levels = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(levels)
def test_risk_is_the_expected_error_over_random_orders_of_ties(rows):
    confidence, wrong = np.array([c for c, _ in rows], float), np.array([w for _, w in rows])
    coverage, risk = risk_coverage(confidence, wrong)
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(wrong.mean())
    for k in range(1, len(rows) + 1):
        threshold = np.sort(confidence)[::-1][k - 1]
        above, tied = confidence > threshold, confidence == threshold
        expected = (wrong[above].sum() + (k - above.sum()) * wrong[tied].mean()) / k
        assert risk[k - 1] == pytest.approx(expected)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert area_under_risk_coverage(confidence[shuffled], wrong[shuffled]) == pytest.approx(risk.mean())


def test_perfect_order_and_no_slides():
    assert area_under_risk_coverage(np.array([3.0, 2, 1]), np.array([False, False, True])) == pytest.approx(
        1 / 9
    )
    assert math.isnan(area_under_risk_coverage(np.zeros(0), np.zeros(0, bool)))


def test_points_equal_scikit_learn_on_the_slides_kept():
    df = table(patients=50, seeds=1)
    found = selective_metrics(df, CLASSES)
    confidence = df[[f"p_{c}" for c in CLASSES]].max(axis=1)
    for wanted, point in zip(COVERAGES, found["points"], strict=True):
        kept = df[confidence >= point["threshold"]]
        assert len(kept) == point["slides"] >= wanted * len(df)
        assert point["accuracy"] == pytest.approx(accuracy_score(kept["label"], kept["prediction"]))
        f1 = f1_score(kept["label"], kept["prediction"], labels=CLASSES, average="macro", zero_division=0)
        assert point["macro_f1"] == pytest.approx(f1)
    assert (
        found["points"][-1]["accuracy"] > found["points"][0]["accuracy"]
    )  # this model knows when it is sure


@settings(max_examples=50, deadline=None)
@given(levels, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_threshold_is_the_highest_that_keeps_the_sensitivity(rows, target):
    scores, positive = np.array([c for c, _ in rows], float), np.array([w for _, w in rows])
    threshold = threshold_for_sensitivity(positive, scores, target)
    if not positive.any():
        assert math.isnan(threshold)
        return
    assert (scores[positive] >= threshold).mean() >= target - 1e-12
    higher = scores[scores > threshold]
    if len(higher):
        assert (scores[positive] >= higher.min()).mean() < target
    if not positive.all():
        _, tpr, cuts = roc_curve(positive, scores, drop_intermediate=False)
        assert threshold == cuts[np.argmax(tpr >= target - 1e-12)]


def test_operating_points_judge_slides_that_did_not_choose():
    df = table(patients=60, seeds=2, folds=3)
    found = operating_points(df, CLASSES)["b"][1]
    hits = positives = 0
    for (_, fold), part in df.groupby(["seed", "fold"]):
        others = df[(df["seed"] == part["seed"].iloc[0]) & (df["fold"] != fold)]
        threshold = np.sort(others.loc[others["label"] == "b", "p_b"])[::-1]
        threshold = threshold[int(np.ceil(0.95 * len(threshold) - 1e-9)) - 1]
        of_b = part[part["label"] == "b"]
        hits, positives = hits + (of_b["p_b"] >= threshold).sum(), positives + len(of_b)
    assert found["sensitivity"] == pytest.approx(hits / positives)
    assert found["chosen_on"] == "other folds"
    alone = operating_points(df.assign(fold=0), CLASSES)["b"][1]
    assert alone["chosen_on"] == "the same slides"
    assert alone["sensitivity"] >= 0.95
    missing = operating_points(df[df["label"] != "b"], CLASSES)["b"][0]
    assert missing["sensitivity"] is None


def test_one_test_part_takes_its_thresholds_from_validation():
    whole = table(patients=60, seeds=2, folds=2)
    test, validation = (whole[whole["fold"] == k].assign(fold=0) for k in (0, 1))
    found = operating_points(test, CLASSES, validation)["b"][0]
    hits = positives = 0
    thresholds = []
    for seed, part in test.groupby("seed"):
        chosen = validation[(validation["seed"] == seed) & (validation["label"] == "b")]
        scores = np.sort(chosen["p_b"])[::-1]
        thresholds.append(scores[int(np.ceil(0.9 * len(scores) - 1e-9)) - 1])
        of_b = part[part["label"] == "b"]
        hits, positives = hits + (of_b["p_b"] >= thresholds[-1]).sum(), positives + len(of_b)
    assert found["chosen_on"] == "validation"
    assert found["threshold"] == pytest.approx(np.mean(thresholds))
    assert found["sensitivity"] == pytest.approx(hits / positives)
    several = operating_points(whole, CLASSES, validation)["b"][0]
    assert several["chosen_on"] == "other folds"


def test_a_temperature_repairs_overconfidence_without_seeing_the_test():
    df = table(patients=300, seeds=1, folds=3)
    columns = [f"p_{c}" for c in CLASSES]
    sharp = df.copy()
    sharp[columns] = apply_temperature(df[columns].to_numpy(), 0.3)
    truth = np.array([CLASSES.index(c) for c in df["label"]])
    before = expected_calibration_error(truth, sharp[columns].to_numpy())
    found = recalibrate(sharp, CLASSES)
    assert found["fitted_on"] == "other folds"
    assert found["ece"] < 0.6 * before  # the prior keeps some of it
    assert recalibrate(sharp.assign(fold=0), CLASSES) is None
    validation = sharp.assign(slide_id="v" + sharp["slide_id"])
    by_validation = recalibrate(sharp, CLASSES, validation)
    assert by_validation["fitted_on"] == "validation"
    assert by_validation["temperature"]["mean"] == pytest.approx(found["temperature"]["mean"], rel=0.2)
    assert recalibrate(sharp, CLASSES, validation[validation["fold"] > 0]) is None
    # Fitted per fold: other validation slides in one fold change the temperature of that fold only.
    validation.loc[validation["fold"] == 0, columns] = df.loc[df["fold"] == 0, columns].to_numpy()
    assert recalibrate(sharp, CLASSES, validation)["temperature"]["min"] < by_validation["temperature"]["min"]

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import METRICS, classification_metrics, evaluate_predictions
from wsi_ncmi.metrics.confusion import confusion_metrics
from wsi_ncmi.metrics.pooled_seeds import PooledSeeds
from wsi_ncmi.metrics.resampling import draw_multiplicities, percentile_interval

CLASSES = ("a", "b", "c")
ORDER = ("b", "a", "c")


def table(patients=30, slides=2, seeds=2, folds=3, seed=0, sharpness=2.0, classes=CLASSES):
    """Out-of-fold predictions: the truth is the same for every seed, the model differs."""
    truth_rng, model_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    truth = truth_rng.integers(0, len(classes), (patients, slides))
    rows = []
    for run in range(seeds):
        for i in range(patients):
            for j in range(slides):
                y = truth[i, j]
                p = model_rng.dirichlet(np.ones(len(classes)) + sharpness * np.eye(len(classes))[y])
                rows.append(
                    (f"s{i}_{j}", f"p{i}", i % folds, run, classes[y], classes[p.argmax()], *p, str(i % 2))
                )
    columns = ["slide_id", "case_id", "fold", "seed", "label", "prediction"]
    return pd.DataFrame(rows, columns=[*columns, *(f"p_{c}" for c in classes), "centre"])


def test_headline_is_the_mean_over_seeds_of_pooled_macro_f1():
    df = table()
    found = evaluate_predictions(df, CLASSES, resamples=50)
    pooled = [
        f1_score(part["label"], part["prediction"], labels=CLASSES, average="macro", zero_division=0)
        for _, part in df.groupby("seed")
    ]
    folds = [
        f1_score(part["label"], part["prediction"], labels=CLASSES, average="macro", zero_division=0)
        for _, part in df.groupby(["seed", "fold"])
    ]
    assert found.metrics["macro_f1"].value == pytest.approx(np.mean(pooled))
    assert found.over_folds["macro_f1"].mean == pytest.approx(np.mean(folds))
    assert found.over_folds["macro_f1"].n == 3
    assert found.over_seeds["macro_f1"].sd == pytest.approx(np.std(pooled, ddof=1))
    assert found.confusion.sum() == pytest.approx(60)


def test_every_metric_is_the_mean_over_seeds_of_classification_metrics():
    df = table()
    found = evaluate_predictions(df, CLASSES, resamples=10, order=ORDER)
    assert found.order == ORDER
    columns = [f"p_{c}" for c in CLASSES]
    by_seed = [
        classification_metrics(
            part["label"].tolist(), part[columns].to_numpy(), part["prediction"].tolist(), CLASSES, ORDER
        )
        for _, part in df.groupby("seed")
    ]
    for name in METRICS:
        assert found.metrics[name].value == pytest.approx(np.mean([values[name] for values in by_seed])), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 8))
def test_resampling_equals_evaluating_repeated_patients(seed, seeds, patients):
    df = table(patients=patients, seeds=seeds, seed=seed)
    pooled = PooledSeeds(df, CLASSES)
    weights = np.concatenate(list(draw_multiplicities(patients, 4, seed)))
    overall, by_class = pooled.values(weights)
    columns = [f"p_{c}" for c in CLASSES]
    for r, row in enumerate(weights):
        values, recalls = [], []
        for _, part in df.groupby("seed"):
            times = part["case_id"].map(dict(zip(pooled.patients, row, strict=True))).astype(int)
            repeated = part.loc[part.index.repeat(times)]
            values.append(
                classification_metrics(
                    repeated["label"].tolist(),
                    repeated[columns].to_numpy(),
                    repeated["prediction"].tolist(),
                    CLASSES,
                )
            )
            hits = (repeated["prediction"] == "a") & (repeated["label"] == "a")
            recalls.append(hits.sum() / max((repeated["label"] == "a").sum(), 1))
        for name in METRICS:
            expected = np.mean([value[name] for value in values])
            assert overall[name][r] == pytest.approx(expected, nan_ok=True), name
        assert by_class["recall"][r, 0] == pytest.approx(np.mean(recalls))


def test_draws_are_whole_patients_and_repeatable():
    draws = np.concatenate(list(draw_multiplicities(17, 100, seed=3)))
    again = np.concatenate(list(draw_multiplicities(17, 100, seed=3)))
    in_chunks = np.concatenate(list(draw_multiplicities(17, 100, seed=3, width=200_000)))
    assert draws.shape == (100, 17)
    assert (draws.sum(axis=1) == 17).all()
    assert np.array_equal(draws, again)
    assert np.array_equal(draws, in_chunks)
    assert draws.mean() == 1.0
    assert draws.var() == pytest.approx(16 / 17, rel=0.15)
    many = np.concatenate(list(draw_multiplicities(17, 5000, seed=4)))
    assert many.mean(axis=0) == pytest.approx(np.ones(17), abs=0.08)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    # 300 independent patients, accuracy 0.8: 95 % of the intervals should hold 0.8 (binomial sd 1.1 points).
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        hits = (rng.random(300) < 0.8).astype(float)
        weights = np.concatenate(list(draw_multiplicities(300, 300, seed=trial)))
        low, high, defined = percentile_interval(weights @ hits / 300)
        covered += low <= 0.8 <= high
        assert defined == 1.0
    assert 0.915 <= covered / 400 <= 0.975


def test_slides_of_one_patient_are_drawn_together():
    # Every patient's slides agree, so ten copies of each slide add no information and no certainty.
    once = table(patients=40, slides=1, seeds=1)
    copies = [once.assign(slide_id=once["slide_id"] + f"_copy{i}") for i in range(10)]
    tenfold = pd.concat(copies, ignore_index=True)
    a = evaluate_predictions(once, CLASSES, resamples=500).metrics["accuracy"]
    b = evaluate_predictions(tenfold, CLASSES, resamples=500).metrics["accuracy"]
    assert (a.ci_low, a.ci_high) == pytest.approx((b.ci_low, b.ci_high))


def test_a_class_without_slides_and_a_constant_model():
    df = table(classes=("a", "b")).assign(p_c=0.0, prediction="a")
    found = evaluate_predictions(df, CLASSES, resamples=50)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["auroc_macro_ovr"]["value"] is None
    assert "no slide" in content["auroc_macro_ovr"]["reason"]
    assert content["per_class"]["c"]["f1"]["value"] == 0.0
    assert content["per_class"]["c"]["auroc"]["value"] is None
    assert content["per_class"]["c"]["support"] == 0
    assert any("Class c has no slide" in warning for warning in found.warnings)
    assert any("auroc_macro_ovr is undefined" in warning for warning in found.warnings)


def test_json_holds_every_metric_and_is_strict():
    found = evaluate_predictions(table(seeds=1), CLASSES, resamples=50, order=ORDER)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["schema"] == "wsi-ncmi/metrics/1"
    for name in METRICS:
        estimate = content[name]
        assert estimate["ci_low"] <= estimate["ci_high"]
    assert content["macro_f1"]["value"] == found.metrics["macro_f1"].value
    assert content["over_seeds"]["macro_f1"]["sd"] is None
    assert content["confusion_matrix"]["over"] == "one seed"
    assert sum(map(sum, content["confusion_matrix"]["counts"])) == content["n_slides"] == 60
    assert any("Only 30 patients" in warning for warning in content["warnings"])


def test_centres_and_a_class_that_one_never_saw():
    df = table()
    df = df[(df["centre"] == "0") | (df["label"] != "c")]
    found = evaluate_predictions(df, CLASSES, resamples=50)
    at_0 = df[df["centre"] == "0"]
    expected = np.mean(
        [
            f1_score(part["label"], part["prediction"], labels=CLASSES, average="macro", zero_division=0)
            for _, part in at_0.groupby("seed")
        ]
    )
    assert found.per_centre["0"]["macro_f1"].value == pytest.approx(expected)
    assert math.isnan(found.per_centre["1"]["macro_f1"].value)
    assert "no slide of class c" in found.per_centre["1"]["macro_f1"].reason
    assert found.centre_sizes["0"] == (30, 15)
    assert evaluate_predictions(df.drop(columns="centre"), CLASSES, resamples=5).per_centre == {}


def test_a_slide_tested_in_two_folds_is_said():
    df = table(seeds=1)
    twice = pd.concat([df, df.head(1).assign(fold=2)], ignore_index=True)
    found = evaluate_predictions(twice, CLASSES, resamples=5)
    assert any("several folds" in warning for warning in found.warnings)


def test_row_order_does_not_matter():
    df = table()
    a = evaluate_predictions(df, CLASSES, resamples=20)
    b = evaluate_predictions(df.sample(frac=1, random_state=0), CLASSES, resamples=20)
    for name, estimate in a.metrics.items():
        other = b.metrics[name]
        assert (estimate.value, estimate.ci_low, estimate.ci_high) == pytest.approx(
            (other.value, other.ci_low, other.ci_high), nan_ok=True
        )


def test_no_resamples_is_refused():
    with pytest.raises(InputError, match="at least 1 resample"):
        evaluate_predictions(table(), CLASSES, resamples=0)


def test_sums_for_resampling_grow_with_the_classes_not_with_their_square():
    few, many = (tuple(f"c{i:03d}" for i in range(n)) for n in (50, 200))
    columns = [PooledSeeds(table(60, classes=names), names)._seeds[0]._sums.shape[1] for names in (few, many)]
    assert columns[1] < 4 * columns[0]
    pooled = PooledSeeds(table(60, classes=many), many, many)
    weights = np.concatenate(list(draw_multiplicities(60, 3, 0)))
    matrices = np.zeros((3, 200, 200))
    one = table(60, seeds=1, classes=many)
    patient = [pooled.patients.index(case) for case in one["case_id"]]
    for label, prediction, place in zip(one["label"], one["prediction"], patient, strict=True):
        matrices[:, many.index(label), many.index(prediction)] += weights[:, place]
    expected = confusion_metrics(matrices, np.arange(200))
    found = PooledSeeds(one, many, many).values(weights, only=("counts",))[0]
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-12), name

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.metrics.selective import risk_coverage
from wsi_ncmi.reporting.figures import (
    calibration_figure,
    information_figure,
    learning_figures,
    ranking_figures,
    selective_figure,
)
from wsi_ncmi.reporting.figures.confidence import GRID, weighted_risk
from wsi_ncmi.reporting.figures.ranking import GRID as RANKING_GRID
from wsi_ncmi.reporting.figures.ranking import curves_on_grid
from wsi_ncmi.reporting.figures.training_curves import mean_over_runs


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(0, 10_000), st.booleans())
def test_curves_equal_scikit_learn(n, seed, ties):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    scores = rng.normal(size=n) + positive
    scores = np.round(scores) if ties else scores
    counts = rng.integers(0, 4, size=n).astype(float)
    counts[:2] += 1  # one positive and one negative at least
    roc, pr = curves_on_grid(positive, scores, np.stack([np.ones(n), counts]))
    for row, weights in enumerate((np.ones(n), counts)):
        fpr, tpr, _ = roc_curve(positive, scores, sample_weight=weights, drop_intermediate=False)
        inside = ~np.isin(
            np.round(RANKING_GRID, 9), np.round(fpr, 9)
        )  # on a vertical step any value is right
        np.testing.assert_allclose(roc[row][inside], np.interp(RANKING_GRID, fpr, tpr)[inside], atol=1e-9)
        used = weights > 0
        precision, recall, _ = precision_recall_curve(
            positive[used], scores[used], sample_weight=weights[used]
        )
        for k in range(0, 101, 7):
            # Thresholds descend with the index reversed: the first to reach the recall.
            first = np.flatnonzero(recall[::-1][1:] >= RANKING_GRID[k] - 1e-9)[0]
            assert pr[row, k] == pytest.approx(precision[::-1][1:][first])


def test_curves_without_negatives_are_undefined():
    roc, pr = curves_on_grid(np.array([True, True]), np.array([0.1, 0.2]), np.ones((1, 2)))
    assert np.isnan(roc).all()
    assert np.isnan(pr).all()


def test_bands_hold_their_line(make):
    frame = make.predictions(skill=0.8)
    evaluation = evaluate_predictions(frame, ("ADI", "TUM", "NORM"), resamples=20)
    roc, _ = ranking_figures(frame, evaluation)
    bands = [trace for trace in roc.traces if trace["meta"].get("band")]
    lines = [trace for trace in roc.traces if trace.get("legendgroup") and not trace["meta"].get("band")]
    assert len(bands) == len(lines) == 3
    for area, drawn in zip(bands, lines, strict=True):
        high, low = np.array(area["y"][:101]), np.array(area["y"][101:][::-1])
        middle = np.array(drawn["y"])
        assert ((low - 1e-6 <= middle) & (middle <= high + 1e-6)).mean() > 0.9
        assert (high - low).max() > 0.05
    assert f"TUM ({evaluation.per_class['TUM']['auroc'].value:.3f})" in [trace["name"] for trace in lines]


def test_calibration_equals_scikit_learn(make):
    frame = make.predictions(patients=60)
    classes = ("ADI", "TUM", "NORM")
    figure = calibration_figure(frame, evaluate_predictions(frame, classes, resamples=20))
    p = frame[[f"p_{name}" for name in classes]].to_numpy()
    right = np.asarray(classes)[p.argmax(axis=1)] == frame["label"].to_numpy()
    accuracy, confidence = calibration_curve(right, p.max(axis=1), n_bins=10)
    points = figure.traces[1]
    np.testing.assert_allclose(points["x"], confidence, atol=1e-4)
    np.testing.assert_allclose(points["y"], accuracy, atol=1e-4)
    assert sum(float(row[3].replace(",", "")) for row in figure.rows) == len(frame)


@pytest.mark.parametrize(("confidence", "words"), [(0.99, "overconfident"), (0.4, "underconfident")])
def test_calibration_is_said_in_words(make, confidence, words):
    frame = make.predictions(classes=("a", "b"), seeds=1)
    right = np.arange(len(frame)) % 4 != 0
    top = np.where(frame["label"].eq("a").to_numpy() == right, "a", "b")
    high = max(confidence, 0.55)
    frame = frame.assign(
        prediction=top, p_a=np.where(top == "a", high, 1 - high), p_b=np.where(top == "b", high, 1 - high)
    )
    figure = calibration_figure(frame, evaluate_predictions(frame, ("a", "b"), resamples=20))
    assert words in figure.alt


def test_mean_stops_where_most_runs_have_ended(make):
    runs = [make.curves(folds=1, seeds=1, epochs=n) for n in (3, 5, 9)]
    epochs, values = mean_over_runs(runs, "train_loss")
    assert epochs.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(values, 1 / epochs)


def test_learning_figures_name_losses_and_best_epoch(make):
    import pandas as pd

    table = pd.concat([make.curves(loss="ncmi"), make.curves(loss="ce")])
    f1, loss = learning_figures(table, ["ncmi", "ce"])
    assert "ncmi: best value 0.817 on average over 4 runs, reached at epoch 6" in f1.alt
    assert [t["name"] for t in loss.traces] == [
        "ncmi training",
        "ncmi validation",
        "ce training",
        "ce validation",
    ]
    assert (
        loss.traces[0]["meta"]["colour"]
        == loss.traces[1]["meta"]["colour"]
        != loss.traces[2]["meta"]["colour"]
    )


def test_information_path(make):
    figure = information_figure(make.curves(epochs=3), ["ncmi"], {})
    (path,) = figure.traces
    np.testing.assert_allclose(path["x"], [0.5, 0.75, 0.8333], atol=1e-4)
    np.testing.assert_allclose(path["y"], [0.3, 0.15, 0.1], atol=1e-4)
    assert path["text"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert "NCMI 0.120" in figure.alt
    assert information_figure(None, ["ncmi"], {}) is None


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 60), seed=st.integers(0, 10_000), levels=st.integers(1, 30), resamples=st.integers(1, 3)
)
def test_risk_equals_that_of_the_metrics(n, seed, levels, resamples):
    rng = np.random.default_rng(seed)
    confidence, wrong = rng.integers(0, levels, n) / levels, rng.random(n) < 0.3
    weights = np.concatenate([np.ones((1, n)), rng.integers(0, 3, (resamples, n))]).astype(float)
    weights[:, 0] += 1.0  # no empty resample
    for values, w in zip(weighted_risk(confidence, wrong, weights), weights.astype(int), strict=True):
        coverage, risk = risk_coverage(np.repeat(confidence, w), np.repeat(wrong, w))
        # Between two slides the curve is linear in the errors, as where ties are drawn in random order.
        errors = np.interp(
            GRID * w.sum(), np.append(0, coverage * w.sum()), np.append(0, risk * coverage * w.sum())
        )
        assert values == pytest.approx(errors / (GRID * w.sum()))


def test_abstention_is_said_in_words(make):
    data = make.report_input()
    figure = selective_figure(data.predictions, data.headline)
    last = data.headline.selective["points"][0]
    assert f"100 % of slides: {100 * (1 - last['accuracy']):.0f} % wrong" in figure.alt
    band, line = figure.traces
    assert line["y"][-1] == pytest.approx(1 - last["accuracy"], abs=1e-3)
    half = len(band["y"]) // 2
    upper, lower = band["y"][:half], band["y"][half:][::-1]
    assert all(low <= y <= high for low, y, high in zip(lower, line["y"], upper, strict=True))

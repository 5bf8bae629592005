from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import class_table, classification_metrics
from wsi_ncmi.metrics.classification import binary_areas


@st.composite
def predictions(draw):
    """Truth, probabilities with many ties, predictions that need not be the argmax; classes may be missing."""
    num_classes = draw(st.integers(2, 5))
    n = draw(st.integers(1, 40))
    used = draw(st.lists(st.integers(0, num_classes - 1), min_size=1, unique=True))
    truth = np.array(draw(st.lists(st.sampled_from(used), min_size=n, max_size=n)))
    predicted = np.array(draw(st.lists(st.integers(0, num_classes - 1), min_size=n, max_size=n)))
    levels = st.integers(0, 4)
    rows = draw(
        st.lists(st.lists(levels, min_size=num_classes, max_size=num_classes), min_size=n, max_size=n)
    )
    p = np.array(rows, dtype=float) + 0.25
    p /= p.sum(1, keepdims=True)
    return truth, p, predicted, tuple(f"class_{i}" for i in range(num_classes))


def _names(positions, classes):
    return [classes[i] for i in positions]


def _same(found, expected):
    if math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_equals_scikit_learn(case):
    truth, p, predicted, classes = case
    labels = list(range(len(classes)))
    order = classes[1:] + classes[:1]  # any but that of the columns
    found = classification_metrics(_names(truth, classes), p, _names(predicted, classes), classes, order)
    ranked = [[order.index(classes[i]) for i in part] for part in (truth, predicted)]
    unordered = classification_metrics(_names(truth, classes), p, _names(predicted, classes), classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("macro", "weighted", "micro"):
            expected = sk.f1_score(truth, predicted, labels=labels, average=average, zero_division=0)
            _same(found[f"{average}_f1"], expected)
        _same(found["accuracy"], sk.accuracy_score(truth, predicted))
        _same(found["balanced_accuracy"], sk.balanced_accuracy_score(truth, predicted))
        _same(found["mcc"], sk.matthews_corrcoef(truth, predicted))
        one_class_only = len(set(truth) | set(predicted)) == 1
        for weights in ("linear", "quadratic", None):
            expected = (
                math.nan if one_class_only else sk.cohen_kappa_score(*ranked, labels=labels, weights=weights)
            )
            name = f"kappa_{weights}" if weights else "kappa"
            _same(found[name], expected)
            _same(unordered[name], math.nan if weights else expected)
        _same(found["nll"], sk.log_loss(truth, p, labels=labels))
        _same(found["brier"], float(np.mean(np.sum((p - np.eye(len(classes))[truth]) ** 2, axis=1))))
        _same(found["auroc_macro_ovr"], _mean_over_classes(sk.roc_auc_score, truth, p, need_negatives=True))
        _same(
            found["auprc_macro"],
            _mean_over_classes(sk.average_precision_score, truth, p, need_negatives=False),
        )


def _mean_over_classes(score, truth, p, *, need_negatives):
    values = []
    for c in range(p.shape[1]):
        positive = truth == c
        undefined = not positive.any() or (need_negatives and positive.all())
        values.append(math.nan if undefined else score(positive, p[:, c]))
    return float(np.mean(values))


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_class_table_equals_scikit_learn(case):
    truth, p, predicted, classes = case
    table = class_table(_names(truth, classes), p, _names(predicted, classes), classes)
    expected = sk.precision_recall_fscore_support(
        truth, predicted, labels=list(range(len(classes))), zero_division=0
    )
    for i, name in enumerate(classes):
        for metric, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert table[name][metric] == pytest.approx(values[i])


@settings(max_examples=25, deadline=None)
@given(predictions(), st.integers(0, 2**32 - 1))
def test_weighted_ranking_equals_repeated_observations(case, seed):
    truth, p, _, _ = case
    counts = np.random.default_rng(seed).integers(0, 4, size=(3, len(truth)))
    positive = truth == truth[0]
    areas, precisions = binary_areas(positive, p[:, 0], counts.astype(float))
    for row, area, precision in zip(counts, areas, precisions, strict=True):
        repeated, scores = np.repeat(positive, row), np.repeat(p[:, 0], row)
        if repeated.any() and not repeated.all():
            assert area == pytest.approx(sk.roc_auc_score(repeated, scores))
        else:
            assert math.isnan(area)
        if repeated.any():
            assert precision == pytest.approx(sk.average_precision_score(repeated, scores))
        else:
            assert math.isnan(precision)


def test_macro_f1_counts_a_class_without_slides_as_zero():
    classes = ("a", "b", "c")
    p = np.eye(3)[[0, 1]]
    values = classification_metrics(["a", "b"], p, ["a", "b"], classes)
    assert values["macro_f1"] == pytest.approx(2 / 3)
    assert values["micro_f1"] == 1.0
    assert math.isnan(values["auroc_macro_ovr"])


@pytest.mark.parametrize(
    ("truth", "p", "predicted", "message"),
    [
        (["x"], [[0.5, 0.5]], ["a"], "'x' is not among the classes"),
        (["a"], [[0.5, 0.5]], ["x"], "'x' is not among the classes"),
        (["a"], [[math.nan, 0.5]], ["a"], "NaN or infinity"),
        (["a"], [[0.5, 0.6]], ["a"], "sum to 1"),
        (["a"], [[1.5, -0.5]], ["a"], "must lie in 0–1"),
        (["a"], [[1.0]], ["a"], "shape"),
        ([], np.zeros((0, 2)), [], "no predictions"),
        (["a", "b"], [[0.5, 0.5]], ["a", "b"], "don't match"),
    ],
)
def test_bad_input_is_refused(truth, p, predicted, message):
    with pytest.raises(InputError, match=message):
        classification_metrics(truth, np.array(p), predicted, ("a", "b"))

"""Metrics as functions of arrays equal scikit-learn's, and their intervals those of an evaluation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from wsi_ncmi import metrics
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import evaluate_predictions

LABELS = {
    "macro_f1": lambda y, p, c: sk.f1_score(y, p, labels=c, average="macro", zero_division=0),
    "weighted_f1": lambda y, p, c: sk.f1_score(y, p, labels=c, average="weighted", zero_division=0),
    "micro_f1": lambda y, p, c: sk.f1_score(y, p, labels=c, average="micro", zero_division=0),
    "accuracy": lambda y, p, c: sk.accuracy_score(y, p),
    "balanced_accuracy": lambda y, p, c: sk.balanced_accuracy_score(y, p),
    "mcc": lambda y, p, c: sk.matthews_corrcoef(y, p),
    "kappa": lambda y, p, c: sk.cohen_kappa_score(y, p, labels=c),
    "kappa_linear": lambda y, p, c: sk.cohen_kappa_score(y, p, labels=c, weights="linear"),
    "kappa_quadratic": lambda y, p, c: sk.cohen_kappa_score(y, p, labels=c, weights="quadratic"),
}
NAMES = ("a", "b", "c", "d")


@st.composite
def predictions(draw):
    n = draw(st.integers(1, 30))
    whole = st.integers(0, draw(st.integers(0, 3)))
    return [np.array(draw(st.lists(whole, min_size=n, max_size=n))) for _ in range(2)]


@settings(max_examples=25, derandomize=True, deadline=None)
@given(drawn=predictions(), named=st.booleans())
def test_metrics_of_decisions_are_scikit_learns(drawn, named):
    y, p = drawn
    classes = list(NAMES) if named else list(range(4))
    if named:
        y, p = np.array(NAMES)[y], np.array(NAMES)[p]
    for name, reference in LABELS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = reference(y, p, classes)
        found = getattr(metrics, name)(y, p, classes=classes)
        if name.startswith("kappa") and math.isnan(found):
            assert set(y) == set(p)
            assert len(set(y)) == 1
        else:
            assert found == pytest.approx(expected, abs=1e-12), name
    assert metrics.macro_f1(y, p) == pytest.approx(sk.f1_score(y, p, average="macro", zero_division=0))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(n=st.integers(6, 40), classes=st.integers(2, 4), seed=st.integers(0, 99))
def test_metrics_of_probabilities_are_scikit_learns(n, classes, seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    p = rng.dirichlet(np.ones(classes), n).round(2) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    hot = np.eye(classes)[y]
    scored = (y, p[:, 1]) if classes == 2 else (hot, p)
    assert metrics.auroc(y, p) == pytest.approx(sk.roc_auc_score(*scored))
    assert metrics.auprc(y, p) == pytest.approx(sk.average_precision_score(hot, p))
    assert metrics.nll(y, p) == pytest.approx(sk.log_loss(y, p))
    assert metrics.brier(y, p) == pytest.approx(((p - hot) ** 2).sum(axis=1).mean())
    assert metrics.ece(y, p) == pytest.approx(metrics.expected_calibration_error(y, p))
    names = [NAMES[label] for label in y]
    assert metrics.auroc(names, p) == metrics.auroc(y, p)
    assert metrics.macro_f1(y, p) == metrics.macro_f1(y, p.argmax(axis=1), classes=range(classes))


def test_two_classes_take_the_probability_of_the_second():
    y, p = [0, 1, 1, 0], np.array([0.2, 0.7, 0.4, 0.6])
    assert metrics.auroc(y, p) == sk.roc_auc_score(y, p)
    assert metrics.brier(y, p) == pytest.approx(2 * sk.brier_score_loss(y, p))
    assert metrics.nll(torch.tensor(y), torch.tensor(p, requires_grad=True)) == pytest.approx(
        sk.log_loss(y, p)
    )


def table(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(3), n)
    label = np.array(NAMES)[[rng.choice(3, p=row) for row in p]]
    more = {"fold": 0, "seed": 0, "label": label, "prediction": np.array(NAMES)[p.argmax(axis=1)]}
    case = [f"case {i // 2:02d}" for i in range(n)]
    columns = {f"p_{name}": p[:, i] for i, name in enumerate(NAMES[:3])}
    return pd.DataFrame({"slide_id": [f"s{i:02d}" for i in range(n)], "case_id": case, **more, **columns})


@pytest.mark.parametrize("name", ["macro_f1", "accuracy", "mcc", "auroc", "auprc", "brier", "nll"])
def test_intervals_are_those_of_an_evaluation(name):
    frame, classes = table(), NAMES[:3]
    p = frame[[f"p_{c}" for c in classes]].to_numpy()
    found = metrics.bootstrap(
        name, frame["label"], p, frame["case_id"], resamples=300, seed=4, classes=classes
    )
    column = {"auroc": "auroc_macro_ovr", "auprc": "auprc_macro"}.get(name, name)
    expected = evaluate_predictions(frame, classes, resamples=300, seed=4).metrics[column]
    for key in ("value", "ci_low", "ci_high", "bca_low", "bca_high"):
        assert getattr(found, key) == pytest.approx(getattr(expected, key), rel=1e-9), key


def test_any_function_of_arrays_can_be_resampled():
    frame = table()
    y, p, groups = frame["label"], frame["prediction"], frame["case_id"]
    ours = metrics.bootstrap(metrics.accuracy, y, p, groups, resamples=200)
    own = metrics.bootstrap(lambda a, b: float(np.mean(a == b)), y, p, groups, resamples=200)
    assert (ours.value, ours.ci_low, ours.ci_high) == pytest.approx((own.value, own.ci_low, own.ci_high))
    alone = metrics.bootstrap("accuracy", y, p, resamples=200)
    assert alone.value == ours.value
    assert (alone.ci_low, alone.ci_high) != (ours.ci_low, ours.ci_high)
    assert metrics.bootstrap("ece", y, frame[["p_a", "p_b", "p_c"]].to_numpy(), resamples=50).ci_low > 0


def test_predictions_without_patients_are_evaluated_with_a_warning(caplog):
    frame = table()
    bare = frame[["slide_id", "label", "p_a", "p_b", "p_c"]]
    found = evaluate_predictions(bare, resamples=200)
    assert "each slide is taken for a patient of its own" in caplog.text
    expected = evaluate_predictions(frame.assign(case_id=frame["slide_id"]), resamples=200)
    assert found.metrics == expected.metrics
    f1 = expected.metrics["macro_f1"]
    assert repr(f1) == f"<Estimate {f1.value:.3f} (95 % {f1.ci_low:.3f}–{f1.ci_high:.3f})>"
    assert repr(found).startswith(
        f"<Evaluation 40 slides of 40 patients, classes a, b, c: macro-F1 {f1.value:.3f}"
    )
    assert f"<td>macro_f1</td><td>{f1.value:.3f}</td>" in found._repr_html_()
    unnamed = evaluate_predictions(bare.drop(columns="slide_id"), resamples=200)
    assert unnamed.metrics["macro_f1"].value == expected.metrics["macro_f1"].value


P = np.full((2, 2), 0.5)
WRONG = {
    "another length": (("macro_f1", [0, 1], [0]), "Labels are .N,"),
    "nothing": (("macro_f1", [], []), "N at least 1"),
    "numbers and names": (("macro_f1", [0, 1], ["a", "b"]), "numbers in one and names in the other"),
    "numbers with a point": (("macro_f1", [0.0, 1.0], [0, 1]), "class numbers or class names"),
    "a gap": (("macro_f1", np.array(["a", None], dtype=object), ["a", "b"]), "class numbers or class names"),
    "decisions for probabilities": (("auroc", [0, 1], [0, 1]), r"needs probabilities \(N, C\)"),
    "NaN": (("nll", [0, 1], P * np.nan), "NaN or infinity"),
    "no sum of 1": (("nll", [0, 1], P * 3), "a row must sum to 1"),
    "outside": (("auroc", [0, 2], P), "Class '2' is not among the classes of the task"),
    "a class too few": (("auroc", ["a", "a"], P), "give classes= in the order"),
    "columns in no order": (("nll", [0, 1], pd.DataFrame(P, columns=["p1", "p0"])), "Class '0' is not among"),
    "lists of several lengths": (("macro_f1", [[0], [1, 2]], [0, 1]), "several lengths"),
    "no order": (("kappa_linear", ["x", "y"], ["x", "y"]), "give classes= from the least to the most"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_input_is_one_sentence(fault):
    (name, *arguments), message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        getattr(metrics, name)(*arguments)


def test_older_functions_take_lists_and_tell_what_they_don_t_take():
    y, p = [0, 1, 1], [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]]
    assert metrics.confusion_matrix(y, [0, 1, 0], 2).tolist() == [[1, 0], [1, 1]]
    with pytest.raises(InputError, match="class numbers"):
        metrics.confusion_matrix(["a"], ["b"], 2)
    assert metrics.expected_calibration_error(y, p) == metrics.ece(y, p)
    assert metrics.fit_temperature(y, p) > 0
    found = metrics.classification_metrics(y, p, [0, 1, 0], classes=[0, 1])
    assert found["macro_f1"] == metrics.macro_f1(y, p)
    with pytest.raises(InputError, match="table of pandas, got 'predictions"):
        evaluate_predictions("predictions.csv", ["a", "b"])


def test_the_columns_of_a_table_are_the_classes_they_are_named_by():
    y, p = ["a", "b", "c"], np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
    table = pd.DataFrame(p, columns=["c", "a", "b"])
    assert metrics.nll(y, table) == metrics.nll(y, p[:, [1, 2, 0]]) == metrics.nll(y, table[["a", "b", "c"]])
    assert metrics.accuracy(y, table) == 1
    assert metrics.nll([0, 1, 2], pd.DataFrame(p)) == metrics.nll([0, 1, 2], p)
    assert metrics.nll(y, table, classes=["c", "a", "b"]) == metrics.nll(y, table)
    with pytest.raises(InputError, match="give both in one order"):
        metrics.nll(y, table, classes=["a", "b", "c"])
    assert metrics.accuracy([1, 2, 0], torch.eye(3, dtype=torch.bfloat16)[[1, 2, 0]]) == 1


def test_a_class_outside_those_named_is_told():
    with pytest.raises(InputError, match="Class 'c' is not among"):
        metrics.macro_f1(["a", "c"], ["a", "b"], classes=["a", "b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "f1"}, "no metric 'f1'; choose one of macro_f1"),
        ({"groups": ["a"]}, "groups of shape"),
        ({"groups": ["a", None]}, "1 slide of 2 have no group"),
        ({"groups": ["unknown", "a"]}, "1 slide of 2 have no group"),
        ({"groups": [1.0, float("nan")]}, "1 slide of 2 have no group"),
        ({"resamples": 0}, "whole number of at least 1, got 0"),
        ({"seed": -1}, "seed of the bootstrap is a whole number"),
        ({"classes": [0, 0, 1]}, "hold one twice"),
        ({"classes": 2}, "given in a list"),
        ({"metric": lambda y, p: None}, "gives one number, got None"),
        ({"metric": lambda y, p: 1.0, "y_pred": [0]}, "as many predictions as labels"),
    ],
)
def test_a_bootstrap_that_can_t_be_drawn(settings, message):
    given = {"metric": "accuracy", "y_true": [0, 1], "y_pred": [0, 1]} | settings
    with pytest.raises(InputError, match=message):
        metrics.bootstrap(**given)

"""Sentences, tables and figures where a figure is undefined, certain, or one of several equals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from wsi_ncmi.metrics import Estimate, compare_paired, evaluate_predictions
from wsi_ncmi.metrics.results import NOT_INFORMATIVE
from wsi_ncmi.reporting import render_report, render_summary
from wsi_ncmi.reporting.figures import information_figure
from wsi_ncmi.reporting.formatting import confidence_interval, probability, with_interval
from wsi_ncmi.reporting.slides import best_and_worst
from wsi_ncmi.reporting.tables import confusion_tables, headline_companions, metric_rows, recalibration_source

CLASSES = ("negative", "itc", "micro", "macro")


def runs(votes: dict[str, tuple[str, str]], classes: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    """Slide → (truth, a letter a run)."""
    return pd.DataFrame(
        {"slide_id": slide, "case_id": slide, "fold": 0, "seed": seed, "label": truth, "prediction": said,
         **{f"p_{name}": 0.6 if name == said else 0.4 / (len(classes) - 1) for name in classes}}
        for slide, (truth, said_by_run) in votes.items() for seed, said in enumerate(said_by_run)
    )  # fmt: skip


def test_wrong_in_most_runs_is_counted_by_runs(make):
    frame = runs(
        {
            "right": ("a", "aaaa"),
            "tie": ("a", "aabb"),  # half of the runs are not most
            "wrong": ("a", "abbb"),
            "scattered": ("a", "abcc"),
            "split": ("b", "bbac"),
            "few_right": ("c", "acba"),
        }
    )
    evaluation = evaluate_predictions(frame, ("a", "b", "c"), resamples=20)
    worst, best, n_wrong = best_and_worst(frame, evaluation)
    counted = frame.assign(bad=frame["label"] != frame["prediction"]).groupby("slide_id")["bad"].mean() > 0.5
    assert n_wrong == counted.sum() == 3
    assert {row.slide_id for row in worst} == set(counted[counted].index)
    assert all(row.prediction != row.label for row in worst)
    assert [row.slide_id for row in best] == ["right"]
    words = render_report(make.report_input(frame))
    assert "3 slides are wrong in most runs" in words


def matrix_of(errors: dict[tuple[str, str], int], classes: tuple[str, ...]) -> pd.DataFrame:
    pairs = [(name, name) for name in classes for _ in range(20)]
    pairs += [pair for pair, n in errors.items() for _ in range(n)]
    return runs({f"s{i}": (truth, [said]) for i, (truth, said) in enumerate(pairs)}, classes)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({("macro", "negative"): 3, ("negative", "itc"): 3}, "errors are macro taken for negative (13 % of macro); negative"),
        ({("negative", "macro"): 3, ("macro", "negative"): 3}, "errors are macro taken for negative"),
        ({("negative", "itc"): 1, ("itc", "negative"): 1, ("micro", "macro"): 1, ("macro", "micro"): 1, ("itc", "macro"): 1},
         "errors are itc taken for macro (5 % of itc)"),
        ({("macro", "negative"): 3, ("negative", "itc"): 4}, "error is negative taken for itc (17 % of negative): 4 slides."),
    ],
)  # fmt: skip
def test_of_equally_frequent_errors_the_graver_comes_first(errors, words):
    evaluation = evaluate_predictions(matrix_of(errors, CLASSES), CLASSES, resamples=20)
    sentence = confusion_tables({"": evaluation})[0].sentence
    assert words in sentence
    if max(errors.values()) == 1:
        assert sentence.endswith("; 2 more: 1 slide each.")


def test_without_an_order_equal_errors_are_all_named_the_missed_later_class_first():
    errors = {("normal", "tumor"): 2, ("tumor", "normal"): 2}
    evaluation = evaluate_predictions(
        matrix_of(errors, ("normal", "tumor")), ("normal", "tumor"), resamples=20
    )
    sentence = confusion_tables({"": evaluation})[0].sentence
    assert sentence.endswith(
        "errors are tumor taken for normal (9 % of tumor); normal taken for tumor (9 % of normal): 2 slides each."
    )


def test_no_error_leaves_no_certainty_in_report_and_summary(make):
    frame = make.predictions(patients=18, folds=2)
    frame["prediction"] = frame["label"]
    frame[[c for c in frame if c.startswith("p_")]] = 0.0000001
    for name in ("ADI", "TUM", "NORM"):
        frame.loc[frame["label"] == name, f"p_{name}"] = 0.9999998
    data = make.report_input(frame, curves=make.curves())
    page, summary = render_report(data), render_summary(data)
    low = binomtest(18, 18).proportion_ci(method="exact").low
    for words in (page, summary):
        assert "95 % interval not informative" in words
        assert "rule of three, 3/18" in words
        assert "1.000–1.000" not in words
        assert f"{low:.3f}–1.000" in words  # accuracy
    assert "()" not in summary
    assert "&gt; 0.999" in page  # thresholds and probabilities of slides
    assert "(≥ 0.541)" in page  # sensitivity of a class of six patients: 0.025^(1/6)


def test_there_are_no_empty_brackets(make):
    frame = make.predictions(patients=12)  # six patients a centre: no intervals there
    data = make.report_input(frame)
    same = compare_paired(frame, frame, ("ADI", "TUM", "NORM"), resamples=20)
    summary = render_summary(make.report_input(frame, comparisons={"again": same}))
    assert "()" not in render_summary(data)
    assert "()" not in summary
    assert "minus again: 0.000, the same in every resample." in summary
    assert "not informative: the same in every resample" in render_report(
        make.report_input(frame, comparisons={"again": same})
    )


@pytest.mark.parametrize(
    ("estimate", "brackets", "words"),
    [
        (Estimate(0.5, 0.4, 0.6), "0.500 (0.400–0.600)", "95 % CI 0.400–0.600"),
        (
            Estimate(1.0, reason=f"{NOT_INFORMATIVE}: x"),
            f"1.000 ({NOT_INFORMATIVE})",
            f"95 % {NOT_INFORMATIVE}",
        ),
        (Estimate(0.5, reason="no interval: few"), "0.500", ""),
        (Estimate(math.nan, reason="undefined"), "–", ""),
    ],
)
def test_intervals_in_words(estimate, brackets, words):
    assert with_interval(estimate) == brackets
    assert confidence_interval(estimate) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "1.000"), (0.9999987, "> 0.999"), (0.9994, "0.999"), (0.5, "0.500"), (0.0001, "< 0.001"), (0.0, "0.000"),
     (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_a_probability_is_not_rounded_to_certainty(value, words):
    assert probability(value) == words


def test_kappa_is_weighted_only_where_classes_have_an_order(make):
    frame = make.predictions()
    classes = ("ADI", "TUM", "NORM")
    plain = evaluate_predictions(frame, classes, resamples=20)
    ordered = evaluate_predictions(frame, classes, resamples=20, order=("NORM", "ADI", "TUM"))
    assert "kappa" in headline_companions(plain)
    assert "kappa_quadratic" in headline_companions(ordered)
    assert not {"kappa_linear", "kappa_quadratic"} & {row.key for row in metric_rows({"": plain})}
    assert {"kappa", "kappa_linear", "kappa_quadratic"} <= {row.key for row in metric_rows({"": ordered})}


def test_a_slide_a_class_gives_no_figure_of_concentration(make):
    curves = make.curves()
    assert information_figure(curves, ["ncmi"], {}) is not None
    assert information_figure(curves.assign(val_cmi=0.0), ["ncmi"], {}) is None  # as 0.1.0 wrote it
    assert information_figure(curves.assign(val_cmi=np.nan), ["ncmi"], {}) is None


def test_figure_and_table_that_order_losses_oppositely_say_so(make):
    both = pd.concat([make.curves(loss="ncmi"), make.curves(loss="ce").assign(val_cmi=0.9)])
    turned = information_figure(both, ["ncmi", "ce"], {"ncmi": 0.4, "ce": 0.2})
    assert "orders ncmi and ce the other way round than the table does" in turned.caption
    alike = information_figure(both, ["ncmi", "ce"], {"ncmi": 0.2, "ce": 0.4})
    assert "other way round" not in alike.caption
    assert "The table of metrics has CMI, Γ and NCMI of the test predictions" in alike.caption


def test_the_source_of_a_temperature_names_slides_and_errors():
    found = {
        "fitted_on": "validation",
        "temperature": {"mean": 1.0, "min": 1.0, "max": 1.0},
        "slides": {"mean": 5, "min": 5, "max": 5},
        "errors": {"mean": 0.5, "min": 0, "max": 1},
        "runs": 3,
        "proven": 0,
    }
    words = recalibration_source(SimpleNamespace(recalibration=found))
    assert words.endswith(
        "5 slides with 0–1 errors a run; it proved itself in 0 of 3 runs and is 1 in the others"
    )
    old = {key: found[key] for key in ("fitted_on", "temperature")}
    assert recalibration_source(SimpleNamespace(recalibration=old)).endswith("validation part of each run")

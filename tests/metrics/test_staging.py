from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import STAGES, patient_stage, patient_stages, stage_kappa


@pytest.mark.parametrize(
    ("labels", "stage"),
    [
        ("negative negative negative negative negative", "pN0"),
        ("itc negative itc negative negative", "pN0(i+)"),
        ("micro itc negative negative negative", "pN1mi"),
        ("micro micro micro micro micro", "pN1mi"),
        ("macro itc itc itc itc", "pN1"),
        ("macro micro micro itc negative", "pN1"),
        ("macro micro micro micro negative", "pN2"),
        ("macro macro macro macro macro", "pN2"),
    ],
)
def test_rule(labels, stage):
    assert patient_stage(labels.split()) == stage


def test_rule_refuses_what_it_does_not_know():
    with pytest.raises(InputError, match="'tumor'"):
        patient_stage(["tumor"])
    with pytest.raises(InputError, match="without slides"):
        patient_stage([])


def test_kappa_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth = {f"p{i}": STAGES[rng.integers(5)] for i in range(60)}
    predicted = {p: STAGES[min(4, STAGES.index(s) + int(rng.integers(0, 3)))] for p, s in truth.items()}
    patients = sorted(truth)
    expected = cohen_kappa_score(
        [truth[p] for p in patients],
        [predicted[p] for p in patients],
        labels=list(STAGES),
        weights="quadratic",
    )
    assert stage_kappa(truth, predicted) == pytest.approx(expected)
    assert stage_kappa(truth, truth) == 1.0
    assert math.isnan(stage_kappa({"p": "pN0"}, {"p": "pN0"}))


def test_kappa_refuses_other_patients_and_stages():
    with pytest.raises(InputError, match="'q'"):
        stage_kappa({"p": "pN0"}, {"p": "pN0", "q": "pN1"})
    with pytest.raises(InputError, match="Unknown stage 'pN9'"):
        stage_kappa({"p": "pN9"}, {"p": "pN0"})


@pytest.mark.real_data
def test_rule_reproduces_all_stages_of_the_label_file(real_data):
    stages, slides = {}, []
    with (real_data / "labels" / "camelyon17_stage_labels.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            if row["patient"].endswith(".zip"):
                stages[row["patient"].removesuffix(".zip")] = row["stage"]
            else:
                slides.append((row["patient"][:11], row["stage"]))
    assert len(stages) == 100
    assert patient_stages(slides) == stages
    assert stage_kappa(stages, patient_stages(slides)) == 1.0

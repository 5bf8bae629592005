from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from wsi_ncmi.cohorts import read_labels
from wsi_ncmi.metrics import STAGES, evaluate_predictions, patient_stage
from wsi_ncmi.metrics.staging import evaluate_stages

CLASSES = ("negative", "itc", "micro", "macro")


def predictions(seeds=2, patients=30, slides=5, right=0.7):
    rng = np.random.default_rng(0)
    truth = rng.choice(4, (patients, slides), p=(0.65, 0.07, 0.11, 0.17))
    rows = []
    for seed in range(seeds):
        said = np.where(rng.random(truth.shape) < right, truth, rng.integers(0, 4, truth.shape))
        rows += [
            (f"p{i:02}_{j}", f"p{i:02}", i % 3, seed, CLASSES[truth[i, j]], CLASSES[said[i, j]], *(0.1 + 0.6 * np.eye(4)[said[i, j]]))
            for i in range(patients) for j in range(slides)
        ]  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=["slide_id", "case_id", "fold", "seed", "label", "prediction", *(f"p_{c}" for c in CLASSES)],
    )


def test_kappa_is_the_mean_over_seeds_of_scikit_learns():
    df = predictions()
    found = evaluate_stages(df, CLASSES, resamples=200, seed=0)
    expected = []
    for _, part in df.groupby("seed"):
        stages = part.groupby("case_id")[["label", "prediction"]].agg(
            lambda names: STAGES.index(patient_stage(names))
        )
        expected.append(
            cohen_kappa_score(stages["label"], stages["prediction"], weights="quadratic", labels=range(5))
        )
    kappa = found["kappa_quadratic"]
    assert kappa["value"] == pytest.approx(np.mean(expected))
    assert kappa["ci_low"] < kappa["value"] < kappa["ci_high"]
    assert kappa["bca_low"] < kappa["value"] < kappa["bca_high"]
    assert found["n_patients"] == 30
    assert found["slides_per_patient"] == {"min": 5, "max": 5}
    assert np.sum(found["confusion_matrix"]) == pytest.approx(30)


def test_it_is_part_of_every_evaluation_of_this_task_and_of_no_other():
    df = predictions()
    content = evaluate_predictions(df, CLASSES, resamples=50).to_json()
    assert (
        content["staging"]["kappa_quadratic"]["value"]
        == evaluate_stages(df, CLASSES, resamples=50, seed=0)["kappa_quadratic"]["value"]
    )
    renamed = df.rename(columns={"p_itc": "p_other"}).replace({"itc": "other"})
    assert (
        evaluate_predictions(renamed, ("negative", "other", "micro", "macro"), resamples=50).to_json()[
            "staging"
        ]
        is None
    )
    twice = pd.concat([df, df.head(1).assign(fold=2)])
    assert evaluate_stages(twice, CLASSES, resamples=50, seed=0) is None


def test_perfect_slides_give_perfect_stages():
    df = predictions(right=1.1)
    assert evaluate_stages(df, CLASSES, resamples=50, seed=0)["kappa_quadratic"]["value"] == 1.0


@pytest.mark.real_data
def test_all_hundred_patients_of_the_real_sheet(real_data):
    path = real_data / "labels" / "camelyon17_stage_labels.csv"
    cohort = read_labels(f"camelyon17:{path}")
    sheet = pd.read_csv(path).set_index("patient")["stage"]
    by_patient = {}
    for row in cohort.rows:
        by_patient.setdefault(row.case_id, []).append(row.label)
    assert len(by_patient) == 100
    assert all(patient_stage(labels) == sheet[f"{patient}.zip"] for patient, labels in by_patient.items())

"""CLAM's and STAMP's predictions, in the columns that their own sources write."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.cohorts import CohortRow
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import classes_of, evaluate_predictions, read_predictions
from wsi_ncmi.training.config import EvaluateConfig, EvaluationConfig
from wsi_ncmi.workflows import evaluate

NAMES = ("luad", "lusc", "normal")


def clam(path, n=30, seed=0):
    """As ``eval.py`` writes it: an index is not written, labels and predictions are floats."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    p = rng.dirichlet(np.ones(3), n) * 0.5 + 0.5 * np.eye(3)[y]
    frame = pd.DataFrame(
        {
            "slide_id": [f"slide_{seed}_{i}" for i in range(n)],
            "Y": y.astype(float),
            "Y_hat": p.argmax(1).astype(float),
        }
        | {f"p_{c}": p[:, c] for c in range(3)}
    )
    frame.to_csv(path, index=False)
    labels = [
        CohortRow(s, f"case_{i // 2}", NAMES[c], "A")
        for i, (s, c) in enumerate(zip(frame["slide_id"], y, strict=True))
    ]
    return frame, labels


def stamp(path, n=24, seed=0):
    """As ``deploy`` writes it: a row a patient, the target's name before each category, cross-entropy last."""
    rng = np.random.default_rng(seed)
    categories = ("MSI_H", "MSS")
    truth = [categories[i % 2] for i in range(n)]
    p = rng.dirichlet(np.ones(2), n)
    frame = pd.DataFrame(
        {
            "PATIENT": [f"{seed}{i:03}" for i in range(n)],
            "isMSIH": truth,
            "pred": [categories[k] for k in p.argmax(1)],
        }
        | {f"isMSIH_{c}": p[:, k] for k, c in enumerate(categories)}
        | {"loss": -np.log(p[np.arange(n), np.arange(n) % 2])}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return frame


def test_clam_with_the_names_that_labels_give(tmp_path):
    frame, labels = clam(tmp_path / "fold_0.csv")
    found = read_predictions(tmp_path / "fold_0.csv", labels=labels)
    assert classes_of(found) == NAMES
    assert found["label"].tolist() == [NAMES[int(y)] for y in frame["Y"]]
    assert found["prediction"].tolist() == [NAMES[int(y)] for y in frame["Y_hat"]]
    assert found["case_id"].tolist() == [row.case_id for row in labels]
    np.testing.assert_array_equal(found["p_lusc"], frame["p_1"])
    evaluation = evaluate_predictions(found, NAMES, resamples=50)
    assert evaluation.metrics["accuracy"].value == pytest.approx((frame["Y"] == frame["Y_hat"]).mean())


def test_clam_without_labels(tmp_path):
    clam(tmp_path / "fold_0.csv")
    assert classes_of(read_predictions(tmp_path / "fold_0.csv", group="slide_id")) == ("0", "1", "2")
    named = read_predictions(tmp_path / "fold_0.csv", group="slide_id", classes=NAMES)
    assert classes_of(named) == NAMES
    with pytest.raises(InputError, match=r"'case_id'.*--group slide_id"):
        read_predictions(tmp_path / "fold_0.csv")
    with pytest.raises(InputError, match=r"class 2 has no name; name all 3 with --classes"):
        read_predictions(tmp_path / "fold_0.csv", group="slide_id", classes=NAMES[:2])


def test_clam_with_labels_of_another_task(tmp_path):
    frame, labels = clam(tmp_path / "fold_0.csv")
    wrong = [CohortRow(row.slide_id, row.case_id, NAMES[i % 2]) for i, row in enumerate(labels)]
    with pytest.raises(InputError, match="call slides of class 0 luad and lusc"):
        read_predictions(tmp_path / "fold_0.csv", labels=wrong)
    merged = [CohortRow(row.slide_id, row.case_id, row.label.replace("lusc", "luad")) for row in labels]
    with pytest.raises(InputError, match="one name to several"):
        read_predictions(tmp_path / "fold_0.csv", labels=merged)
    frame.assign(Y="tumour").to_csv(tmp_path / "fold_0.csv", index=False)
    with pytest.raises(InputError, match="Y is 'tumour', not the number of a class"):
        read_predictions(tmp_path / "fold_0.csv", group="slide_id")


def test_clam_folder_of_folds(tmp_path):
    for k in (0, 1, 10):
        clam(tmp_path / f"fold_{k}.csv", n=9, seed=k)
    (tmp_path / "summary.csv").write_text("folds,test_auc\n0,1\n")
    found = read_predictions(tmp_path, group="slide_id")
    assert found.groupby("fold").size().to_dict() == {0: 9, 1: 9, 10: 9}
    pd.read_csv(tmp_path / "fold_1.csv").drop(columns="p_2").to_csv(tmp_path / "fold_1.csv", index=False)
    with pytest.raises(InputError, match=r"fold_1.csv has other columns"):
        read_predictions(tmp_path, group="slide_id")


def test_stamp_patients(tmp_path):
    frame = stamp(tmp_path / "patient-preds.csv")
    found = read_predictions(tmp_path / "patient-preds.csv")
    assert classes_of(found) == ("MSI_H", "MSS")
    assert found["slide_id"].tolist() == found["case_id"].tolist() == [f"0{i:03}" for i in range(24)]
    assert found["label"].tolist() == frame["isMSIH"].tolist()
    assert found["prediction"].tolist() == frame["pred"].tolist()
    evaluation = evaluate_predictions(found, classes_of(found), resamples=50)
    assert evaluation.metrics["nll"].value == pytest.approx(frame["loss"].mean())


def test_stamp_with_labels_of_its_patients(tmp_path):
    frame = stamp(tmp_path / "patient-preds.csv")
    frame.assign(isMSIH="").to_csv(tmp_path / "patient-preds.csv", index=False)
    with pytest.raises(InputError, match="the 'label' is empty"):
        read_predictions(tmp_path / "patient-preds.csv")
    labels = [CohortRow(f"s{i}_{j}", f"0{i:03}", "MSS", "B") for i in range(24) for j in range(2)]
    found = read_predictions(tmp_path / "patient-preds.csv", labels=labels)
    assert set(found["label"]) == {"MSS"}
    assert set(found["centre"]) == {"B"}
    mixed = [*labels, CohortRow("x", "0000", "MSI_H")]
    with pytest.raises(InputError, match="slides of patient '0000' have the labels 'MSS' and 'MSI_H'"):
        read_predictions(tmp_path / "patient-preds.csv", labels=mixed)


def test_stamp_folder_of_splits_through_the_whole_job(tmp_path):
    for k in range(3):
        stamp(tmp_path / "crossval" / f"split-{k}" / "patient-preds.csv", seed=k)
    files = evaluate(
        EvaluateConfig(
            predictions=tmp_path / "crossval", out=tmp_path / "out", evaluation=EvaluationConfig(figures=())
        )
    ).files
    content = json.loads(files["metrics"].read_text())
    assert (content["n_patients"], content["n_folds"]) == (72, 3)
    assert content["macro_f1"]["bca_low"] < content["macro_f1"]["value"]
    assert any("Only 72 patients" in warning for warning in content["warnings"])


def test_a_folder_of_nothing(tmp_path):
    with pytest.raises(InputError, match=r"neither fold_<k>.csv \(CLAM\) nor"):
        read_predictions(tmp_path)

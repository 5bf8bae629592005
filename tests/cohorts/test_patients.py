from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from wsi_ncmi.cohorts import (
    Cohort,
    CohortRow,
    Fold,
    PatientBags,
    Splits,
    open_bag_source,
    patient_cohort,
    patient_splits,
    slide_splits,
)
from wsi_ncmi.core.errors import InputError

ROWS = (
    CohortRow("a1", "A", "x", "north"),
    CohortRow("b1", "B", "y", "north"),
    CohortRow("a2", "A", "x", "south"),
)
COHORT = Cohort(ROWS, ("x", "y"), official_split={"a1": "train", "a2": "train", "b1": "test"})


def test_one_row_a_patient():
    cohort, slides = patient_cohort(COHORT)
    assert cohort.rows == (CohortRow("A", "A", "x", ""), CohortRow("B", "B", "y", "north"))
    assert slides == {"A": ("a1", "a2"), "B": ("b1",)}
    assert cohort.official_split == {"A": "train", "B": "test"}


def test_a_bag_is_all_tiles_of_the_patients_slides(tmp_path):
    features = np.arange(14, dtype=np.float16).reshape(7, 2)
    path = tmp_path / "bags.npz"
    np.savez(path, features=features, lengths=[2, 1, 4], slide_id=["a1", "b1", "a2"])
    bags = pickle.loads(pickle.dumps(PatientBags(open_bag_source(path), patient_cohort(COHORT)[1])))
    assert bags.slide_ids == ("A", "B")
    assert bags.lengths.tolist() == [6, 1]
    np.testing.assert_array_equal(bags.load("A"), features[[0, 1, 3, 4, 5, 6]])
    np.testing.assert_array_equal(bags.load("B"), features[[2]])
    with pytest.raises(InputError, match="no features of the patient 'C'"):
        bags.load("C")


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        (replace(COHORT, case_id_assumed=True), "need patient ids"),
        (replace(COHORT, rows=(*ROWS, CohortRow("a3", "A", "y"))), "patient 'A' have the labels 'x' and 'y'"),
        (replace(COHORT, official_split={"a1": "train", "a2": "test"}), "'A' in test and train"),
    ],
)
def test_what_has_no_answer_is_refused(cohort, message):
    with pytest.raises(InputError, match=message):
        patient_cohort(cohort)


def test_splits_there_and_back():
    of_slides = Splits((Fold(("a1", "a2"), (), ("b1",)),), {"kind": "k-fold"})
    of_patients = patient_splits(of_slides, COHORT)
    assert of_patients == Splits((Fold(("A",), (), ("B",)),), {"kind": "k-fold"})
    assert slide_splits(of_patients, patient_cohort(COHORT)[1]) == of_slides
    with pytest.raises(InputError, match="patient 'A' in train and test"):
        patient_splits(Splits((Fold(("a1",), (), ("a2", "b1")),)), COHORT)

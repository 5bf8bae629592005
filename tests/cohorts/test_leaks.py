from __future__ import annotations

from dataclasses import replace

import pytest

from wsi_ncmi.cohorts import (
    Cohort,
    CohortRow,
    Fold,
    SplitOptions,
    Splits,
    find_leaks,
    make_splits,
    read_any_splits,
    read_labels,
    write_splits,
)
from wsi_ncmi.errors import InputError

ROWS = tuple(
    CohortRow(f"s{i:02}", f"p{i // 2}", "xy"[i // 2 % 2], "01"[i // 4 % 2]) for i in range(24)
)  # two slides a patient
COHORT = Cohort(ROWS, ("x", "y"))


def clean():
    return make_splits(COHORT, SplitOptions(folds=3))


def planted(change):
    first, *others = clean().folds
    return Splits((change(first), *others))


def kinds(splits, **more):
    return {(leak.kind, leak.fatal) for leak in find_leaks(splits, COHORT, **more)}


def test_clean_splits_raise_no_alarm():
    assert find_leaks(clean(), COHORT, fingerprints={row.slide_id: row.slide_id for row in ROWS}) == []


def test_a_slide_in_two_parts():
    found = find_leaks(planted(lambda f: replace(f, test=(*f.test, f.train[0]))), COHORT)
    assert {"slide", "patient"} <= {leak.kind for leak in found if leak.fatal}
    without_labels = find_leaks(planted(lambda f: replace(f, test=(*f.test, f.train[0]))))
    assert [leak.kind for leak in without_labels if leak.fatal] == ["slide"]


def test_a_slide_twice_in_one_part():
    found = find_leaks(planted(lambda f: replace(f, train=(*f.train, f.train[0]))), COHORT)
    assert [(leak.kind, leak.fatal) for leak in found] == [("slide", True)]


@pytest.mark.parametrize("target", ["validation", "test"])
def test_a_patient_in_two_parts(target):
    def move_one_slide(fold):
        return replace(fold, train=fold.train[1:], **{target: (*fold.part(target), fold.train[0])})

    leaks = [leak for leak in find_leaks(planted(move_one_slide), COHORT) if leak.fatal]
    assert [leak.kind for leak in leaks] == ["patient"]
    moved = clean().folds[0].train[0]
    assert leaks[0].what == COHORT.by_slide[moved].case_id
    assert leaks[0].fold == 0
    assert moved in leaks[0].detail


def test_one_image_under_two_names():
    first = clean().folds[0]
    prints = {row.slide_id: row.slide_id for row in ROWS} | {first.test[0]: first.train[0]}
    assert kinds(clean(), fingerprints=prints) == {("content", True)}


def test_a_class_missing_from_training_is_fatal_and_elsewhere_a_warning():
    def without_y(fold, part):
        return replace(fold, **{part: tuple(s for s in fold.part(part) if COHORT.by_slide[s].label == "x")})

    assert ("class", True) in kinds(planted(lambda f: without_y(f, "train")))
    assert ("class", False) in kinds(planted(lambda f: without_y(f, "test")))
    assert ("class", False) in kinds(planted(lambda f: without_y(f, "validation")))


def test_a_centre_missing_is_a_warning():
    def only_centre_0(fold):
        return replace(fold, test=tuple(s for s in fold.test if COHORT.by_slide[s].centre == "0"))

    assert kinds(planted(only_centre_0)) == {("centre", False)}


def test_unknown_slides_and_slides_tested_twice():
    assert ("unknown", True) in kinds(planted(lambda f: replace(f, test=(*f.test, "stranger"))))
    first = clean().folds[0]
    assert ("test_twice", False) in kinds(Splits((first, first)))


def test_our_own_file(tmp_path):
    write_splits(clean(), tmp_path / "splits.json")
    assert find_leaks(read_any_splits(tmp_path / "splits.json", COHORT), COHORT) == []


def test_plain_csv_with_folds(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("slide_id,part,fold\na.svs,train,0\nb,val,0\nc,test,0\na,test,1\nb,train,1\n")
    assert read_any_splits(path).folds == (Fold(("a",), ("b",), ("c",)), Fold(("b",), (), ("a",)))
    path.write_text("slide_id,part\na,dev\n")
    with pytest.raises(InputError, match="row 2, column 'part', value 'dev'"):
        read_any_splits(path)
    path.write_text("slide,fold\na,0\n")
    with pytest.raises(InputError, match="not a splits table"):
        read_any_splits(path)


def test_folder_of_clam_splits_in_numeric_order(tmp_path):
    for i in (0, 2, 10):
        (tmp_path / f"splits_{i}.csv").write_text(f",train,val,test\n0,a,b,test_{i}\n1,c,,\n")
        (tmp_path / f"splits_{i}_bool.csv").write_text(",train,val,test\na,True,False,False\n")
    (tmp_path / "empty").mkdir()
    folds = read_any_splits(tmp_path).folds
    assert [fold.test for fold in folds] == [("test_0",), ("test_2",), ("test_10",)]
    assert folds[0].train == ("a", "c")
    with pytest.raises(InputError, match="no splits_"):
        read_any_splits(tmp_path / "empty")


@pytest.mark.real_data
def test_real_clam_examples(real_data):
    labels = real_data / "labels"
    ragged = read_any_splits(labels / "clam_splits_example.csv")
    flags = read_any_splits(labels / "clam_splits_bool_example.csv")
    (fold,) = ragged.folds
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (198, 50, 50)
    assert all(set(fold.part(p)) == set(flags.folds[0].part(p)) for p in ("train", "validation", "test"))
    cohort = read_labels(labels / "clam_labels_example.csv")
    assert "slide" not in {leak.kind for leak in find_leaks(ragged, cohort)}

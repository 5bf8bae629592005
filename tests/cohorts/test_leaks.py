from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.cohorts.test_near_duplicates import jpeg, piece_of_tissue
from wsi_ncmi.cohorts import (
    Cohort,
    CohortRow,
    Evidence,
    Fold,
    SplitConfig,
    Splits,
    find_leaks,
    make_splits,
    read_any_splits,
    read_labels,
    thumbnail_signature,
    write_splits,
)
from wsi_ncmi.core.errors import InputError

ROWS = tuple(
    CohortRow(f"s{i:02}", f"p{i // 2}", "xy"[i // 2 % 2], "01"[i // 4 % 2]) for i in range(24)
)  # two slides a patient
COHORT = Cohort(ROWS, ("x", "y"))


def clean():
    return make_splits(COHORT, SplitConfig(folds=3))


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


def test_near_copies_in_two_parts():
    first = clean().folds[0]
    tissue = {s: piece_of_tissue(i, 120, 150) for i, s in enumerate((*first.train[:6], *first.test[:6]))}
    assert (
        kinds(clean(), evidence=Evidence(signatures={s: thumbnail_signature(p) for s, p in tissue.items()}))
        == set()
    )
    tissue[first.test[2]] = np.rot90(tissue[first.train[1]]).copy()
    found = find_leaks(
        clean(), COHORT, evidence=Evidence(signatures={s: thumbnail_signature(p) for s, p in tissue.items()})
    )
    assert {(leak.kind, leak.fatal) for leak in found} == {("lookalike", True)}
    assert first.test[2] in found[0].what
    assert first.train[1] in found[0].what
    # What is known to be a copy is said once.
    prints = {first.test[2]: "x", first.train[1]: "x"}
    signatures = {s: thumbnail_signature(p) for s, p in tissue.items()}
    assert {
        leak.kind for leak in find_leaks(clean(), COHORT, evidence=Evidence(prints, signatures=signatures))
    } == {"content"}


def test_files_of_one_name_in_two_folders():
    first = clean().folds[0]
    paths = {row.slide_id: f"{row.case_id}/{row.slide_id}.svs" for row in ROWS}
    assert kinds(clean(), evidence=Evidence(paths=paths)) == set()
    paths |= {first.train[0]: "a/scan.1.svs", first.test[0]: "b/scan.1.svs"}
    assert kinds(clean(), evidence=Evidence(paths=paths)) == {("name", True)}
    differ = {first.train[0]: "1", first.test[0]: "2"}
    assert kinds(clean(), evidence=Evidence(differ, paths=paths)) == {("name", False)}
    same_part = {**paths, first.train[0]: "a/x.svs", first.train[1]: "b/scan.1.svs", first.test[0]: "a/y.svs"}
    assert kinds(clean(), evidence=Evidence(paths=same_part)) == set()


def test_same_features_under_two_names():
    first = clean().folds[0]
    hashes = {row.slide_id: row.slide_id for row in ROWS} | {first.validation[0]: first.train[0]}
    assert kinds(clean(), evidence=Evidence(features=hashes)) == {("content", True)}


def test_a_site_in_two_parts_of_a_site_preserved_split():
    rows = tuple(replace(row, centre=f"c{i // 2 % 6}") for i, row in enumerate(ROWS))
    cohort = Cohort(rows, ("x", "y"))
    splits = make_splits(cohort, SplitConfig(folds=2, validation=0.34, group="centre"))
    assert [leak for leak in find_leaks(splits, cohort) if leak.fatal] == []
    first, other = splits.folds
    moved = Splits(
        (replace(first, train=first.train[1:], test=(*first.test, first.train[0])), other), splits.meta
    )
    assert ("site", True) in {(leak.kind, leak.fatal) for leak in find_leaks(moved, cohort)}


def test_a_labelled_slide_in_no_part_is_said():
    assert kinds(planted(lambda f: replace(f, test=f.test[1:]))) == set()  # other folds have it
    folds = [
        Fold(*(tuple(s for s in fold.part(part) if s != "s00") for part in ("train", "validation", "test")))
        for fold in clean().folds
    ]
    assert kinds(Splits(tuple(folds))) == {("left_out", False)}


@pytest.fixture(scope="module")
def many_looks():
    """Looks of many pieces of tissue, and those of their copies: turned, compressed."""
    pieces = [piece_of_tissue(seed, 120, 150) for seed in range(240)]
    return [thumbnail_signature(piece) for piece in pieces], [
        thumbnail_signature(jpeg(np.rot90(piece).copy(), 60)) for piece in pieces
    ]


@pytest.mark.parametrize("seed", range(4))
def test_no_false_alarm_on_random_clean_splits_and_every_planted_leak_found(seed, many_looks):
    """50 cohorts each: random sizes, classes, centres, split options; then one leak planted in each."""
    rng = np.random.default_rng(seed)
    for trial in range(50):
        patients, classes, centres = rng.integers(20, 60), rng.integers(2, 5), rng.integers(1, 5)
        rows = tuple(
            CohortRow(f"s{p}_{i}", f"p{p}", f"k{(p if rng.random() < 0.7 else rng.integers(99)) % classes}", f"c{p % centres}")
            for p in range(patients) for i in range(rng.integers(1, 5))
        )  # fmt: skip
        cohort = Cohort(rows, tuple(f"k{i}" for i in range(classes)))
        options = SplitConfig(folds=int(rng.integers(1, 5)), validation=0.25, seed=trial)
        splits = make_splits(cohort, options)
        evidence = Evidence(
            fingerprints={row.slide_id: f"f{row.slide_id}" for row in rows},
            features={row.slide_id: f"h{row.slide_id}" for row in rows},
            paths={row.slide_id: f"{row.case_id}/{row.slide_id}.tif" for row in rows},
            signatures={row.slide_id: many_looks[0][i] for i, row in enumerate(rows)},
        )
        assert [leak for leak in find_leaks(splits, cohort, evidence=evidence) if leak.fatal] == []
        k = int(rng.integers(len(splits.folds)))
        fold = splits.folds[k]
        source, target = (("train", "test"), ("train", "validation"), ("validation", "test"))[trial % 3]
        a, b = rng.choice(fold.part(source)), rng.choice(fold.part(target))
        kind = ("slide", "patient", "content", "name", "lookalike", "class")[int(rng.integers(6))]
        if kind == "slide":
            changed = replace(fold, **{target: (*fold.part(target), a)})
            splits = Splits((*splits.folds[:k], changed, *splits.folds[k + 1 :]))
        elif kind == "patient":
            changed = tuple(replace(row, case_id="both") if row.slide_id in (a, b) else row for row in rows)
            cohort = Cohort(changed, cohort.classes)
        elif kind == "content":
            which = ("fingerprints", "features")[trial % 2]
            evidence = replace(evidence, **{which: {**getattr(evidence, which), a: "same", b: "same"}})
        elif kind == "lookalike":
            copy = many_looks[1][cohort.slide_ids.index(a)]
            evidence = replace(evidence, signatures={**evidence.signatures, b: copy})
        elif kind == "class":
            lost = cohort.by_slide[a].label
            kept = tuple(s for s in fold.train if cohort.by_slide[s].label != lost)
            splits = Splits((*splits.folds[:k], replace(fold, train=kept), *splits.folds[k + 1 :]))
        else:
            paths = {**evidence.paths, a: "one/slide.tif", b: "two/slide.svs"}
            evidence = replace(evidence, paths=paths, fingerprints={})
        found = [leak for leak in find_leaks(splits, cohort, evidence=evidence) if leak.fatal]
        assert kind in {leak.kind for leak in found if leak.fold == k}, (kind, found)


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

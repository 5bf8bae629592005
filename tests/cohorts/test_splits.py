from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsi_ncmi.cohorts import (
    PARTS,
    Cohort,
    CohortRow,
    SplitConfig,
    find_leaks,
    make_splits,
    official_splits,
    open_bag_source,
    read_labels,
    read_splits,
    write_splits,
)
from wsi_ncmi.core.errors import InputError


def cohort_of(patients, classes=("a", "b", "c"), centres=("0", "1")):
    """Patients as lists of class positions."""
    rows = tuple(
        CohortRow(f"p{i:03}_s{j}", f"p{i:03}", classes[label], centres[i % len(centres)])
        for i, labels in enumerate(patients)
        for j, label in enumerate(labels)
    )
    return Cohort(rows, tuple(classes))


patients = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=6, max_size=40)


@settings(max_examples=150, deadline=None)
@given(patients, st.integers(1, 5), st.sampled_from([0.0, 0.2, 0.4]), st.integers(0, 3))
def test_no_patient_in_two_parts_and_every_slide_tested_once(groups, folds, validation, seed):
    cohort = cohort_of(groups)
    options = SplitConfig(folds=folds, validation=validation, seed=seed)
    if min(sum(c in labels for labels in groups) for c in range(3)) < max(folds, 2):
        with pytest.raises(InputError, match="has only"):
            make_splits(cohort, options)
        return
    try:
        splits = make_splits(cohort, options)
    except InputError:
        # Only where patients with several classes bind them together; never with plenty of them.
        assume(min(sum(c in labels for labels in groups) for c in range(3)) < 2 * folds + 2)
        return
    case = {row.slide_id: row.case_id for row in cohort.rows}
    tested = Counter()
    for fold in splits.folds:
        parts = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(cohort.rows)
        cases = [{case[s] for s in part} for part in parts]
        assert sum(map(len, cases)) == len(set.union(*cases))
        assert {cohort.by_slide[s].label for s in fold.train} == set(cohort.classes)
        tested.update(fold.test)
    if folds > 1:
        assert tested == dict.fromkeys(cohort.slide_ids, 1)
    assert not [leak for leak in find_leaks(splits, cohort) if leak.fatal]


@settings(max_examples=20, deadline=None)
@given(patients, st.integers(0, 3), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(groups, seed, rng):
    cohort = cohort_of(groups)
    options = SplitConfig(folds=2, seed=seed)
    try:
        splits = make_splits(cohort, options)
    except InputError:
        assume(False)
    rows = list(cohort.rows)
    rng.shuffle(rows)
    assert make_splits(replace(cohort, rows=tuple(rows)), options) == splits


def test_seed_changes_the_folds_but_not_their_balance():
    cohort = cohort_of([[i % 3] for i in range(60)])
    splits = [make_splits(cohort, SplitConfig(seed=seed)) for seed in (0, 1)]
    assert splits[0].folds != splits[1].folds
    for split in splits:
        for fold in split.folds:
            assert Counter(cohort.by_slide[s].label for s in fold.test) == {"a": 4, "b": 4, "c": 4}
            assert Counter(cohort.by_slide[s].centre for s in fold.test) == {"0": 6, "1": 6}


def test_pure_classes_get_their_share_of_validation():
    cohort = cohort_of([[i % 2] for i in range(100)], classes=("a", "b"))
    for fold in make_splits(cohort, SplitConfig(folds=5, validation=0.25)).folds:
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (60, 20, 20)
        assert Counter(cohort.by_slide[s].label for s in fold.validation) == {"a": 10, "b": 10}


def test_hold_out():
    cohort = cohort_of([[i % 3] for i in range(60)])
    splits = make_splits(cohort, SplitConfig(folds=1, test=0.25, validation=0.2))
    (fold,) = splits.folds
    assert splits.meta["kind"] == "hold-out"
    assert Counter(cohort.by_slide[s].label for s in fold.test) == {"a": 5, "b": 5, "c": 5}
    assert len(fold.validation) == 9


def test_class_counts_before_centre():
    # Even classes put both slides of p000 against p001 and p002; even centres would part those two.
    cohort = cohort_of([[0, 0], [0], [0], [1], [1], [1], [1]], ("a", "b"), centres="0112222")
    for seed in range(5):
        for fold in make_splits(cohort, SplitConfig(folds=2, validation=0, seed=seed)).folds:
            assert Counter(cohort.by_slide[s].label for s in fold.test) == {"a": 2, "b": 2}
    # Without a class in the way, the centres are even.
    for fold in make_splits(cohort, SplitConfig(folds=2, validation=0, stratify=("centre",))).folds:
        assert Counter(cohort.by_slide[s].centre for s in fold.test)["1"] == 1


def test_validation_sees_a_class_even_where_that_is_more_than_its_share():
    # One of class b's patients brings ten slides, where the share of the validation would be four.
    cohort = cohort_of([[0]] * 60 + [[1] * 10] * 6, ("a", "b"))
    for fold in make_splits(cohort, SplitConfig(folds=3, validation=0.1)).folds:
        assert {cohort.by_slide[s].label for s in fold.validation} == {"a", "b"}


def test_too_few_patients_of_a_class():
    cohort = cohort_of([[0, 1]] * 10 + [[2, 2, 2]] * 3)
    with pytest.raises(
        InputError,
        match=r"Class 'c' has only 3 patients, 5 folds need at least 5: use --folds 3",
    ):
        make_splits(cohort, SplitConfig(folds=5))
    assert len(make_splits(cohort, SplitConfig(folds=3)).folds) == 3
    with pytest.raises(InputError, match=r"only 1 patients.*add patients, or merge"):
        make_splits(cohort_of([[0, 1]] * 10 + [[2] * 9]), SplitConfig(folds=2))


def test_group_by_slide_is_seen_by_the_audit():
    cohort = cohort_of([[0, 1, 2, 0, 1, 2]] * 6)
    splits = make_splits(cohort, SplitConfig(folds=3, group="slide_id"))
    assert {leak.kind for leak in find_leaks(splits, cohort) if leak.fatal} == {"patient"}


def test_unknown_option_and_impossible_values():
    from pydantic import ValidationError

    for wrong in ({"fold": 5}, {"folds": 0}, {"validation": 1.0}, {"stratify": ("age",)}):
        with pytest.raises(ValidationError):
            SplitConfig(**wrong)


def test_round_trip_and_belonging(tmp_path):
    cohort = cohort_of([[i % 3] for i in range(30)])
    splits = make_splits(cohort, SplitConfig(folds=3))
    path = tmp_path / "splits.json"
    write_splits(splits, path)
    again = read_splits(path, cohort)
    assert again.folds == splits.folds
    assert again.meta["labels_sha256"] == cohort.sha256
    assert again.meta["options"]["folds"] == 3
    assert again.meta["warnings"] == splits.meta["warnings"]
    first, *others = cohort.rows
    with pytest.raises(InputError, match="names slide 'p000_s0', unknown to the labels"):
        read_splits(path, replace(cohort, rows=tuple(others)))
    with pytest.raises(InputError, match="'new' of the labels is in no part"):
        read_splits(path, replace(cohort, rows=(*cohort.rows, replace(first, slide_id="new"))))
    changed = read_splits(path, replace(cohort, rows=(replace(first, label="b"), *others)))
    assert any("labels have changed" in warning for warning in changed.meta["warnings"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "its schema is None"),
        ('{"schema": "other"}', "its schema is 'other'"),
        ('{"schema": "wsi-ncmi/splits/1"}', "'folds' is missing"),
        ('{"schema": "wsi-ncmi/splits/1", "folds": []}', "no folds"),
        ('{"schema": "wsi-ncmi/splits/1", "folds": [{"train": ["a"]}]}', "'validation' is missing"),
        ('{"schema": "wsi-ncmi/splits/1", "folds": [{"train": [1]}]}', "'train' is missing or not a list"),
    ],
)
def test_foreign_json_is_refused(tmp_path, text, message):
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_splits(path)


def test_official_split_draws_the_missing_validation():
    cohort = cohort_of([[i % 3] for i in range(60)])
    official = {s: "test" if i >= 45 else "train" for i, s in enumerate(cohort.slide_ids)}
    splits = official_splits(replace(cohort, official_split=official), SplitConfig())
    (fold,) = splits.folds
    assert set(fold.test) == {s for s, part in official.items() if part == "test"}
    assert len(fold.validation) == 9
    assert splits.meta["kind"] == "official"
    with pytest.raises(InputError, match="no official split"):
        official_splits(cohort, SplitConfig())
    with pytest.raises(InputError, match="in no part"):
        official_splits(replace(cohort, official_split={cohort.slide_ids[0]: "train"}), SplitConfig())


@pytest.mark.real_data
def test_camelyon17_is_balanced_better_than_by_stratified_group_k_fold(real_data):
    from sklearn.model_selection import StratifiedGroupKFold

    cohort = read_labels(f"camelyon17:{real_data}/labels/camelyon17_stage_labels.csv")
    splits = make_splits(cohort, SplitConfig())
    y = [row.label for row in cohort.rows]
    cases = [row.case_id for row in cohort.rows]
    rival = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, cases)
    theirs = [[cohort.slide_ids[i] for i in test] for _, test in rival]
    ours = [fold.test for fold in splits.folds]
    assert _chi_square(cohort, ours, "label") < 0.2 * _chi_square(cohort, theirs, "label")
    assert _chi_square(cohort, ours, "centre") == 0.0
    assert splits.meta["warnings"] == []
    assert splits.meta["imbalance"]["class"]["relative"] < 0.06


@pytest.mark.real_data
def test_real_official_splits(real_data):
    camelyon = read_labels(f"camelyon17:{real_data}/labels/camelyon17_stage_labels.csv")
    splits = official_splits(camelyon, SplitConfig())
    (fold,) = splits.folds
    assert {camelyon.by_slide[s].centre for s in (*fold.train, *fold.validation)} == {"0", "1", "2"}
    assert {camelyon.by_slide[s].centre for s in fold.test} == {"3", "4"}
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (240, 60, 200)
    assert [leak for leak in find_leaks(splits, camelyon) if leak.fatal] == []
    assert any("Centre 0, 1, 2, 3, 4" in warning for warning in splits.meta["warnings"])
    bracs = read_labels(f"bracs7:{real_data}/labels/bracs.csv", group="slide_id")
    (fold,) = official_splits(bracs, SplitConfig()).folds
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (395, 65, 87)


@pytest.mark.real_data
def test_real_bags_split_by_patient(real_data):
    cohort = open_bag_source(real_data / "tcga_bags" / "tcga_rcc.npz").embedded_cohort()
    splits = make_splits(cohort, SplitConfig(stratify=("label",)))
    assert find_leaks(splits, cohort) == []
    assert _chi_square(cohort, [fold.test for fold in splits.folds], "label") < 0.2


def _chi_square(cohort, tests, what):
    total = 0.0
    for name in {getattr(row, what) for row in cohort.rows}:
        counts = np.array([sum(getattr(cohort.by_slide[s], what) == name for s in test) for test in tests])
        total += float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    return total


def test_many_random_clean_splits_raise_no_alarm():
    rng = random.Random(0)
    for trial in range(40):
        groups = [[rng.randrange(2) for _ in range(rng.randint(1, 4))] for _ in range(24)]
        cohort = cohort_of([[0], [1]] * 4 + groups, classes=("a", "b"))
        splits = make_splits(cohort, SplitConfig(folds=4, seed=trial))
        assert [leak for leak in find_leaks(splits, cohort) if leak.fatal] == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_a_site_preserved_split_keeps_every_site_and_patient_together(seed, folds):
    rng = np.random.default_rng(seed)
    rows = [
        CohortRow(f"s{p}_{i}", f"p{p}", "xy"[(p + i) % 2], "" if p % 17 == 0 else f"c{rng.integers(9) if p % 11 == 0 else p % 9}")
        for p in range(54) for i in range(2)
    ]  # fmt: skip
    cohort = Cohort(tuple(rows), ("x", "y"))
    splits = make_splits(cohort, SplitConfig(folds=folds, validation=0.25, group="centre", seed=seed))
    for fold in splits.folds:
        for what in ("centre", "case_id"):
            places = {}
            for part in PARTS:
                for slide_id in fold.part(part):
                    places.setdefault(getattr(cohort.by_slide[slide_id], what), set()).add(part)
            places.pop("", None)
            assert all(len(parts) == 1 for parts in places.values())
    assert sorted(s for fold in splits.folds for s in fold.test) == sorted(cohort.slide_ids)
    assert not any("Centre" in warning for warning in splits.meta["warnings"])


def test_site_preserved_splits_that_can_not_be():
    rows = tuple(CohortRow(f"s{i}", f"p{i}", "xy"[i % 2], "c0" if i < 6 else "c1") for i in range(12))
    with pytest.raises(InputError, match="only 2 centres, 3 folds need at least 3: use --folds 2"):
        make_splits(Cohort(rows, ("x", "y")), SplitConfig(folds=3, group="centre"))
    nowhere = tuple(CohortRow(row.slide_id, row.case_id, row.label) for row in rows)
    with pytest.raises(InputError, match="No centre is known"):
        make_splits(Cohort(nowhere, ("x", "y")), SplitConfig(folds=2, group="centre"))


@pytest.mark.parametrize(
    ("patients", "folds", "words"),
    [
        (30, 3, ["fold 0 (3 slides, 1 of a, 1 of b, 1 of c)", "fold 2"]),
        (60, 6, ["fold 2", "and 3 more"]),
        (300, 2, []),
    ],
)
def test_few_validation_slides_are_told(patients, folds, words):
    splits = make_splits(cohort_of([[i % 3] for i in range(patients)]), SplitConfig(folds=folds))
    told = [text for text in splits.meta["warnings"] if "few validation slides" in text]
    assert len(told) == bool(words)
    assert all(word in told[0] for word in words)


@pytest.mark.parametrize(
    ("patients", "folds", "validation", "bare"),
    [
        (6, 2, 0.2, "fold 0, fold 1"),
        (18, 2, 0.2, ""),
        (12, 4, 0.2, ""),
        (12, 2, 0.2, "fold 0, fold 1"),
        (12, 2, 0.0, ""),
    ],
)
def test_folds_too_small_for_a_validation_part_are_told(patients, folds, validation, bare):
    options = SplitConfig(folds=folds, validation=validation)
    splits = make_splits(cohort_of([[i % 3] * 2 for i in range(patients)]), options)
    told = [text for text in splits.meta["warnings"] if "No validation part" in text]
    assert len(told) == bool(bare)
    assert all(f"No validation part in {bare}, and training needs one" in text for text in told)


def test_a_rare_class_in_a_large_validation_part_is_told():
    cohort = cohort_of([[i % 2 if i % 40 else 2] for i in range(400)])
    (told,) = make_splits(cohort, SplitConfig(folds=2)).meta["warnings"]
    assert "slides, 1 of c)" in told

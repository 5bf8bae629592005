from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.cohorts import Cohort, CohortRow, match_features
from wsi_ncmi.core.errors import InputError


class Bags:
    """A bag source that holds only what matching looks at."""

    path = Path("bags.npz")
    width = 1
    encoder = ""

    def __init__(self, **lengths):
        self.slide_ids = tuple(name.replace("__DOT__", ".") for name in lengths)
        self.lengths = np.array(list(lengths.values()), dtype=np.int64)

    def load(self, slide_id):
        raise AssertionError("matching must not read features")

    def embedded_cohort(self, group=None):
        return None


def cohort_of(*rows, **more):
    return Cohort(tuple(CohortRow(s, f"case_{s}", label) for s, label in rows), ("x", "y"), **more)


def test_every_slide_is_accounted_for():
    cohort = cohort_of(
        ("a", "x"), ("b.svs", "y"), ("c", "x"), ("d", "y"), official_split={"a": "train", "b.svs": "test"}
    )
    result = match_features(cohort, Bags(d=0, b=2, a__DOT__tif=3, e=1))
    assert result.cohort.slide_ids == ("a.tif", "b")
    assert result.cohort.classes == ("x", "y")
    assert result.cohort.official_split == {"a.tif": "train", "b": "test"}
    assert [(u.slide_id, u.reason) for u in result.unmatched] == [
        ("c", "label without features"),
        ("d", "no tissue: the features hold no tile"),
        ("e", "features without label"),
    ]


def test_same_name_with_two_extensions():
    bags = Bags(a__DOT__svs=1, a__DOT__tif=1, b=1)
    result = match_features(cohort_of(("a.svs", "x"), ("a.tif", "y")), bags)
    assert result.cohort.slide_ids == ("a.svs", "a.tif")
    with pytest.raises(InputError, match=r"'a' could belong to 'a.svs' or 'a.tif'"):
        match_features(cohort_of(("a", "x"), ("b", "y")), bags)


def test_nothing_in_common_and_one_class_left():
    with pytest.raises(InputError, match=r"None of the 1 labelled slides .* like 'a', features like 'b'"):
        match_features(cohort_of(("a", "x")), Bags(b=1))
    with pytest.raises(InputError, match=r"All 1 labelled slides with features .* class 'x'"):
        match_features(cohort_of(("a", "x"), ("b", "y")), Bags(a=1))

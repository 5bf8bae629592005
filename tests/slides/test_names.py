"""Slide ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.slides import SLIDE_EXTENSIONS, slide_id_of
from wsi_ncmi.slides.identity import assign_slide_ids, has_slide_extension


@pytest.mark.parametrize(
    ("name", "slide_id"),
    [
        ("a.svs", "a"), ("a.SVS", "a"), ("a.ome.tiff", "a"), ("patient_012_node_3.tif", "patient_012_node_3"), ("a", "a"),
        ("TCGA-AA-0001-01Z-00-DX1.1A2B.C3.svs", "TCGA-AA-0001-01Z-00-DX1.1A2B.C3"), ("TCGA.1A2B.C3", "TCGA.1A2B.C3"),
        ("a.svs.tif", "a.svs"), (".svs", ".svs"), ("...svs", "__"), ("..", "__"), ("", "_"),
    ],
)  # fmt: skip
def test_only_the_slide_extension_is_taken_off(name, slide_id):
    assert slide_id_of(name) == slide_id


def test_extensions_are_lower_case_and_longer_ones_come_first():
    assert all(extension == extension.lower() for extension in SLIDE_EXTENSIONS)
    for index, extension in enumerate(SLIDE_EXTENSIONS):
        assert not any(extension.endswith(earlier) for earlier in SLIDE_EXTENSIONS[:index])
    assert has_slide_extension("X.MRXS")
    assert not has_slide_extension("x.csv")


def test_shared_names_get_their_path_and_others_keep_theirs():
    paths = ["a/x.svs", "b/c/x.svs", "b/y.svs", "z.svs", "z.tif"]
    assert assign_slide_ids(paths) == ["a__x", "b__c__x", "y", "z.svs", "z.tif"]


names = st.text(st.sampled_from("ab_.~ü"), min_size=1, max_size=4).filter(lambda name: name.strip(".") != "")


@given(
    st.lists(
        st.tuples(st.lists(names, max_size=3).map(tuple), names, st.sampled_from([".svs", ".tif", ".SVS"])),
        unique=True,
    )
)
def test_ids_are_unique_safe_and_do_not_depend_on_the_order(parts):
    paths = list(dict.fromkeys("/".join([*folders, name + extension]) for folders, name, extension in parts))
    ids = assign_slide_ids(paths)
    assert len(set(ids)) == len(ids)
    assert not any("/" in slide_id or slide_id in ("", ".", "..") for slide_id in ids)
    assert dict(zip(paths, ids, strict=True)) == dict(
        zip(paths[::-1], assign_slide_ids(paths[::-1]), strict=True)
    )


@given(
    st.lists(
        st.lists(st.sampled_from(["a.svs", "x/a.svs", "y/a.svs", "a.tif", "b.svs", "x/b.svs"]), unique=True)
    )
)
def test_ids_once_given_stay_whatever_comes_and_goes(rounds):
    ever = {}
    for paths in rounds:
        ids = dict(zip(paths, assign_slide_ids(paths, ever), strict=True))
        assert all(ever.get(path, slide_id) == slide_id for path, slide_id in ids.items())
        ever |= ids
        assert len(set(ever.values())) == len(ever)


def test_a_name_that_no_path_would_get_is_not_taken_over():
    assert assign_slide_ids(["x/a.svs"], {"x/a.svs": "../../etc"}) == ["a"]


def test_long_paths_still_make_file_names():
    paths = [f"{'d' * 200}/{folder}/x.svs" for folder in "ab"]
    ids = assign_slide_ids(paths)
    assert len(set(ids)) == 2
    assert all(len(slide_id.encode()) <= 200 for slide_id in ids)

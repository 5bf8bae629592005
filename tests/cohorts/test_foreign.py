from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from tests.features.interchange import makers
from wsi_ncmi.cohorts import BagSource, empty_bags, open_bag_source
from wsi_ncmi.core.errors import InputError


@pytest.mark.parametrize("form", ["clam", "clam pt", "trident", "trident job", "stamp", "acmil"])
def test_bags_straight_from_other_tools(tmp_path, form):
    ids = {"TCGA-1.2": 12, "b": 7}
    kept = {}
    for seed, (slide_id, n) in enumerate(ids.items()):
        if form.startswith("clam"):
            kept[slide_id] = makers.clam(tmp_path, slide_id, n, seed, h5=form == "clam", dtype=np.float32)[0]
        elif form.startswith("trident"):
            kept[slide_id] = makers.trident(
                tmp_path / "20x_256px_0px_overlap" / "features_e", slide_id, n, seed
            )[0]
        elif form == "stamp":
            kept[slide_id] = makers.stamp(tmp_path, slide_id, n, seed)[0]
        else:
            kept[slide_id] = makers.features_of(n, seed)
    path = tmp_path
    if form == "acmil":
        path = tmp_path / "cohort.h5"
        makers.acmil(path, ids)
    elif form == "trident":
        path = tmp_path / "20x_256px_0px_overlap" / "features_e"
    source = open_bag_source(path)
    assert isinstance(source, BagSource)
    assert source.slide_ids == ("TCGA-1.2", "b")
    assert source.lengths.tolist() == [12, 7]
    assert source.width == makers.WIDTH
    assert empty_bags(source) == ()
    again = pickle.loads(pickle.dumps(source))
    for slide_id, features in kept.items():
        bag = again.load(slide_id)
        assert bag.dtype == np.float16
        np.testing.assert_array_equal(bag, features.astype(np.float16))
    with pytest.raises(InputError, match="no features of slide 'c'"):
        source.load("c")
    assert open_bag_source(source.path).slide_ids == source.slide_ids
    if form == "acmil":
        with pytest.raises(InputError, match="--group slide_id"):
            source.embedded_cohort()
        assert source.embedded_cohort("slide_id").classes == ("0", "1")
    else:
        assert source.embedded_cohort() is None
    assert source.encoder == ("e" if form.startswith("trident") else "")


def test_faulty_folders_of_other_tools(tmp_path):
    makers.clam(tmp_path, "a", pt=False)
    (tmp_path / "h5_files" / "b.h5").write_text("broken")
    with pytest.raises(InputError, match=r"1 feature file in .* can't be used: .*b\.h5"):
        open_bag_source(tmp_path)
    with h5py.File(tmp_path / "h5_files" / "b.h5", "w") as handle:
        handle["features"] = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match="'b' has embeddings of 3 dimensions and 'a' of 6"):
        open_bag_source(tmp_path)
    with h5py.File(tmp_path / "h5_files" / "b.h5", "w") as handle:
        handle["features"] = np.full((2, makers.WIDTH), np.nan, np.float32)
    with pytest.raises(InputError, match="NaN"):
        open_bag_source(tmp_path).load("b")

"""Ours to theirs, read by plain readers after the peers' own code, and back, bit for bit."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.interchange import makers
from wsi_ncmi.features import open_features_file, verify_folder
from wsi_ncmi.features.interchange import open_feature_set, writer_for
from wsi_ncmi.workflows.convert import ConvertConfig, convert

IDS = ("TCGA-AA-0001.01A.svs-like", "plain", "empty")


@pytest.fixture
def cohort(tmp_path):
    folder = tmp_path / "out" / "features" / "uni_v1"
    kept = {}
    for i, slide_id in enumerate(IDS):
        kept[slide_id] = makers.ours(folder, slide_id, n=0 if slide_id == "empty" else 12 + i, seed=i)
    return folder, kept


def converted(source, to, out, **more):
    result = convert(ConvertConfig(features=source, to=to, out=out, **more))
    assert not result.failures
    return result


def test_clam_as_clam_reads_it(cohort, tmp_path):
    folder, kept = cohort
    out = tmp_path / "clam"
    converted(folder, "clam", out)
    for slide_id, (features, coords) in kept.items():
        # Generic_MIL_Dataset.__getitem__, both of its ways.
        tensor = torch.load(out / "pt_files" / f"{slide_id}.pt", weights_only=True)
        with h5py.File(out / "h5_files" / f"{slide_id}.h5", "r") as handle:
            stored, places = handle["features"][:], handle["coords"][:]
        assert tensor.dtype == torch.float32
        assert torch.equal(torch.from_numpy(stored), tensor)
        np.testing.assert_array_equal(tensor.numpy().astype(np.float16), features)
        np.testing.assert_array_equal(places, coords)
        assert places.dtype == np.int32
        # Whole_Slide_Bag_FP and the heatmaps take these from the coordinates' file.
        with h5py.File(out / "patches" / f"{slide_id}.h5", "r") as handle:
            attrs = handle["coords"].attrs
            assert (attrs["patch_size"], attrs["patch_level"]) == (512, 0)
            assert attrs["downsample"].tolist() == [1.0, 1.0]
            assert attrs["level_dim"].tolist() == [4000, 5000]
            assert attrs["name"] == slide_id
            assert attrs["save_path"] == ""


def test_trident_as_trident_reads_it(cohort, tmp_path):
    folder, kept = cohort
    out = tmp_path / "trident"
    converted(folder, "trident", out)
    job = out / "20x_256px_0px_overlap"
    for slide_id, (features, coords) in kept.items():
        with h5py.File(job / "features_uni_v1" / f"{slide_id}.h5", "r") as handle:
            stored, places = handle["features"][:], handle["coords"][:]
            assert handle["features"].attrs["encoder"] == "uni_v1"
            attrs = dict(handle["coords"].attrs)
        np.testing.assert_array_equal(stored.astype(np.float16), features)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(places, coords)
        # read_coords gives these to the patcher: tile at level 0 = patch_size · level0 // target.
        assert attrs["patch_size"] * attrs["level0_magnification"] // attrs["target_magnification"] == 512
        assert attrs["patch_size_level0"] == 512
        assert (attrs["level0_width"], attrs["level0_height"], attrs["overlap"]) == (4000, 5000, 0)
        assert (job / "patches" / f"{slide_id}_patches.h5").is_file()


def stamp_coords(handle):
    """What STAMP's ``get_coords`` makes of a file, written anew: (coords_um, tile_size_um, tile_size_px)."""
    coords, attrs = handle["coords"][:], handle.attrs
    px = int(attrs["tile_size_px"]) if "tile_size_px" in attrs else None
    if attrs.get("tile_size") and attrs.get("unit") == "um":
        return coords, float(attrs["tile_size"]), px
    if attrs.get("tile_size_um"):
        return coords, float(attrs["tile_size_um"]), px
    steps = [np.diff(np.unique(coords[:, axis])).min() for axis in (0, 1)]
    assert round(attrs.get("tile_size", min(steps))) == 224
    return coords / 224 * 256, 256.0, 224


def test_stamp_as_stamp_reads_it(cohort, tmp_path):
    folder, kept = cohort
    out = tmp_path / "stamp"
    result = convert(ConvertConfig(features=folder, to="stamp", out=out))
    assert len(result.failures) == 1
    assert "STAMP has no file for such a slide" in result.failures[0]
    for slide_id in IDS[:2]:
        features, coords = kept[slide_id]
        with h5py.File(out / "uni_v1" / f"{slide_id}.h5", "r") as handle:
            coords_um, tile_um, tile_px = stamp_coords(handle)
            stored = handle["feats"][:]
            assert handle.attrs["feat_type"] == "tile"
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, features)
        np.testing.assert_allclose(coords_um, coords * 0.25)
        assert (tile_um, tile_px) == (128.0, 256)


@pytest.mark.parametrize("to", ["clam", "trident", "stamp"])
def test_there_and_back_bit_for_bit(cohort, tmp_path, to):
    folder, kept = cohort
    convert(ConvertConfig(features=folder, to=to, out=tmp_path / "theirs"))
    back = tmp_path / "back"
    converted(tmp_path / "theirs", "wsi-ncmi", back, default_mpp=0.25, encoder="uni_v1")
    assert all(verdict.ok for verdict in verify_folder(back))
    files = sorted((back / "features" / "uni_v1").glob("*.h5"))
    assert len(files) == (2 if to == "stamp" else 3)
    for path in files:
        file = open_features_file(path)
        features, coords = kept[file.slide_id]
        assert file.features.tobytes() == features.tobytes()
        np.testing.assert_array_equal(file.coords, coords)
        identity = file.identity
        assert identity.slide_fingerprint == identity.encoder_weights_sha256 == "unknown"
        assert identity.mpp_level0_x == 0.25
        assert file.attrs["tile_size_level0"] == 512.0
        if to != "clam":
            assert (identity.mpp_target, identity.tile_px) == (0.5, 256)


def test_tiles_of_a_finer_grid_keep_their_places(tmp_path):
    """A tile size that is no whole number of level-0 pixels survives each format to its rounding."""
    folder = tmp_path / "features"
    _, coords = makers.ours(folder, "s", mpp=0.243, mpp_target=0.5)
    for to in ("trident", "stamp"):
        converted(folder, to, tmp_path / to)
        bag = open_feature_set(tmp_path / to).bag("s")
        if to == "trident":
            assert bag.metadata.tile_width == pytest.approx(256 * 0.5 / 0.243, rel=1e-9)
            assert (bag.metadata.mpp_x, bag.metadata.mpp_target) == (pytest.approx(0.243), 0.5)
        else:
            bag = bag.at_resolution(0.243, 0.243)
        np.testing.assert_array_equal(bag.coords, coords)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 30), seed=st.integers(0, 99), dtype=st.sampled_from([np.float16, np.float32]))
def test_clam_folders_of_any_size_and_order(tmp_path_factory, n, seed, dtype):
    folder = tmp_path_factory.mktemp("clam")
    features, coords = makers.clam(folder, "s", n, seed, shuffle=True, dtype=dtype)
    bag = open_feature_set(folder).bag("s")
    written = writer_for("wsi-ncmi", folder / "out", overwrite=False, origin="clam").write(bag)
    file = open_features_file(written.path)
    place = {tuple(c): f for c, f in zip(coords.tolist(), features, strict=True)}
    assert [tuple(c) for c in file.coords.tolist()] == sorted(place, key=lambda c: (c[1], c[0]))
    for c, f in zip(file.coords.tolist(), file.features, strict=True):
        np.testing.assert_array_equal(f, place[tuple(c)].astype(np.float16))


def test_clam_patches_tell_tile_and_slide_size(tmp_path):
    makers.clam(tmp_path, "s", patches=True)
    metadata = open_feature_set(tmp_path).bag("s").metadata
    assert (metadata.tile_px, metadata.tile_width, metadata.level0_size) == (256, 512.0, (4000, 5000))
    assert metadata.mpp_x is None
    known = open_feature_set(tmp_path).bag("s").at_resolution(0.25, 0.25).metadata
    assert known.mpp_target == 0.5


@pytest.mark.parametrize("form", ["old", "2.0", "2.1"])
def test_all_forms_of_stamp(tmp_path, form):
    features, coords_um = makers.stamp(tmp_path / "in", "s", form=form)
    bag = open_feature_set(tmp_path / "in").bag("s")
    np.testing.assert_allclose(bag.coords_um, coords_um)
    assert bag.metadata.edge_um == 256
    assert bag.metadata.tile_px == (None if form == "2.0" else 224)
    converted(tmp_path / "in", "wsi-ncmi", tmp_path / "out")
    assert all(verdict.ok for verdict in verify_folder(tmp_path / "out"))
    file = open_features_file(next((tmp_path / "out").rglob("s.h5")))
    np.testing.assert_array_equal(file.features, features)
    # Whatever stands for level 0, pixel × mpp is the place in µm.
    np.testing.assert_allclose(file.coords * file.identity.mpp_level0_x, coords_um, atol=0.6)


@pytest.mark.real_data
def test_the_real_stamp_file(real_data, tmp_path):
    path = real_data / "interchange" / "stamp_ctranspath_example.h5"
    with h5py.File(path, "r") as handle:
        coords_um, tile_um, tile_px = stamp_coords(handle)
        feats = handle["feats"][:]
    assert (feats.shape, tile_um, tile_px) == ((2318, 768), 256.0, 224)
    out = tmp_path / "out"
    converted(path.parent, "wsi-ncmi", out, default_mpp=0.25)
    assert [(v.ok, v.n_tiles) for v in verify_folder(out)] == [(True, 2318)]
    file = open_features_file(next(out.rglob("*.h5")))
    assert file.attrs["mpp_level0"] == 0.25
    order = np.lexsort((coords_um[:, 0], coords_um[:, 1]))
    np.testing.assert_array_equal(file.features, feats[order])
    np.testing.assert_allclose(file.coords * 0.25, coords_um[order], atol=0.13)
    converted(out, "stamp", tmp_path / "again")
    with h5py.File(next((tmp_path / "again").rglob("*.h5")), "r") as handle:
        again, again_um, again_px = stamp_coords(handle)
        np.testing.assert_array_equal(handle["feats"][:], feats[order])
    np.testing.assert_allclose(again, coords_um[order], atol=0.13)
    assert (again_um, again_px) == (256.0, 224)

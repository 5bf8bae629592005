"""Folders in which files of several encoders or tile grids lie together."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
import torch

from tests.features.interchange import makers
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.workflows.convert import ConvertConfig, convert


def change(file: Path, place: str, **attrs: object) -> None:
    with h5py.File(file, "r+") as handle:
        handle[place].attrs.update(attrs)


@pytest.mark.parametrize(
    ("form", "place", "attrs", "message"),
    [
        ("stamp", "/", {"extractor": "uni"}, "extractor is 'ctranspath' of slide 'a' and 'uni' of 'b'"),
        ("stamp", "/", {"tile_size_um": 112.0}, r"tile_size_um is 256\.0 of slide 'a' and 112\.0 of 'b'"),
        ("stamp", "/", {"tile_size_px": 256}, "tile_size_px is 224 of slide 'a' and 256 of 'b'"),
        (
            "trident",
            "features",
            {"encoder": "conch_v1"},
            "encoder is 'uni_v1' of slide 'a' and 'conch_v1' of 'b'",
        ),
        (
            "trident",
            "coords",
            {"target_magnification": 10},
            "target_magnification is 20 of slide 'a' and 10 of 'b'",
        ),
        ("trident", "coords", {"patch_size": 512}, "patch_size is 256 of slide 'a' and 512 of 'b'"),
        ("trident", "coords", {"overlap": 128}, "overlap is 0 of slide 'a' and 128 of 'b'"),
    ],
)
def test_mixtures_are_refused_before_anything_is_done(tmp_path: Path, form, place, attrs, message) -> None:
    folder = tmp_path / "features_uni_v1"
    make = makers.stamp if form == "stamp" else makers.trident
    for seed, slide_id in enumerate("ab"):
        make(folder, slide_id, 5, seed)
    assert open_bag_source(folder).slide_ids == ("a", "b")
    change(folder / "b.h5", place, **attrs)
    with pytest.raises(InputError, match=f"mixes features: {message}; keep one encoder and one tile grid"):
        open_bag_source(folder)
    for to in ("packed", "clam"):
        with pytest.raises(InputError, match="mixes features"):
            convert(ConvertConfig(features=folder, to=to, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_only_some_files_tell_is_no_difference(tmp_path: Path) -> None:
    makers.trident(tmp_path / "features_e", "a", 5)
    makers.trident(tmp_path / "features_e", "b", 5, attrs=False)
    change(tmp_path / "features_e" / "a.h5", "coords", level0_magnification=20)  # slides may differ
    assert open_bag_source(tmp_path / "features_e").lengths.tolist() == [5, 5]


def test_our_own_files_are_held_to_the_same(tmp_path: Path) -> None:
    for slide_id in "ab":
        makers.ours(tmp_path / "features" / "e", slide_id)
    converted = convert(ConvertConfig(features=tmp_path / "features", to="packed", out=tmp_path / "out"))
    assert not converted.failures
    change(tmp_path / "features" / "e" / "b.h5", "/", mpp_target=1.0)
    with pytest.raises(InputError, match="mixes features: mpp_target"):
        convert(ConvertConfig(features=tmp_path / "features", to="clam", out=tmp_path / "clam"))


def test_a_checkpoint_beside_the_folders_of_clam_is_no_slide(tmp_path: Path) -> None:
    makers.clam(tmp_path, "a", 5, h5=False)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "s_0_checkpoint.pt")
    assert open_bag_source(tmp_path).slide_ids == ("a",)

"""Vectors of slides and patients: the folders of TRIDENT, STAMP and slide2vec, and plain files."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from tests.features.interchange import makers
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.cohorts.joined_bags import JoinedBags
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features.interchange import open_feature_set
from wsi_ncmi.workflows.convert import ConvertConfig, convert

D = 6
IDS = ("TCGA-A.1", "TCGA-B.2", "c")


def vector_of(slide_id: str, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(len(slide_id)).normal(0, 1, D).astype(np.float16).astype(dtype)


def trident(folder, *, empty: str = "", tiles: int = 9):
    """``extract_slide_features`` and ``save_h5``: chunks of one, coordinates of the tiles beside the vector."""
    path = folder / "20x_512px_0px_overlap" / "slide_features_titan"
    path.mkdir(parents=True)
    for slide_id in IDS:
        vector = np.empty(0, np.float32) if slide_id == empty else vector_of(slide_id)
        with h5py.File(path / f"{slide_id}.h5", "w") as handle:
            features = handle.create_dataset("features", data=vector, maxshape=(None,), chunks=(1,))
            features.attrs.update({"name": slide_id, "savetodir": "/data/out"})
            coords = makers.grid_coords(tiles)
            table = handle.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2))
            table.attrs.update({"patch_size": 512, "patch_size_level0": 1024, "overlap": 0,
                                "level0_magnification": 40, "target_magnification": 20})  # fmt: skip
    return path


def stamp(folder, level: str = "slide", *, ids=IDS, batch: bool = False, encoder: str = "titan"):
    """``_save_features_`` of STAMP's encoders."""
    path = folder / f"{encoder}-{'pat' if level == 'patient' else 'slide'}-0123abcd"
    path.mkdir(parents=True, exist_ok=True)
    for slide_id in ids:
        with h5py.File(path / f"{slide_id}.h5", "w") as handle:
            handle["feats"] = vector_of(slide_id)[None] if batch else vector_of(slide_id)
            handle.attrs.update({"version": "2.4.0", "encoder": encoder, "precision": "torch.float32",
                                 "stamp_version": "2.4.0", "code_hash": "0123abcd", "feat_type": level})  # fmt: skip
    return path


def slide2vec(folder, level: str = "slide", form: str = "pt"):
    """``write_slide_embeddings`` with its file of metadata."""
    path = folder / f"{level}_embeddings"
    path.mkdir(parents=True)
    for slide_id in IDS:
        if form == "pt":
            torch.save(torch.from_numpy(vector_of(slide_id)), path / f"{slide_id}.pt")
        else:
            np.savez_compressed(path / f"{slide_id}.npz", features=vector_of(slide_id))
        meta = {
            "artifact_type": f"{level}_embeddings",
            "encoder_name": "prism",
            "feature_dim": D,
            "format": form,
        }
        (path / f"{slide_id}.meta.json").write_text(json.dumps(meta))
    return path


def plain(folder, suffix: str):
    folder.mkdir(parents=True)
    for slide_id in IDS:
        file = folder / f"{slide_id}{suffix}"
        if suffix == ".npy":
            np.save(file, vector_of(slide_id))
        elif suffix == ".pt":
            torch.save(torch.from_numpy(vector_of(slide_id)), file)
        else:
            with h5py.File(file, "w") as handle:
                handle["features"] = vector_of(slide_id)
    return folder


LAYOUTS = {
    "trident": (trident, "slide", "titan"),
    "stamp": (stamp, "slide", "titan"),
    "stamp, a batch of one": (lambda folder: stamp(folder, batch=True), "slide", "titan"),
    "stamp patients": (lambda folder: stamp(folder, "patient"), "patient", "titan"),
    "slide2vec": (slide2vec, "slide", "prism"),
    "slide2vec npz": (lambda folder: slide2vec(folder, form="npz"), "slide", "prism"),
    "slide2vec patients": (lambda folder: slide2vec(folder, "patient"), "patient", "prism"),
    **{
        suffix: (lambda folder, s=suffix: plain(folder / "v", s), "slide", "")
        for suffix in (".h5", ".pt", ".npy")
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_a_bag_of_one_vector_a_slide(tmp_path, layout) -> None:
    make, level, encoder = LAYOUTS[layout]
    source = open_bag_source(make(tmp_path))
    assert (source.level, source.encoder, source.width) == (level, encoder, D)
    assert source.slide_ids == tuple(sorted(IDS))
    assert source.lengths.tolist() == [1, 1, 1]
    for slide_id in IDS:
        np.testing.assert_array_equal(source.load(slide_id), vector_of(slide_id, np.float16)[None])
        assert source.coordinates(slide_id) is None


@pytest.mark.parametrize("make", [trident, stamp, slide2vec])
def test_the_folder_above_is_enough(tmp_path, make) -> None:
    make(tmp_path)
    assert open_bag_source(tmp_path).level == "slide"


def test_tridents_folder_of_tiles_beside_the_one_of_slides_is_a_choice(tmp_path) -> None:
    vectors = trident(tmp_path)
    makers.trident(vectors.parent / "features_conch_v15", "c")
    with pytest.raises(InputError, match=r"features_conch_v15.*slide_features_titan"):
        open_bag_source(vectors.parent)
    assert open_bag_source(vectors).level == "slide"


def test_a_slide_without_tiles_has_no_vector(tmp_path) -> None:
    source = open_bag_source(trident(tmp_path, empty="TCGA-A.1"))
    assert dict(zip(source.slide_ids, source.lengths.tolist(), strict=True)) == {
        "TCGA-A.1": 0,
        "TCGA-B.2": 1,
        "c": 1,
    }
    assert source.width == D


def test_vectors_of_two_encoders_or_levels_in_a_folder_are_refused(tmp_path) -> None:
    path = stamp(tmp_path)
    stamp(tmp_path / "x", ids=("z",), encoder="chief").joinpath("z.h5").rename(path / "z.h5")
    with pytest.raises(InputError, match=r"encoder is 'titan' of slide .* and 'chief' of 'z'"):
        open_bag_source(path)
    stamp(tmp_path / "y", "patient", ids=("z",)).joinpath("z.h5").rename(path / "z.h5")
    with pytest.raises(InputError, match=r"level is 'slide' of slide .* and 'patient' of 'z'"):
        open_bag_source(path)


def test_a_bag_among_vectors_is_named_and_the_other_way_round(tmp_path) -> None:
    path = plain(tmp_path / "v", ".npy")
    np.save(path / "d.npy", np.zeros((4, D), np.float32))
    with pytest.raises(InputError, match=r"d\.npy holds float32 of shape \(4, 6\), not one"):
        open_bag_source(path)
    bags = tmp_path / "clam"
    makers.clam(bags, "a", pt=False)
    with h5py.File(bags / "h5_files" / "b.h5", "w") as handle:
        handle["features"] = vector_of("b")
    with pytest.raises(InputError, match=r"b\.h5: 'features' has the shape \(6,\)"):
        open_bag_source(bags)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.npy", b"\x93NUMPY", "can't be read"),
        ("d.pt", b"nothing", "can't be read as a tensor"),
        ("d.h5", b"nothing", "no HDF5 file"),
        ("TCGA-A.1.npy", None, "twice, in TCGA-A.1.npy and TCGA-A.1.pt"),
        ("d.pt", torch.arange(6), "int64, not floating-point"),
        ("d.npy", np.full(D, np.nan, np.float32), "NaN"),
        ("d.npy", np.full(D, 1e6, np.float32), "beyond the 65504"),
    ],
)
def test_faulty_files_are_named(tmp_path, name, content, words) -> None:
    path = plain(tmp_path / "v", ".pt")
    file = path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, torch.Tensor):
        torch.save(content, file)
    else:
        np.save(file, vector_of("x") if content is None else content)
    with pytest.raises(InputError, match=words):
        open_bag_source(path).load("d")


def test_a_patients_vector_says_so_also_without_metadata(tmp_path) -> None:
    path = slide2vec(tmp_path, "patient")
    for file in path.glob("*.json"):
        file.unlink()
    assert open_bag_source(tmp_path).level == "patient"


def test_vectors_of_several_encoders_are_joined_and_never_with_tiles(tmp_path) -> None:
    first, second = open_bag_source(stamp(tmp_path / "a")), open_bag_source(plain(tmp_path / "b", ".npy"))
    joined = JoinedBags([first, second])
    assert (joined.level, joined.width) == ("slide", 2 * D)
    for slide_id in IDS:
        makers.ours(tmp_path / "features" / "uni_v1", slide_id, n=1)
    with pytest.raises(InputError, match=r"vectors of slides and .* of tiles"):
        JoinedBags([first, open_bag_source(tmp_path / "features")])


def test_packed_vectors_keep_their_level(tmp_path) -> None:
    convert(ConvertConfig(features=stamp(tmp_path, "patient"), to="packed", out=tmp_path / "v.npz"))
    packed = open_bag_source(tmp_path / "v.npz")
    assert (packed.level, packed.lengths.tolist()) == ("patient", [1, 1, 1])
    assert open_feature_set(tmp_path / "v.npz").level == "patient"


def test_there_is_no_other_format_for_vectors(tmp_path) -> None:
    with pytest.raises(InputError, match=r"one vector a slide.*packed"):
        convert(ConvertConfig(features=stamp(tmp_path), to="clam", out=tmp_path / "clam"))

"""Writing, reading and proving feature files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import resource
import shutil
import traceback
from pathlib import Path

import h5py
import numpy as np
import pytest

from wsi_ncmi.cohorts.bags import FeatureFolder
from wsi_ncmi.core.errors import InputError, JobStoppedError, SlideError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.features import (
    SlideAttributes,
    difference,
    identity_of,
    open_features_file,
    read_identity,
    verify_file,
    verify_folder,
    write_features,
)
from wsi_ncmi.features.checksum_trailer import make_trailer
from wsi_ncmi.features.schema import Identity
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import TissueConfig

RECORD = SlideRecord(
    slide_id="a.1", path="a.1.svs", reader="openslide", vendor="aperio", width_px=4000, height_px=3000,
    n_levels=2, mpp_x=0.25, mpp_y=0.25, mpp_source="vendor", fingerprint="ab" * 16, size_bytes=1,
)  # fmt: skip
SLIDE = SlideAttributes(
    slide_id="a.1", width_px=4000, height_px=3000, reader="openslide", mpp_source="vendor", read_level=1,
    tile_size_level0=(512.0, 512.0), n_failed_reads=3, n_artifact_tiles=5, tissue_found={"threshold_used": 0.1},
)  # fmt: skip


@pytest.fixture
def identity() -> Identity:
    return identity_of(
        RECORD, TissueConfig(), GridConfig(mpp=0.5, overlap_px=16), load_encoder(EncoderConfig()).info
    )


KINDS = ("pen", "fold", "border", "blur")


def write(path: Path, identity: Identity, n: int = 20, width: int = 6, features=None, artifacts=None) -> Path:
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, width)).astype(np.float32) if features is None else features
    coords = np.stack((np.arange(n) % 7 * 512, np.arange(n) // 7 * 512), 1).astype(np.int64)
    fraction = np.linspace(0.25, 1, n).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(
        path, features=features, coords=coords, tissue_fraction=fraction, identity=identity, slide=SLIDE,
        artifacts=artifacts, artifact_kinds=() if artifacts is None else KINDS,
    )  # fmt: skip
    return path


def test_the_layout_is_the_golden_one(tmp_path: Path, identity: Identity) -> None:
    scores = np.linspace(0, 1, 80).reshape(20, 4).astype(np.float16)
    with h5py.File(write(tmp_path / "a.1.h5", identity, artifacts=scores), "r") as file:
        assert sorted(file) == ["artifacts", "coords", "features", "tissue_fraction"]
        assert (file["artifacts"].dtype, file["artifacts"].shape) == (np.dtype("<f2"), (20, 4))
        assert list(file["artifacts"].attrs["names"]) == ["pen", "fold", "border", "blur"]
        assert (file["features"].dtype, file["features"].shape) == (np.dtype("<f2"), (20, 6))
        assert (file["coords"].dtype, file["coords"].shape) == (np.dtype("<i8"), (20, 2))
        assert file["tissue_fraction"].dtype == np.dtype("<f2")
        assert file["features"].chunks is None
        assert file["features"].compression is None
        assert dict(file["coords"].attrs) == {
            "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
            "target_magnification": 20, "overlap": 16, "name": "a.1", "savetodir": "",
            "level0_width": 4000, "level0_height": 3000,
        }  # fmt: skip
        attrs = dict(file.attrs)
        content = file["features"][()].tobytes() + file["coords"][()].tobytes()
    assert attrs["sha256"] == hashlib.sha256(content).hexdigest()
    expected = {
        "schema": "wsi-ncmi-features/2", "complete": True, "n_tiles": 20, "n_failed_reads": 3,
        "slide_id": "a.1", "slide_fingerprint": "ab" * 16, "reader": "openslide", "mpp_level0": 0.25,
        "mpp_source": "vendor", "mpp_target": 0.5, "tile_px": 256, "overlap_px": 16, "read_level": 1,
        "tissue_method": "hed", "encoder": "descriptor", "encoder_weights_sha256": "none",
        "precision": identity.precision, "backend": identity.backend, "transform": identity.transform,
        "min_tissue": 0.25, "artifacts_rule": "keep", "tile_size_level0": 512.0, "n_artifact_tiles": 5,
        "annotations": "none", "stain": "none", "stain_found": "", "decoding": "exact",
    }  # fmt: skip
    assert {name: attrs[name] for name in expected} == expected
    assert str(attrs["software"]).startswith("wsi-ncmi ")
    assert "min_object_um2" in attrs["tissue_parameters"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, identity: Identity) -> None:
    first = write(tmp_path / "x" / "a.1.h5", identity).read_bytes()
    assert write(tmp_path / "y" / "a.1.h5", identity).read_bytes() == first


def test_a_failed_write_leaves_nothing_that_can_not_be_freed(tmp_path: Path, identity: Identity) -> None:
    """A view of the image that outlives the write crashes the collector of Python 3.12 (gh-111049)."""
    write(tmp_path / "whole.h5", identity)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))  # a file system that is full after 5 kB
    try:
        with pytest.raises(JobStoppedError, match="no space left") as caught:
            write(tmp_path / "a.1.h5", identity)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
    error, images = caught.value, []
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        images += [
            each for frame in frames for each in frame.f_locals.values() if isinstance(each, io.BytesIO)
        ]
        error = error.__cause__
    assert images
    for image in images:
        image.close()  # refused while a view of it is there


@pytest.mark.parametrize("n", [0, 1, 20])
def test_what_is_written_is_read(tmp_path: Path, identity: Identity, n: int) -> None:
    values = np.random.default_rng(1).normal(size=(n, 6)).astype(np.float32)
    path = write(tmp_path / "a.1.h5", identity, n, features=values)
    file = open_features_file(path)
    assert (file.n_tiles, file.width, file.slide_id) == (n, 6, "a.1")
    np.testing.assert_array_equal(file.features, values.astype(np.float16))
    assert file.features.dtype == np.float16
    assert file.coords.shape == (n, 2)
    assert file.tissue_fraction.shape == (n,)
    assert file.identity == read_identity(path) == identity
    assert verify_file(path).ok
    assert verify_file(path).n_tiles == n


@pytest.mark.parametrize("n", [0, 20])
def test_artefact_scores_are_read_back(tmp_path: Path, identity: Identity, n: int) -> None:
    scores = np.random.default_rng(0).random((n, 4)).astype(np.float16)
    path = write(tmp_path / "a.1.h5", identity, n, artifacts=scores)
    file = open_features_file(path)
    assert file.artifact_kinds == KINDS
    assert file.n_artifact_tiles == 5
    np.testing.assert_array_equal(file.artifacts, scores)
    assert verify_file(path).ok
    without = open_features_file(write(tmp_path / "b" / "a.1.h5", identity, n))
    assert without.artifact_kinds == ()
    assert without.artifacts.shape == (n, 0)


def test_scores_that_are_no_shares_are_found(tmp_path: Path, identity: Identity) -> None:
    for bad in (np.full((20, 4), 1.5), np.full((20, 4), np.nan)):
        path = write(tmp_path / "a.1.h5", identity, artifacts=bad.astype(np.float16))
        assert "artefact scores" in verify_file(path).problem
    with pytest.raises(ValueError, match="artifacts"):
        write(tmp_path / "a.1.h5", identity, artifacts=np.zeros((19, 4), np.float16))


def first_version(path: Path) -> Path:
    """What version 1 wrote: no scores, no attributes of annotations and stain; sealed as it was."""
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "wsi-ncmi-features/1"
        for name in ("annotations", "stain", "stain_found", "decoding", "n_artifact_tiles"):
            del file.attrs[name]
    content = path.read_bytes()
    content = content[: content.rindex(b"\nwsi-ncmi seal")] if b"\nwsi-ncmi seal" in content else content
    path.write_bytes(content + make_trailer(content))
    return path


def test_files_of_the_first_version_are_read_and_never_written_over(
    tmp_path: Path, identity: Identity
) -> None:
    path = first_version(write(tmp_path / "a.1.h5", identity))
    assert verify_file(path).ok, verify_file(path).problem
    file = open_features_file(path)
    assert file.attrs["schema"] == "wsi-ncmi-features/1"
    assert (file.n_artifact_tiles, file.artifacts.shape) == (0, (20, 0))
    found = read_identity(path)
    assert found is not None
    assert difference(found, identity) == (
        "the file layout is wsi-ncmi-features/1 there, wsi-ncmi-features/2 here"
    )


def test_a_layout_of_the_future_is_refused_with_a_remedy(tmp_path: Path, identity: Identity) -> None:
    path = write(tmp_path / "a.1.h5", dataclasses.replace(identity, schema="wsi-ncmi-features/9"))
    with pytest.raises(InputError, match=r"features/9.*update wsi-ncmi"):
        open_features_file(path)
    found = read_identity(path)
    assert found is not None
    assert "the file layout is wsi-ncmi-features/9 there" in difference(found, identity)


def test_rows_come_from_the_mapped_file(tmp_path: Path, identity: Identity) -> None:
    file = open_features_file(write(tmp_path / "a.1.h5", identity))
    assert isinstance(file.features, np.memmap)
    with h5py.File(file.path, "r") as plain:
        np.testing.assert_array_equal(file.rows(np.array([7, 0, 7])), plain["features"][()][[7, 0, 7]])


def test_the_cohort_room_reads_these_files(tmp_path: Path, identity: Identity) -> None:
    write(tmp_path / "a.1.h5", identity)
    source = FeatureFolder(tmp_path)
    assert source.slide_ids == ("a.1",)
    assert source.encoder == "descriptor"
    np.testing.assert_array_equal(source.load("a.1"), open_features_file(tmp_path / "a.1.h5").features)


@pytest.mark.parametrize(("bad", "word"), [(1e5, "65504"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_values_that_no_float16_holds_are_refused(
    tmp_path: Path, identity: Identity, bad: float, word: str
) -> None:
    features = np.zeros((20, 6), np.float32)
    features[3, 2] = bad
    with pytest.raises(SlideError, match=word):
        write(tmp_path / "a.1.h5", identity, features=features)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_told_in_words(identity: Identity) -> None:
    other = dataclasses.replace(identity, tile_px=224, encoder="timm:vit")
    text = difference(identity, other)
    assert "256" in text
    assert "224" in text
    assert "timm:vit" in text
    assert difference(identity, identity) == ""


DROP = '{"blur":0.5,"pen":0.1,"rule":"drop"}'


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({"artifacts_rule": "keep"}, {"artifacts_rule": DROP}, "the artefact rule is keep there, drop here"),
        (
            {"artifacts_rule": DROP},
            {"artifacts_rule": DROP.replace("0.5", "0.7")},
            "the artefact option blur is 0.5 there, 0.7 here",
        ),
        ({"stain": "none"}, {"stain": '{"method":"macenko"}'}, "normalisation is none there, macenko here"),
        ({"decoding": "exact"}, {"decoding": "scaled"}, "the decoding is exact there, scaled here"),
        (
            {"annotations": "none"},
            {"annotations": "ab" * 32},
            "the slide's set of annotations is another (none there, abababababab… here)",
        ),
        (
            {"stain": '{"method":"macenko","target":"builtin"}'},
            {"stain": '{"method":"macenko","target":"sha256:%s"}' % ("0" * 64)},
            "the stain option target is builtin there, sha256:00000… here",
        ),
    ],
)
def test_options_that_differ_are_named(identity: Identity, there, here, words: str) -> None:
    found, wanted = dataclasses.replace(identity, **there), dataclasses.replace(identity, **here)
    assert difference(found, wanted).endswith(words)


def test_damage_at_any_place_is_found(tmp_path: Path, identity: Identity) -> None:
    path = write(tmp_path / "a.1.h5", identity)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    # Every part: superblock, attributes, data, seal.
    places = {0, 8, len(whole) - 1, len(whole) - 30, *rng.integers(0, len(whole), 150).tolist()}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        verdict = verify_file(path)
        assert not verdict.ok, f"a flipped bit in byte {place} of {len(whole)} passed"
        assert verdict.problem
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not verify_file(path).ok, f"a file cut to {length} of {len(whole)} bytes passed"
        assert read_identity(path) is None


def test_another_slides_file_under_this_name_is_found(tmp_path: Path, identity: Identity) -> None:
    path = write(tmp_path / "a.1.h5", identity)
    other = path.rename(tmp_path / "b.h5")
    assert "a.1" in verify_file(other).problem


def test_repair_sets_bad_files_aside(tmp_path: Path, identity: Identity) -> None:
    folder = tmp_path / "out" / "features" / "descriptor"
    good = write(folder / "a.1.h5", identity)
    bad = folder / "b.h5"
    shutil.copy(good, bad)
    leftover = folder / ".c.h5.999999999-abcd.partial"
    leftover.touch()
    for place in (tmp_path / "out", tmp_path / "out" / "features", folder):
        verdicts = {verdict.path.name: verdict.ok for verdict in verify_folder(place)}
        assert verdicts == {good.name: True, bad.name: False, leftover.name: False}
    for number in (1, 2):
        verify_folder(tmp_path / "out", repair=True)
        assert not bad.exists()
        assert not leftover.exists()
        assert len(list((folder / "quarantine").iterdir())) == number
        assert [verdict.ok for verdict in verify_folder(tmp_path / "out")] == [True]
        shutil.copy(good, bad)


def test_no_folder_or_no_files_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError):
            verify_folder(folder)


def test_foreign_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extract"):
        open_features_file(tmp_path / "none.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.zeros((3, 4), np.float32)
    with pytest.raises(InputError, match="schema"):
        open_features_file(tmp_path / "foreign.h5")
    assert not verify_file(tmp_path / "foreign.h5").ok
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError):
        open_features_file(tmp_path / "text.h5")

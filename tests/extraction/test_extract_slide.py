"""One slide from file to feature file, and every way in which that can end."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from wsi_ncmi.core.errors import IdentityConflictError, JobStoppedError
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.claims import check_conflicts
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.features import feature_path, open_features_file, thumbnail_path, tissue_path, verify_file
from wsi_ncmi.features.thumbnails import thumbnail_area, undrawn_thumbnail
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import read_geojson

GRID = GridConfig(mpp=0.5, tile_px=64)


class Faulty(Encoder):
    """The real encoder until a fault is due."""

    def __init__(self, encoder: Encoder, fault: Exception | None = None, value: float | None = None) -> None:
        self.__dict__.update(encoder.__dict__)
        self._real, self._fault, self._value = encoder, fault, value

    def _encode(self, pixels):
        if self._fault:
            raise self._fault
        features = self._real.encode(pixels)
        features[0, 0] = self._value
        return features


def test_a_slide_becomes_its_files(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    row = extract_slide(task, encoder)
    assert (row.slide_id, row.path, row.status, row.reason) == ("slide_0", "slide_0.tif", "done", "")
    assert (row.reader, row.mpp, row.mpp_source, row.failed_reads) == ("openslide", 0.5, "tiff", 0)
    path = feature_path(task.out, "descriptor", "slide_0")
    assert verify_file(path).ok
    file = open_features_file(path)
    assert file.n_tiles == row.tiles >= 25
    # Independent: the rows are the encoder's vectors of the pixels that OpenSlide itself gives at the coordinates.
    with openslide.OpenSlide(task.slide_path) as slide:
        pixels = np.stack(
            [
                np.asarray(slide.read_region((int(x), int(y)), 0, (64, 64)).convert("RGB"))
                for x, y in file.coords
            ]
        )
    np.testing.assert_array_equal(file.features, encoder.encode(pixels).astype(np.float16))
    # Raster order, and every tile lies on the drawn tissue (192..576 × 128..512), by at least a quarter of itself.
    order = np.lexsort((file.coords[:, 0], file.coords[:, 1]))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert (file.tissue_fraction >= 0.25).all()
    (outline,) = [item.polygon for item in read_geojson(tissue_path(task.out, "slide_0"))]
    assert outline.area == pytest.approx(384 * 384, rel=0.15)
    with Image.open(thumbnail_path(task.out, "slide_0")) as picture:
        assert picture.width == 512
        assert 384 < picture.height < 446  # the slide, and a legend below it
        r, g, b = picture.crop((0, 0, 512, 384)).convert("RGB").split()
        # Green of the outline is nowhere in glass or tissue.
        green = (np.asarray(g, int) - np.maximum(np.asarray(r, int), np.asarray(b, int))) > 25
        assert thumbnail_area(picture, (1024, 768)) == (512, 384)
        undrawn = np.asarray(undrawn_thumbnail(picture), int)
    assert green.sum() > 500
    assert undrawn.shape == (288, 384, 3)
    assert (undrawn[..., 1] - np.maximum(undrawn[..., 0], undrawn[..., 2]) > 25).sum() == 0


def test_the_same_command_twice_skips_and_changes_nothing(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    first = extract_slide(task, encoder)
    path = feature_path(task.out, "descriptor", "slide_0")
    before = (path.stat().st_ino, path.stat().st_mtime_ns)
    again = extract_slide(task, encoder)
    assert (again.status, again.reason) == ("skipped", "already extracted")
    assert (again.tiles, again.reader, again.mpp) == (first.tiles, first.reader, first.mpp)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_a_file_with_one_flipped_bit_is_made_anew(
    tasks, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    task = tasks()[1]
    extract_slide(task, encoder)
    path = feature_path(task.out, "descriptor", "slide_0")
    sound = path.read_bytes()
    with h5py.File(path, "r") as file:
        place = file["features"].id.get_offset() + 100
    path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
    assert extract_slide(task, encoder).status == "done"
    assert path.read_bytes() == sound
    assert "is damaged" in caplog.text
    assert "made anew" in caplog.text


def test_batch_size_changes_no_byte(tasks, encoder: Encoder, tmp_path: Path) -> None:
    files = []
    for size in (1, 7, 64):
        task = tasks(out=tmp_path / str(size))[1]
        extract_slide(task, encoder, batch_size=size)
        files.append(feature_path(task.out, "descriptor", "slide_0").read_bytes())
    assert files[0] == files[1] == files[2]


def test_no_tissue_is_done_with_no_tiles(tasks, encoder: Encoder) -> None:
    task = tasks()[0]
    row = extract_slide(task, encoder)
    assert (row.slide_id, row.status, row.reason, row.tiles) == ("empty", "done", "no tissue found", 0)
    file = open_features_file(feature_path(task.out, "descriptor", "empty"))
    assert file.features.shape == (0, encoder.info.embed_dim)
    assert verify_file(file.path).ok


def test_a_problem_of_the_inventory_is_a_failed_row(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    bad = replace(task, record=replace(task.record, problem="it is no slide", mpp_x=None, mpp_y=None))
    check_conflicts([bad], encoder.info)
    row = extract_slide(bad, encoder)
    assert (row.status, row.reason, row.mpp) == ("failed", "it is no slide", None)
    assert not task.out.exists()


def test_too_coarse_a_slide_fails_with_the_reason(tasks, encoder: Encoder) -> None:
    row = extract_slide(tasks(grid=GridConfig(mpp=0.25, tile_px=64))[1], encoder)
    assert row.status == "failed"
    assert "--allow-upsample" in row.reason


def test_features_that_cannot_be_read_are_not_written_over(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    path = feature_path(task.out, "descriptor", "slide_0")
    path.mkdir(parents=True)  # root may read whatever its permissions are; a folder is no file to anybody
    check_conflicts([task], encoder.info)
    row = extract_slide(task, encoder)
    assert (row.status, row.reason) == (
        "failed", "slide_0.h5 can't be read (Is a directory), so it is not written over; check its permissions.",
    )  # fmt: skip
    assert path.is_dir()


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".geojson", ".jpg")]


@pytest.mark.parametrize(
    ("fault", "value", "words"),
    [(RuntimeError("boom"), None, "internal error RuntimeError: boom"), (None, 1e6, "65504")],
)
def test_a_failing_encoder_costs_the_slide(tasks, encoder: Encoder, fault, value, words, caplog) -> None:
    task = tasks()[1]
    row = extract_slide(task, Faulty(encoder, fault, value))
    assert row.status == "failed"
    assert words in row.reason
    assert ("Traceback" in caplog.text) == (fault is not None)
    assert leftovers(task.out) == []
    assert extract_slide(task, encoder).status == "done"


def spoil(path: Path, corners: set[tuple[int, int]]) -> None:
    """Overwrites the stored 256-px tiles whose corners are given with bytes that no decoder takes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with path.open("r+b") as handle:
        for x, y in corners:
            offset, length = spans[(y // 256) * 4 + x // 256]
            handle.seek(offset)
            handle.write(b"\xff" * length)


def test_the_licence_of_the_weights_travels_with_the_features(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    licensed = copy.copy(encoder)
    licensed.info = replace(encoder.info, licence="GPL-3.0")
    extract_slide(task, licensed)
    assert (
        open_features_file(feature_path(task.out, "descriptor", "slide_0")).attrs["encoder_licence"]
        == "GPL-3.0"
    )
    assert extract_slide(task, encoder).status == "skipped"  # it is no part of a file's identity


def test_failed_reads_have_no_row_and_are_counted(
    tasks, encoder: Encoder, slides: Path, tmp_path: Path
) -> None:
    whole = tasks()[1]
    extract_slide(whole, encoder)
    expected = open_features_file(feature_path(whole.out, "descriptor", "slide_0"))
    root = tmp_path / "damaged"
    root.mkdir()
    shutil.copy(slides / "slide_0.tif", root)
    spoil(root / "slide_0.tif", {(256, 256)})
    (task,) = tasks(root=root, out=tmp_path / "some")
    row = extract_slide(task, encoder)
    # The spoilt tile of 256 px holds 16 of the grid's, none of which straddles its border.
    assert (row.status, row.failed_reads) == ("done", 16)
    assert row.reason.endswith(f"16 of {row.tiles + 16} tiles can't be read and have no row")
    file = open_features_file(feature_path(task.out, "descriptor", "slide_0"))
    assert file.attrs["n_failed_reads"] == 16
    assert verify_file(file.path).ok
    place = {tuple(corner): number for number, corner in enumerate(expected.coords.tolist())}
    # The hole moves the mask's outline a little, so tiles at the border may be others; every one is as before.
    kept = [place[tuple(corner)] for corner in file.coords.tolist()]
    assert len(kept) == row.tiles >= 15
    np.testing.assert_array_equal(file.features, expected.features[kept])
    corners = expected.coords[kept]
    assert not ((corners >= 256) & (corners < 512)).all(axis=1).any()
    # What can't be read counts as tissue; here that is all there is, and glass.
    spoil(root / "slide_0.tif", {(x, y) for x in (0, 256, 512) for y in (0, 256, 512)})
    (task,) = tasks(root=root, out=tmp_path / "none")
    row = extract_slide(task, encoder)
    assert row.status == "failed"
    assert "can be read" in row.reason
    assert not feature_path(task.out, "descriptor", "slide_0").exists()


def test_another_identity_is_never_written_over_unasked(tasks, encoder: Encoder) -> None:
    extract_slide(tasks()[1], encoder)
    path = feature_path(tasks()[1].out, "descriptor", "slide_0")
    before = path.read_bytes()
    other = GridConfig(mpp=1.0, tile_px=64)
    for refuse in (
        lambda: check_conflicts(tasks(grid=other), encoder.info),
        lambda: extract_slide(tasks(grid=other)[1], encoder),
    ):
        with pytest.raises(IdentityConflictError, match="overwrite") as caught:
            refuse()
        assert "0.5 there, 1.0 here" in str(caught.value)
    assert path.read_bytes() == before
    check_conflicts(tasks(grid=other, overwrite=True), encoder.info)
    assert extract_slide(tasks(grid=other, overwrite=True)[1], encoder).status == "done"
    assert open_features_file(path).attrs["mpp_target"] == 1.0


def test_a_damaged_file_is_made_anew(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    extract_slide(task, encoder)
    path = feature_path(task.out, "descriptor", "slide_0")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert extract_slide(task, encoder).status == "done"
    assert path.read_bytes() == whole


def test_what_killed_writers_left_goes(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    path = feature_path(task.out, "descriptor", "slide_0")
    path.parent.mkdir(parents=True)
    left = path.parent / ".slide_0.h5.999999999-abcd.partial"
    other = path.parent / ".slide_00.h5.999999999-abcd.partial"
    for file in (left, other):
        file.touch()
    (path.parent / ".claims").mkdir()
    (path.parent / ".claims" / "slide_0").write_text(json.dumps({"token": "t", "host": "", "pid": 1}))
    os.utime(path.parent / ".claims" / "slide_0", (1, 1))
    assert extract_slide(task, encoder).status == "done"
    assert not left.exists()
    assert other.exists()  # that slide may be in another's hands
    assert list((path.parent / ".claims").iterdir()) == []


def test_a_slide_in_other_hands_is_left_alone(tasks, encoder: Encoder) -> None:
    from wsi_ncmi.extraction.claims import claim

    task = tasks()[1]
    folder = feature_path(task.out, "descriptor", "x").parent / ".claims"
    folder.mkdir(parents=True)
    with claim(folder / "slide_0"):
        row = extract_slide(task, encoder)
    assert (row.status, row.reason) == ("skipped", "another process is extracting it")
    assert not feature_path(task.out, "descriptor", "slide_0").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_storage_that_fails_stops_the_job(tasks, encoder: Encoder, monkeypatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    task = tasks()[1]
    monkeypatch.setattr("wsi_ncmi.core.files.os.replace", fail)
    with pytest.raises(JobStoppedError, match=os.strerror(code)):
        extract_slide(task, encoder)
    monkeypatch.undo()
    assert leftovers(task.out) == []
    assert extract_slide(task, encoder).status == "done"


def test_an_output_that_is_no_folder_stops_the_job(tasks, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(JobStoppedError, match="out"):
        extract_slide(tasks()[1], encoder)


@pytest.mark.real_data
def test_a_real_slide(real_data: Path, tasks, encoder: Encoder, tmp_path: Path) -> None:
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    (task,) = tasks(root=slide, grid=GridConfig(mpp=0.5))
    row = extract_slide(task, encoder)
    assert row.status == "done"
    assert row.mpp == pytest.approx(0.499)
    file = open_features_file(feature_path(task.out, "descriptor", "CMU-1-Small-Region"))
    assert file.n_tiles == row.tiles > 20
    with openslide.OpenSlide(slide) as real:
        assert (file.coords_attrs["level0_width"], file.coords_attrs["level0_height"]) == real.dimensions

"""Levels of DICOM series, however their frames are stored, against wsidicom, OpenSlide and the tiles themselves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import wsidicom
from numpy.typing import NDArray

from tests.slides.dicom_slide import cut, encode, write_level
from tests.tiling.conftest import texture
from wsi_ncmi.core.errors import SlideOpenError, SlideReadError
from wsi_ncmi.slides import open_slide
from wsi_ncmi.slides.dicom_frames import dicom_levels
from wsi_ncmi.slides.dicom_reader import DicomSlide

Image8 = NDArray[np.uint8]
EDGE = 64
PIXELS = texture(170, 200)
TILES = cut(PIXELS, EDGE)
SIZE = 170, 200


def write(folder: Path, kind: str, parts: int = 1, **options: Any) -> list[Path]:
    """A level in some parts, each in a file."""
    frames = [encode(tile, kind) for tile in TILES]
    bounds = np.linspace(0, len(frames), parts + 1).astype(int).tolist()
    paths = []
    for number, (start, stop) in enumerate(itertools.pairwise(bounds), 1):
        path = folder / f"{number}.dcm"
        part = (number, parts, start) if parts > 1 else None
        write_level(path, frames[start:stop], SIZE, EDGE, kind=kind, part=part, **options)
        paths.append(path)
    return paths


def by_wsidicom(folder: Path) -> Image8:
    with wsidicom.WsiDicom.open(folder) as slide:
        return np.asarray(slide.read_region((0, 0), 0, SIZE))[:, :, :3]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("offsets", ["basic", "extended", "empty"])
@pytest.mark.parametrize("kind", ["jpeg", "j2k-lossless"])
def test_frames_are_found_by_every_table_and_order(
    tmp_path: Path, kind: str, offsets: str, sparse: bool, parts: int
) -> None:
    paths = write(tmp_path, kind, parts, offsets=offsets, sparse=sparse)
    with DicomSlide(paths[0], paths) as slide:
        ours = slide.read_region(0, 0, 0, *SIZE)
    np.testing.assert_array_equal(ours, by_wsidicom(tmp_path))
    if kind != "jpeg":
        np.testing.assert_array_equal(ours, PIXELS)


@pytest.mark.parametrize("kind", ["none", "implicit", "jpegls", "jpegls-lossy", "j2k"])
def test_every_syntax_gives_wsidicoms_pixels(tmp_path: Path, kind: str) -> None:
    (path,) = write(tmp_path, kind)
    with open_slide(path) as slide:
        ours = slide.read_region(0, 0, 0, *SIZE)
        assert slide.reader == ("openslide" if kind in ("none", "j2k") else "dicom")
        assert slide.properties["openslide.mpp-x"] == "0.25"
    np.testing.assert_array_equal(ours, by_wsidicom(tmp_path))
    if kind in ("none", "implicit", "jpegls"):
        np.testing.assert_array_equal(ours, PIXELS)


def test_planes_of_one_colour_are_read(tmp_path: Path) -> None:
    frames = [np.ascontiguousarray(tile.transpose(2, 0, 1)).tobytes() for tile in TILES]
    write_level(tmp_path / "a.dcm", frames, SIZE, EDGE, kind="none", PlanarConfiguration=1)
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.reader == "dicom"
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, *SIZE), PIXELS)


def test_places_and_levels_are_openslides(tmp_path: Path) -> None:
    for number in (1, 2):
        pixels = np.ascontiguousarray(PIXELS[::number, ::number])
        frames = [encode(tile, "jpeg") for tile in cut(pixels, EDGE)]
        write_level(
            tmp_path / f"{number}.dcm", frames, pixels.shape[1::-1], EDGE, kind="jpeg", uid=f"1.2.77.{number}",
            mpp=0.25 * number,
        )  # fmt: skip
    files = sorted(tmp_path.iterdir())
    with DicomSlide(files[1], files) as ours, openslide.OpenSlide(files[0]) as theirs:
        assert ours.level_dimensions == theirs.level_dimensions
        assert ours.level_downsamples == theirs.level_downsamples
        for corner, level, size in (
            ((-30, -20), 0, (250, 260)),
            ((20, 40), 1, (50, 40)),
            ((150, 190), 1, (40, 30)),
        ):
            expected = np.asarray(theirs.read_region(corner, level, size))
            np.testing.assert_array_equal(np.asarray(ours.read_region(corner, level, size)), expected)


def test_places_without_a_frame_are_transparent_as_in_openslide(tmp_path: Path) -> None:
    frames = [None if index in (0, 4) else encode(tile, "jpeg") for index, tile in enumerate(TILES)]
    path = tmp_path / "a.dcm"
    write_level(path, frames, SIZE, EDGE, kind="jpeg", sparse=True)
    with DicomSlide(path) as ours, openslide.OpenSlide(path) as theirs:
        expected = np.asarray(theirs.read_region((0, 0), 0, SIZE))
        np.testing.assert_array_equal(np.asarray(ours.read_region((0, 0), 0, SIZE)), expected)
        assert (expected[:EDGE, :EDGE, 3] == 0).all()


def test_frames_of_several_fragments_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write_level(path, [encode(tile, "jpegls") for tile in TILES], SIZE, EDGE, kind="jpegls")
    from pydicom import dcmread
    from pydicom.encaps import encapsulate, generate_frames

    file = dcmread(path)
    file.PixelData = encapsulate(list(generate_frames(file.PixelData, number_of_frames=len(TILES))), 3)
    file.save_as(path)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, *SIZE), PIXELS)
    file.PixelData = file.PixelData.replace(
        file.PixelData[: 8 + 4 * len(TILES)], b"\xfe\xff\x00\xe0" + bytes(4), 1
    )
    file.save_as(path)
    with pytest.raises(SlideOpenError, match=r"36 pieces for 12 frames, and no table of their places"):
        open_slide(path)


def test_frames_cut_at_the_edges_are_read(tmp_path: Path) -> None:
    """As converters write them that double tiles of half the side; OpenSlide refuses such frames."""
    frames = [encode(np.ascontiguousarray(tile[: 32 if row == 3 else EDGE]), "j2k-lossless")
              for row in range(4) for tile in TILES[3 * row : 3 * row + 3]]  # fmt: skip
    path = tmp_path / "a.dcm"
    write_level(path, frames, SIZE, EDGE, kind="j2k-lossless")
    with open_slide(path) as slide:
        assert "openslide refuses it (it does not read frames of the level of 170 × 200 px" in slide.note
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, *SIZE), PIXELS)
    frames[11] = encode(np.ascontiguousarray(TILES[11][:4]), "j2k-lossless")
    write_level(path, frames, SIZE, EDGE, kind="j2k-lossless")
    with open_slide(path, compare_levels=False) as slide, pytest.raises(SlideReadError, match=r"\(4, 64"):
        slide.read_region(150, 190, 0, 20, 10)


def test_of_two_copies_of_a_file_the_one_that_was_asked_for_counts(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "none")
    other = tmp_path / "other.dcm"
    write_level(other, [bytes(EDGE * EDGE * 3)] * 12, SIZE, EDGE, kind="none")
    with DicomSlide(other, [other, path]) as slide:
        assert not slide.read_region(0, 0, 0, *SIZE).any()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "thumbnail": ({"ImageType": ["ORIGINAL", "PRIMARY", "THUMBNAIL", "NONE"]}, "none of its objects is said to"),
    "no image type": ({"ImageType": None}, "none of its objects is said to show the slide"),
    "focal planes": ({"TotalPixelMatrixFocalPlanes": 3}, "3 focal planes, not 1"),
    "optical paths": ({"NumberOfOpticalPaths": 2}, "2 optical paths, not 1"),
    "16 bits": ({"BitsAllocated": 16}, "16 bits a sample, not 8"),
    "grey": ({"SamplesPerPixel": 1}, "1 samples a pixel, not 3"),
    "palette": ({"photometric": "PALETTE COLOR"}, "its colours are PALETTE COLOR, not RGB"),
    "no size": ({"TotalPixelMatrixRows": None}, "a.dcm does not say its TotalPixelMatrixRows"),
    "no side": ({"Rows": 0}, "a.dcm has sides of 0 px"),
    "frames": ({"NumberOfFrames": 13}, "a.dcm has 13 frames that don't fit its 12 tiles"),
    "too few": ({"NumberOfFrames": 11, "offsets": "empty"}, "a.dcm has 12 pieces for 11 frames"),
    "parts": ({"part": (1, 2, 0)}, "has 2 parts, of which 1 are here"),
    "no places": ({"DimensionOrganizationType": "TILED_SPARSE"}, "a.dcm does not say where its frames lie"),
    "other class": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "another kind than a whole-slide image"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_is_refused_in_words(tmp_path: Path, what: str) -> None:
    options, said = REFUSED[what]
    path = tmp_path / "a.dcm"
    write_level(path, [encode(tile, "jpeg") for tile in TILES], SIZE, EDGE, kind="jpeg", **options)
    with pytest.raises(SlideOpenError, match=said):
        DicomSlide(path)


def spoil(file: Any, what: str) -> None:
    """Changes a sparse object in memory."""
    if what == "syntax":
        file.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    places = [group.PlanePositionSlideSequence[0] for group in file.PerFrameFunctionalGroupsSequence]
    if what == "grid":
        places[3].ColumnPositionInTotalImagePixelMatrix += 5
    if what == "twice":
        places[3].ColumnPositionInTotalImagePixelMatrix = places[4].ColumnPositionInTotalImagePixelMatrix
    if what == "outside":
        places[3].RowPositionInTotalImagePixelMatrix = 64 * 9 + 1


@pytest.mark.parametrize(
    ("what", "said"),
    [("grid", "lie on no grid"), ("twice", "several frames in one place"), ("outside", "don't fit its 12 tiles"),
     ("syntax", "its frames are RLE Lossless, which isn't read")],
)  # fmt: skip
def test_frames_in_odd_places_or_of_other_syntaxes_are_refused(tmp_path: Path, what: str, said: str) -> None:
    from pydicom import dcmread

    (path,) = write(tmp_path, "jpeg", sparse=True)
    file = dcmread(path)
    spoil(file, what)
    file.save_as(path)
    with pytest.raises(SlideOpenError, match=said):
        DicomSlide(path)


@pytest.mark.parametrize(
    ("kind", "offsets"), [("none", ""), ("jpeg", "basic"), ("jpeg", "empty"), ("jpeg", "extended")]
)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, offsets: str) -> None:
    (path,) = write(tmp_path, kind, offsets=offsets)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(
        SlideOpenError, match=r"is cut off|ends before its pixels|don't follow one another|pieces for"
    ):
        open_slide(path)


def test_two_levels_of_one_size_are_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        frames = [encode(tile, "jpegls") for tile in TILES]
        write_level(tmp_path / f"{number}.dcm", frames, SIZE, EDGE, kind="jpegls", uid=f"1.2.77.{number}")
    with pytest.raises(SlideOpenError, match="several levels of 170 × 200 px"):
        open_slide(tmp_path / "1.dcm")


def test_a_wrong_place_in_the_table_is_a_failed_read(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "jpegls")
    (level,) = dicom_levels([path])
    level.offsets[5] += 2
    with pytest.raises(ValueError, match="no frame lies where the table of offsets says"):
        level.read(5)
    level.offsets[5] = path.stat().st_size
    with pytest.raises(ValueError, match="ends inside the frame"):
        level.read(5)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "reader"),
    [("camelyon_multiframe_jpeg", "openslide"), ("camelyon_multiframe_jpeg2000", "openslide"),
     ("highdicom_sm_image", "openslide"), ("highdicom_sm_image_jpegls", "dicom"),
     ("highdicom_sm_annotations", ""), ("libvips_dicom_test_image", ""), ("wsi_annotation", "")],
)  # fmt: skip
def test_real_files_are_read_right_or_refused(real_data: Path, name: str, reader: str) -> None:
    path = real_data / "dicom" / f"{name}.dcm"
    if not reader:
        with pytest.raises(SlideOpenError, match="is DICOM, but no whole-slide image"):
            open_slide(path)
        return
    with open_slide(path, compare_levels=False) as slide, DicomSlide(path) as ours:
        assert slide.reader == reader
        size = min(slide.width_px, 300), min(slide.height_px, 300)
        pixels = ours.read_region(0, 0, 0, *size)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, *size), pixels)
    if "highdicom" in name:
        import highdicom

        whole = highdicom.imread(path).get_total_pixel_matrix(dtype=np.uint8, apply_icc_profile=False)
        np.testing.assert_array_equal(pixels, whole)

"""False photometric interpretations: right colours, or a refusal; never wrong colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.slides.dicom_slide import encode, write_level
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import open_slide
from wsi_ncmi.slides.dicom_colours import true_colours
from wsi_ncmi.slides.dicom_frames import dicom_levels

EDGE = 96
DECLARED = ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"]


def stained() -> NDArray[np.uint8]:
    """Glass, eosin and nuclei, by absorption."""
    rng = np.random.default_rng(4)
    eosin = np.asarray(Image.fromarray(rng.random((6, 6)).astype(np.float32)).resize((EDGE, EDGE)))
    nuclei = np.asarray(Image.fromarray(rng.random((16, 16)).astype(np.float32) ** 4).resize((EDGE, EDGE)))
    density = eosin[..., None] * [0.1, 0.8, 0.35] + nuclei[..., None] * [1.2, 1.4, 0.7]
    return np.uint8(243 * np.exp(-density) + rng.normal(0, 1, density.shape))


TILE = stained()
YCBCR = np.asarray(Image.fromarray(TILE).convert("YCbCr"))


def jpeg(*, ycbcr: bool, marked: bool, subsampling: int = 0) -> bytes:
    """A JPEG of one kind, with or without the markers that tell it."""
    stream = io.BytesIO()
    if ycbcr:
        Image.fromarray(TILE).save(stream, "JPEG", quality=95, subsampling=subsampling)
    else:
        Image.fromarray(TILE).save(stream, "JPEG", quality=95, keep_rgb=True)
    data, position = stream.getvalue(), 2
    if marked:
        return data
    while 0xE0 <= data[position + 1] <= 0xEF:
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    data = data[:2] + data[position:]
    for name, number in zip(b"RGB", (1, 2, 3), strict=True) if not ycbcr else ():
        # Components named 1, 2, 3, as most encoders do: in the frame's header and in that of the scan.
        data = data.replace(bytes([name, 0x11]), bytes([number, 0x11]), 1).replace(
            bytes([name, 0x00]), bytes([number, 0x00]), 1
        )
    return data


JPEGS = {
    "YCbCr with JFIF": jpeg(ycbcr=True, marked=True), "YCbCr": jpeg(ycbcr=True, marked=False),
    "YCbCr 4:2:0": jpeg(ycbcr=True, marked=False, subsampling=2), "RGB with Adobe": jpeg(ycbcr=False, marked=True),
    "RGB": jpeg(ycbcr=False, marked=False),
}  # fmt: skip
JPEG_2000 = {
    "reversible transform": encode(TILE, "j2k-lossless"), "irreversible transform": encode(TILE, "j2k"),
    "RGB": encode(TILE, "j2k-lossless", mct=False), "YCbCr": encode(YCBCR, "j2k-lossless", mct=False),
}  # fmt: skip
OTHERS = {
    ("jpegls", "RGB"): encode(TILE, "jpegls"), ("jpegls", "YCbCr"): encode(YCBCR, "jpegls"),
    ("none", "RGB"): TILE.tobytes(), ("none", "YCbCr"): YCBCR.tobytes(),
}  # fmt: skip
STREAMS = {("jpeg", n): s for n, s in JPEGS.items()} | {("j2k", n): s for n, s in JPEG_2000.items()} | OTHERS


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize(("kind", "stream"), STREAMS)
def test_colours_are_right_whatever_the_file_says(
    tmp_path: Path, kind: str, stream: str, declared: str
) -> None:
    path = tmp_path / "a.dcm"
    write_level(path, [STREAMS[kind, stream]], (EDGE, EDGE), EDGE, kind=kind, photometric=declared)
    if kind == "none" and declared not in ("RGB", "YBR_FULL"):
        with pytest.raises(SlideOpenError, match=f"its colours are {declared}, not RGB"):
            open_slide(path)
        return
    with open_slide(path) as slide:
        found = slide.read_region(0, 0, 0, EDGE, EDGE).astype(int)
        reader, note = slide.reader, slide.note
    assert np.abs(found - TILE).mean() < 3
    try:
        with openslide.OpenSlide(path) as other:
            theirs = np.asarray(other.read_region((0, 0), 0, (EDGE, EDGE)))[..., :3].astype(int)
    except openslide.OpenSlideError:
        assert reader == "dicom"
        return
    # OpenSlide is used if and only if it is right.
    right = np.abs(theirs - TILE).mean() < 3
    assert reader == ("openslide" if right else "dicom")
    assert ("would show wrong colours" in note) == (not right)


@pytest.mark.parametrize(("kind", "stream"), [("j2k", "grey"), ("jpeg", "grey")])
def test_what_contradicts_itself_and_has_no_colours_to_tell_is_refused(
    tmp_path: Path, kind: str, stream: str
) -> None:
    grey = np.full((EDGE, EDGE, 3), 128, np.uint8)
    data, declared = (
        (encode(grey, "j2k", mct=False), "YBR_ICT") if kind == "j2k" else (encode(grey, kind), "RGB")
    )
    path = tmp_path / "a.dcm"
    write_level(path, [data], (EDGE, EDGE), EDGE, kind=kind, photometric=declared)
    with pytest.raises(
        SlideOpenError, match=f"says {declared}, its frames say otherwise, and its pixels don't tell"
    ):
        open_slide(path)


def test_levels_have_colours_of_their_own(tmp_path: Path) -> None:
    """A converter copies the frames of the first level, which are RGB, and encodes YCbCr for the others."""
    for number, stream in ((1, JPEGS["RGB with Adobe"]), (2, JPEGS["YCbCr with JFIF"])):
        write_level(
            tmp_path / f"{number}.dcm", [stream] * (4 // number**2), (2 * EDGE // number,) * 2, EDGE, kind="jpeg",
            photometric="RGB", uid=f"1.2.77.{number}",
        )  # fmt: skip
    with open_slide(tmp_path / "1.dcm", compare_levels=False) as slide:
        assert "the level of 96 × 96 px says RGB, but its frames give YCbCr" in slide.note
        for level in (0, 1):
            assert np.abs(slide.read_region(0, 0, level, EDGE, EDGE).astype(int) - TILE).mean() < 3


@pytest.mark.parametrize("data", [b"\0\0", b"\xff\xd8\xff", b"\xff\x4f\xff\x51", bytes(100)])
@pytest.mark.parametrize("kind", ["jpeg", "j2k", "jpegls"])
def test_frames_that_tell_nothing_leave_what_the_file_says(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "a.dcm"
    write_level(path, [data], (EDGE, EDGE), EDGE, kind=kind, photometric="RGB")
    assert true_colours(dicom_levels([path])[0]) == "RGB"

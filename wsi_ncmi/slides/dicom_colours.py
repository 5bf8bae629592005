"""Colours of DICOM frames: RGB or YCbCr, whatever the file says.

A file declares a photometric interpretation, and some declare a false one: converters that copy frames of one
kind and encode others, or that write YBR_ICT of streams without that transform. A reader that believes it
shows other colours. What a stream itself proves comes first; where stream and file disagree, or nothing but
the file speaks, the pixels decide: YCbCr of a picture lies within the colours that RGB has, while the RGB of
tissue and glass, taken for YCbCr, lies outside for a third of the pixels and more (0.33 to 1 in 692 regions
of 112 px of five centres and of lung tiles; YCbCr at most 0.07, of JPEG of quality 30).
"""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.dicom_frames import JPEG, JPEG_2000, NATIVE, DicomLevel
from wsi_ncmi.slides.tile_decoders import (
    Decoder,
    decode_cut,
    jpeg2000_decoder,
    jpeg_decoder,
    jpegls_decoder,
    plain_decoder,
)  # fmt: skip

ColourSpace = Literal["RGB", "YCbCr"]
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_FRAMES, _STEP = 6, 3
# Share of pixels outside of RGB, by so many grey levels, if taken for YCbCr.
_YCBCR_MOST, _RGB_LEAST, _MARGIN = 0.1, 0.25, 8.0
_LEAST_SPREAD = 4.0


def level_decoder(level: DicomLevel) -> Decoder:
    """The decoder of a level's frames, by their true colours.

    Raises:
        SlideOpenError: Their kind isn't read, or their colours can't be told; half a sentence.
        OSError: A frame can't be read.
    """
    return _decoder(level, true_colours(level))


def _decoder(level: DicomLevel, colours: ColourSpace) -> Decoder:
    ycbcr = colours == "YCbCr"
    if level.syntax == JPEG:
        return jpeg_decoder(None, ycbcr=ycbcr)
    if level.syntax in JPEG_2000:
        return jpeg2000_decoder(ycbcr=ycbcr)
    if level.syntax in _JPEG_LS:
        return jpegls_decoder(ycbcr=ycbcr)
    if level.syntax in NATIVE:
        return plain_decoder(planar=level.planar, ycbcr=ycbcr)
    from pydicom.uid import UID

    raise SlideOpenError(f"its frames are {UID(level.syntax).name}, which isn't read")


def declared_colours(level: DicomLevel) -> ColourSpace:
    """What the file says.

    Raises:
        SlideOpenError: It says neither, as of grey pictures and palettes; half a sentence.
    """
    if level.photometric == "RGB":
        return "RGB"
    # Chroma of every second pixel, without compression, has a layout of its own.
    if level.photometric.startswith("YBR_") and (level.encapsulated or level.photometric == "YBR_FULL"):
        return "YCbCr"
    raise SlideOpenError(f"its colours are {level.photometric or 'of no stated kind'}, not RGB")


def true_colours(level: DicomLevel) -> ColourSpace:
    """What the components of a level's decoded frames are.

    JPEG 2000's own transforms (YBR_ICT, YBR_RCT) are undone by decoders: what they give is RGB.

    Raises:
        SlideOpenError: That can't be told; half a sentence.
        OSError: A frame can't be read.
    """
    declared = declared_colours(level)
    present = np.flatnonzero(level.byte_counts)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, _FRAMES).round().astype(np.int64))]
    if not len(present):
        return declared
    proven, said = _stated(level, level.read(int(chosen[0])))
    if proven is not None:
        return proven
    if said == declared:
        return said
    found = _by_pixels(level, chosen.tolist())
    contradicted = said is not None or level.photometric in ("YBR_ICT", "YBR_RCT")
    if found is None and contradicted:
        raise SlideOpenError(
            f"its level of {level.width_px} × {level.height_px} px says {level.photometric}, its frames say "
            "otherwise, and its pixels don't tell"
        )
    return found or declared


def openslide_colours(level: DicomLevel) -> ColourSpace:
    """What OpenSlide takes the components of decoded frames for."""
    return declared_colours(level) if level.syntax == JPEG else "RGB"


def _stated(level: DicomLevel, stream: bytes) -> tuple[ColourSpace | None, ColourSpace | None]:
    """What a stream proves of its components, and what it says of them."""
    try:
        if level.syntax == JPEG:
            return _stated_by_jpeg(stream)
        if level.syntax in JPEG_2000:
            # Behind style, order and layers: the transform of components (ITU-T T.800, A.6.1).
            transformed = stream[stream.index(b"\xff\x52") + 8]
            steps = stream[43 : 42 + 3 * int.from_bytes(stream[40:42])]
            subsampled = set(steps[0::3] + steps[1::3]) != {1}
            return ("YCbCr" if subsampled else "RGB" if transformed else None), None
    except (IndexError, ValueError, struct.error):
        pass  # a damaged frame proves nothing, and fails where it is needed
    return None, None


def _stated_by_jpeg(stream: bytes) -> tuple[ColourSpace | None, ColourSpace | None]:
    """By subsampled chroma; by Adobe's marker, JFIF, or the names of components (ITU-T T.81, B.2; T.871)."""
    said: ColourSpace | None = None
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        content = stream[position + 4 : position + 2 + length]
        if marker == 0xFFE0 and content.startswith(b"JFIF"):
            said = said or "YCbCr"
        elif marker == 0xFFEE and content.startswith(b"Adobe"):
            said = "YCbCr" if content[11] else "RGB"
        elif 0xFFC0 <= marker <= 0xFFC2:
            names, steps = content[6::3], set(content[7::3])
            return ("YCbCr" if len(steps) > 1 else None), said or ("RGB" if names == b"RGB" else None)
        position += 2 + length


def _by_pixels(level: DicomLevel, tiles: list[int]) -> ColourSpace | None:
    """What the components of some frames can be; None where they don't tell."""
    decoder = _decoder(level, "RGB")
    found = []
    for index in tiles:
        out = np.empty((level.tile_height_px, level.tile_width_px, 3), np.uint8)
        height, width = level.size_of(index)
        try:
            decode_cut(decoder, level.read(index), out, (height, width))
        except Exception:  # noqa: S112 - decoders raise what they like; a damaged frame tells nothing
            continue
        found.append(out[:height:_STEP, :width:_STEP].reshape(-1, 3))
    values = np.concatenate(found).astype(np.float32) if found else np.empty((0, 3), np.float32)
    if not len(values) or values[:, 0].std() < _LEAST_SPREAD:
        return None
    share = _outside(values)
    return "RGB" if share > _RGB_LEAST else "YCbCr" if share < _YCBCR_MOST else None


def _outside(values: NDArray[np.float32]) -> float:
    """Share of colours (n, 3) that no RGB has, if they are YCbCr (ITU-T T.871, 7)."""
    y, blue, red = values[:, 0], values[:, 1] - 128, values[:, 2] - 128
    rgb = np.stack((y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue))
    return float(((rgb < -_MARGIN) | (rgb > 255 + _MARGIN)).any(axis=0).mean())

"""JPEG and JPEG 2000 tiles of TIFF files to RGB, as OpenSlide decodes them.

Decoders chosen by measurement (256 px, q80, 4:2:0, one Zen 4 core): simplejpeg (libjpeg-turbo) 5,140 tiles/s
into a given buffer, imagecodecs 3,920, Pillow 2,900, all with identical pixels. simplejpeg also refuses a
stream that ends early, where imagecodecs fills the rest of the tile with grey and says nothing. JPEG 2000 is
OpenJPEG through imagecodecs, which makes pixels of any bytes: what it is given is examined first.
"""

import functools
from dataclasses import dataclass
from typing import Protocol

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.slides.jpeg2000 import holds_ycbcr, jpeg2000_damage, jpeg2000_frame


class Decoder(Protocol):
    """Decodes one stored tile into a C-contiguous uint8 (h, w, 3) RGB array; raises whatever on bad data."""

    def __call__(self, data: bytes, out: NDArray[np.uint8], /) -> None:
        """Writes the pixels of a stored tile into ``out``."""


_START, _END = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True)
class JpegDecoder:
    """Decodes JPEG tiles; made by :func:`jpeg_decoder`.

    Attributes:
        head: Start of every tile's stream: colour transform and shared tables.
        factor: 1, or 2, 4 or 8 to reduce tiles while decoding: the inverse cosine transform is computed for
            blocks of 4, 2 or 1 px a side in place of 8. That is near the area mean, but not equal to it.
    """

    head: bytes
    factor: int = 1

    def __call__(self, data: bytes, out: NDArray[np.uint8], /) -> None:
        """Decodes a tile into an array of its size, or of ``1 / factor`` of its sides."""
        stream = self.head + _after_application_markers(data)
        # Least sides that the result must have: they make libjpeg-turbo choose the factor.
        height, width = out.shape[:2] if self.factor > 1 else (0, 0)
        pixels = simplejpeg.decode_jpeg(
            stream, "RGB", fastdct=False, fastupsample=False, min_height=height, min_width=width,
            min_factor=self.factor, buffer=out, strict=True,
        )  # fmt: skip
        _check_shape(pixels.shape, out.shape)


def jpeg_decoder(tables: bytes | None, *, ycbcr: bool) -> JpegDecoder:
    """Decoder of JPEG tiles.

    Args:
        tables: Content of the JPEGTables tag (an abbreviated stream with the quantisation and Huffman tables
            that the tiles share), None where tiles carry their own.
        ycbcr: Photometric interpretation of the directory: YCbCr, or RGB stored without a transform.
            OpenSlide goes by it whatever the tile's own markers say, and so does this.
    """
    # An Adobe marker is how a JPEG states its colour transform to every decoder.
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x01" if ycbcr else b"\x00")
    shared = b""
    if tables:
        shared = _after_application_markers(tables.removesuffix(_END))
    return JpegDecoder(_START + adobe + shared)


def _after_application_markers(data: bytes) -> bytes:
    """The stream behind its start and the JFIF, Adobe and other application markers that follow it."""
    if not data.startswith(_START):
        raise ValueError("the tile is no JPEG")
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and 0xE0 <= data[position + 1] <= 0xEF:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data[position:]


def jpeg2000_decoder(*, ycbcr: bool) -> Decoder:
    """Decoder of Aperio's JPEG 2000 tiles.

    Args:
        ycbcr: Compression 33003 (YCbCr components without a transform of their own); False = 33005, RGB.
    """
    return functools.partial(_decode_jpeg2000, ycbcr)


def tiff_jpeg2000_decoder(compression: int, photometric: int) -> Decoder:
    """Decoder of JPEG 2000 tiles of TIFF files that are not Aperio's, by the numbers of their directory."""

    def decode(data: bytes, out: NDArray[np.uint8], /) -> None:
        _decode_jpeg2000(holds_ycbcr(data, compression, photometric), data, out)

    return decode


def _decode_jpeg2000(ycbcr: bool, data: bytes, out: NDArray[np.uint8]) -> None:
    # The decoder takes memory for whatever size the stream claims: that is looked at first.
    size, steps = jpeg2000_frame(data)
    _check_shape(size, out.shape[:2])
    if reason := jpeg2000_damage(data):
        raise ValueError(reason)
    subsampled = any(step != (1, 1) for step in steps)
    if subsampled and not ycbcr:
        raise ValueError("the tile has components of different sizes that are no YCbCr")
    pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    _check_shape(pixels.shape, out.shape)
    if pixels.dtype != np.uint8:
        raise ValueError(f"the tile has {pixels.dtype} samples instead of 8 bits")
    # Subsampled chroma tells the decoder that it is YCbCr, and it gives RGB itself.
    if ycbcr and not subsampled:
        pixels = np.asarray(Image.frombytes("YCbCr", out.shape[1::-1], pixels.tobytes()).convert("RGB"))
    out[...] = pixels


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(f"the tile has the shape {found} instead of {expected}")

"""Encoded tiles to RGB, as OpenSlide decodes them: JPEG and JPEG 2000 of TIFF and DICOM, JPEG-LS of DICOM.

Decoders chosen by measurement (256 px, q80, 4:2:0, one Zen 4 core): simplejpeg (libjpeg-turbo) 5,140 tiles/s
into a given buffer, imagecodecs 3,920, Pillow 2,900, all with identical pixels. simplejpeg also refuses a
stream that ends early, where imagecodecs fills the rest of the tile with grey and says nothing. JPEG 2000 is
OpenJPEG through imagecodecs, which makes pixels of any bytes: what it is given is examined first.
"""

import functools
import math
import re
import struct
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


def pixel_array(*shape: int) -> NDArray[np.uint8]:
    """An array for pixels, of any content, at an address where JPEG decoding is fastest.

    libjpeg-turbo writes rows that begin at multiples of 32 bytes past the processor's cache (its colour
    conversion with AVX2): that takes 8 % longer, and what reads them next waits for them.

    Args:
        shape: Its shape.

    Returns:
        uint8 array of that shape, whose address is 16 more than a multiple of 32.
    """
    size = math.prod(shape)
    memory = np.empty(size + 31, np.uint8)
    start = (16 - memory.ctypes.data) % 32
    return memory[start : start + size].reshape(shape)


class OtherSizeError(ValueError):
    """The stream is of another size than the tile.

    Attributes:
        found: Its height and width.
    """

    def __init__(self, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        super().__init__(f"the tile has the shape {found} instead of {expected}")
        self.found = found[0], found[1]


def decode_cut(decoder: Decoder, data: bytes, out: NDArray[np.uint8], least: tuple[int, int]) -> None:
    """Decodes a tile that may be cut on the right and at the bottom, as some DICOM writers cut it.

    Args:
        decoder: Its decoder.
        data: The stream.
        out: uint8 (h, w, 3), C-contiguous; what a cut tile lacks becomes white.
        least: Height and width from its corner to the level's end: so much of it has to be there.

    Raises:
        Exception: It can't be decoded, or has less than that.
    """
    try:
        decoder(data, out)
    except OtherSizeError as other:
        height, width = other.found
        if not all(
            min(needed, full) <= side <= full
            for needed, side, full in zip(least, other.found, out.shape[:2], strict=True)
        ):
            raise
        part = np.empty((height, width, 3), np.uint8)
        decoder(data, part)
        out[...] = 255
        out[:height, :width] = part


_START, _END = b"\xff\xd8", b"\xff\xd9"
# Start of frame: length, precision, height and width (ITU-T T.87, C.1.1 and C.2.2).
_JPEGLS_FRAME = re.compile(rb"\xff\xf7..\x08(....)", re.DOTALL)


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
        if self.factor > 1:  # of a stream of another size the decoder would choose another factor
            found = simplejpeg.decode_jpeg_header(stream)[:2]
            _check_shape(tuple(-(-side // self.factor) for side in found), out.shape[:2])
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
    # Subsampled chroma tells the decoder that it is YCbCr, and it gives RGB itself.
    _write(imagecodecs.jpeg2k_decode(data, numthreads=1), ycbcr and not subsampled, out)


def jpegls_decoder(*, ycbcr: bool) -> Decoder:
    """Decoder of JPEG-LS frames, of RGB or YCbCr."""
    return functools.partial(_decode_jpegls, ycbcr)


def plain_decoder(*, planar: bool, ycbcr: bool) -> Decoder:
    """Decoder of frames that are not compressed.

    Args:
        planar: One colour lies behind the other; else one pixel behind the other.
        ycbcr: The colours are YCbCr.
    """
    return functools.partial(_decode_plain, planar, ycbcr)


def _decode_jpegls(ycbcr: bool, data: bytes, out: NDArray[np.uint8]) -> None:
    # The decoder takes memory for whatever size the stream claims: that is looked at first.
    frame = _JPEGLS_FRAME.search(data)
    if frame is None:
        raise ValueError("the tile is no JPEG-LS")
    if not data.rstrip(b"\0").endswith(_END):  # the decoder would search for it for 17 s
        raise ValueError("the JPEG-LS tile ends early")
    _check_shape(struct.unpack(">HH", frame[1]), out.shape[:2])
    _write(imagecodecs.jpegls_decode(data), ycbcr, out)


def _decode_plain(planar: bool, ycbcr: bool, data: bytes, out: NDArray[np.uint8]) -> None:
    height, width = out.shape[:2]
    values = np.frombuffer(data, np.uint8).reshape((3, height, width) if planar else out.shape)
    _write(values.transpose(1, 2, 0) if planar else values, ycbcr, out)


def _write(pixels: NDArray[np.uint8], ycbcr: bool, out: NDArray[np.uint8]) -> None:
    """Checks what a decoder gave, and writes it as RGB."""
    _check_shape(pixels.shape, out.shape)
    if pixels.dtype != np.uint8:
        raise ValueError(f"the tile has {pixels.dtype} samples instead of 8 bits")
    if ycbcr:
        pixels = np.asarray(Image.frombytes("YCbCr", out.shape[1::-1], pixels.tobytes()).convert("RGB"))
    out[...] = pixels


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise OtherSizeError(found, expected)

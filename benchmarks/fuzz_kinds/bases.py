"""Sound slides to damage, where what lies in them, and what strict decoders make of their tiles."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from fuzz_kinds.harness import Regions
from numpy.typing import NDArray
from PIL import Image

Image8 = NDArray[np.uint8]
Stored = dict[tuple[int, int, int], Image8 | None]

SIDE_PX, TILE_PX, MPP = 768, 128, 0.5
_BATCH = 70
_CONTAINED = ("ends the process", "was not opened within", "died", "took longer", "given up")
_TABLES = (273, 279, 324, 325)
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"


@dataclass(frozen=True)
class Base:
    """A sound slide to damage.

    Attributes:
        name: Its name in the table.
        path: The file.
        options: Options of ``extract`` that it needs.
        regions: Place (header, directory, table, text, data) → offsets and lengths in the file.
        stored: Level and level pixel → what a strict decoder makes of each stored tile of a file, or None.
    """

    name: str
    path: Path
    options: tuple[str, ...]
    regions: Regions
    stored: Callable[[Path], Stored] = field(repr=False)

    @cached_property
    def tiles(self) -> Stored:
        """What the strict decoder makes of the sound file."""
        return self.stored(self.path)


Input = tuple[Base, str, str, bytes]
"""Base, name, damage in words, content."""


def picture(data: Path | None) -> Image8:
    """Tissue beside glass: of a real slide, or drawn."""
    if data is not None:
        import openslide

        with openslide.OpenSlide(data / "slides" / "CMU-1-Small-Region.svs") as slide:
            return np.asarray(slide.read_region((300, 600), 0, (SIDE_PX, SIDE_PX)))[..., :3].copy()
    rng = np.random.default_rng(0)
    pixels = np.full((SIDE_PX, SIDE_PX, 3), 243, np.uint8)
    rough = rng.normal(0, 30, (40, 40, 3)).repeat(16, 0).repeat(16, 1) + rng.normal(0, 6, (640, 640, 3))
    pixels[:640, 128:] = np.clip(np.array([190, 110, 165]) + rough, 0, 255)
    return pixels


def _streams(pixels: Image8, encode: Callable[[Image8], bytes]) -> list[bytes]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % TILE_PX), (0, -width % TILE_PX), (0, 0)), mode="edge")
    return [
        encode(np.ascontiguousarray(padded[y : y + TILE_PX, x : x + TILE_PX]))
        for y in range(0, height, TILE_PX) for x in range(0, width, TILE_PX)
    ]  # fmt: skip


def _write_tiff(path: Path, pixels: Image8, layout: str) -> None:
    levels = [pixels, np.asarray(Image.fromarray(pixels).resize((SIDE_PX // 4,) * 2, Image.Resampling.BOX))]
    with tifffile.TiffWriter(path, bigtiff=layout == "bigtiff", ome=False) as writer:
        for number, level in enumerate(levels):
            options: dict[str, Any] = {
                "photometric": "rgb", "metadata": None, "resolutionunit": "CENTIMETER",
                "resolution": (1e4 / MPP / 4**number,) * 2,
            }  # fmt: skip
            if layout.startswith("svs"):
                side = len(level)
                options["description"] = (
                    f"Aperio Image Library v11.2.1 \r\n{side}x{side} |AppMag = 20|MPP = {MPP}"
                )
            if layout == "svs_j2k":
                streams = _streams(
                    level,
                    lambda tile: imagecodecs.jpeg2k_encode(tile, codecformat="j2k", level=40, mct=False),
                )  # fmt: skip
                writer.write(
                    iter(streams),
                    shape=level.shape,
                    dtype="u1",
                    tile=(TILE_PX,) * 2,
                    compression=33005,
                    **options,
                )
            elif layout == "strips":
                if not number:
                    writer.write(level, rowsperstrip=64, compression="lzw", **options)
            elif layout == "subifds":
                options |= {"subfiletype": 1} if number else {"subifds": 1}
                writer.write(level, tile=(TILE_PX,) * 2, compression="deflate", predictor=True, **options)
            else:
                options |= {"subfiletype": 1} if number and layout == "bigtiff" else {}
                writer.write(level, tile=(TILE_PX,) * 2, compression="jpeg", **options)


def _pages(file: tifffile.TiffFile) -> list[Any]:
    return [each for page in file.pages for each in (page, *(page.pages or ()))]


def _tiff_regions(path: Path) -> Regions:
    regions: Regions = {"header": [(0, 16)], "directory": [], "table": [], "text": [], "data": []}
    with tifffile.TiffFile(path) as file:
        entry = 20 if file.is_bigtiff else 12
        for page in _pages(file):
            regions["directory"].append((page.offset, entry * len(page.tags) + 16))
            for tag in page.tags:
                if tag.code in _TABLES:
                    regions["table"].append((tag.valueoffset, tag.valuebytecount))
                if tag.code in (270, 282, 283):
                    regions["text"].append((tag.valueoffset, tag.valuebytecount))
            regions["data"] += zip(page.dataoffsets, page.databytecounts, strict=True)
    return regions


def _stored_tiff(path: Path) -> Stored:
    found: Stored = {}
    with tifffile.TiffFile(path) as file:
        content = path.read_bytes()
        for number, page in enumerate(_pages(file)):
            wide = page.tilewidth if page.is_tiled else page.imagewidth
            high = page.tilelength if page.is_tiled else page.rowsperstrip
            across, down = math.ceil(page.imagewidth / wide), math.ceil(page.imagelength / high)
            spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            if len(spans) != across * down:
                raise ValueError(f"level {number} lists {len(spans)} of {across * down} tiles")
            for index, (offset, length) in enumerate(spans):
                place = number, index % across * wide, index // across * high
                found[place] = _strict(page, content[offset : offset + length], length, index)
    return found


def _strict(page: Any, stream: bytes, length: int, index: int) -> Image8 | None:
    try:
        if len(stream) < length:
            return None
        if page.compression == 7:
            tables = page.jpegtables or b"\xff\xd8\xff\xd9"
            return strict_jpeg(tables[:-2] + stream[2:])
        if page.compression in (33003, 33005):
            return strict_jpeg2000(stream, (page.tilelength, page.tilewidth))
        pixels = page.decode(stream, index)[0]
        return None if pixels is None else pixels[0]
    except Exception:
        return None


def strict_jpeg(stream: bytes) -> Image8:
    """libjpeg-turbo, of which a warning is an error."""
    if not stream.startswith(b"\xff\xd8"):
        raise ValueError("no JPEG")
    return simplejpeg.decode_jpeg(stream, "RGB", fastdct=False, fastupsample=False, strict=True)


def strict_jpeg2000(stream: bytes, shape: tuple[int, int]) -> Image8:
    """OpenJPEG in its strict mode, after a look at the size that is claimed."""
    start = stream.index(b"\xff\x51")
    if tuple(np.frombuffer(stream[start + 6 : start + 14], ">u4")[::-1]) != shape:
        raise ValueError("another size")
    return imagecodecs.jpeg2k_decode(stream)


def _frames(content: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Start of the encapsulated pixel data, and offset and length of its items, the offset table first."""
    start = position = content.index(_PIXEL_DATA) + len(_PIXEL_DATA)
    items = []
    while content[position : position + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        items.append((position + 8, length))
        position += 8 + length
    if content[position : position + 4] != b"\xfe\xff\xdd\xe0":
        raise ValueError("the sequence of frames has no end")
    return start, items


def _dicom_regions(path: Path) -> Regions:
    start, (table, *frames) = _frames(path.read_bytes())
    return {"header": [(128, start - 128)], "table": [table] if table[1] else [], "data": frames}


def _stored_dicom(path: Path, across: int, jpeg2000: bool) -> Stored:
    content = path.read_bytes()
    found: Stored = {}
    for index, (offset, length) in enumerate(_frames(content)[1][1:]):
        stream = content[offset : offset + length]
        place = 0, index % across * 256, index // across * 256
        try:
            found[place] = strict_jpeg2000(stream, (256, 256)) if jpeg2000 else strict_jpeg(stream)
        except Exception:
            found[place] = None
    return found


def _stored_picture(path: Path) -> Stored:
    try:
        return {(0, 0, 0): strict_jpeg(path.read_bytes())}
    except ValueError:
        return {(0, 0, 0): None}


def make_bases(folder: Path, data: Path | None) -> list[Base]:
    """Writes or finds the sound slides."""
    pixels = picture(data)
    folder.mkdir(exist_ok=True)
    bases = []
    for name, ending in (
        ("svs_jpeg", "svs"), ("svs_j2k", "svs"), ("bigtiff", "tif"), ("strips", "tif"), ("subifds", "tif")
    ):  # fmt: skip
        path = folder / f"{name}.{ending}"
        _write_tiff(path, pixels, name)
        options = ("--mpp", str(MPP), "--tile-px", str(TILE_PX))
        bases.append(Base(name, path, options, _tiff_regions(path), _stored_tiff))
    flat = folder / "flat_jpeg.jpg"
    Image.fromarray(pixels).save(flat, quality=90)
    start = flat.read_bytes().index(b"\xff\xda")
    regions = {"header": [(0, start)], "data": [(start, flat.stat().st_size - start)]}
    options = ("--mpp", "0.5", "--tile-px", "128", "--default-mpp", "0.5")
    bases.append(Base(flat.stem, flat, options, regions, _stored_picture))
    for name, file, across in (
        ("dicom_jpeg", "camelyon_multiframe_jpeg.dcm", 5),
        ("dicom_j2k", "camelyon_multiframe_jpeg2000.dcm", 7),
    ):  # fmt: skip
        if data is not None:
            path, jpeg2000 = data / "dicom" / file, name == "dicom_j2k"
            options = ("--mpp", "28.97", "--tile-px", "128", "--set", "grid.allow_upsample=true")
            bases.append(
                Base(
                    name, path, options, _dicom_regions(path),
                    lambda path, across=across, jpeg2000=jpeg2000: _stored_dicom(path, across, jpeg2000),
                )
            )  # fmt: skip
    return bases

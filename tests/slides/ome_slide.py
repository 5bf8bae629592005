"""OME-TIFF and other pyramids in sub-directories, as each program writes them; made with tifffile.

Looked up in the programs' sources: raw2ometiff writes planar RGB (``--rgb``) or three grey channels, levels
with NewSubfileType 1, label and macro behind the slide in strips and named "Label" and "Macro"; QuPath
(Bio-Formats) interleaved RGB with PhysicalSize in µm; libvips ``--subifd`` no OME-XML, with a scanner's own text
where the source had one; tifffile what its ``metadata`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{root}>'
    "{body}</OME>"
)
RGB_CHANNEL = '<Channel ID="Channel:0:0" SamplesPerPixel="3"/>'


def image_xml(
    width: int, height: int, *, name: str = "", c: int = 3, z: int = 1, t: int = 1, kind: str = "uint8",
    channels: str = RGB_CHANNEL, physical: str = "", data: str = '<TiffData IFD="0" PlaneCount="1"/>',
) -> str:  # fmt: skip
    """An ``Image`` element."""
    return (
        f'<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{kind}" '
        f'SizeX="{width}" SizeY="{height}" SizeC="{c}" SizeZ="{z}" SizeT="{t}" {physical}>{channels}{data}'
        "</Pixels></Image>"
    )


def halves(pixels: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """A pyramid by leaving pixels out, whose levels are known to the pixel."""
    return [np.ascontiguousarray(pixels[:: 1 << n, :: 1 << n]) for n in range(count)]


def write_nested(
    path: Path,
    levels: Sequence[np.ndarray],
    *,
    description: str | None = None,
    planar: bool = False,
    before: Sequence[np.ndarray] = (),
    after: Sequence[np.ndarray] = (),
    **options: Any,
) -> Path:
    """An image with its levels in sub-directories, and further images in main directories.

    Args:
        path: The file.
        levels: uint8 (h, w, 3) or (h, w), finest first.
        description: The text of the first directory.
        planar: Store the colours apart.
        before: Images in front of the slide, in strips.
        after: Images behind it.
        options: For the levels: tile, compression and the like.
    """
    options = {"tile": (128, 128), "compression": "lzw", "metadata": None} | options
    flat: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    if "photometric" not in options:
        options["photometric"] = "rgb" if levels[0].ndim == 3 else "minisblack"
    if planar:
        options["planarconfig"] = "separate"
        levels = [np.ascontiguousarray(np.moveaxis(level, 2, 0)) for level in levels]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, picture in enumerate(before):
            file.write(picture, description=description if number == 0 else None, **flat)
        text = None if before else description
        text = text.encode() if text else None
        for number, level in enumerate(levels):
            nested = {"subifds": len(levels) - 1, "description": text} if number == 0 else {"subfiletype": 1}
            file.write(level, **nested, **options)
        for picture in after:
            file.write(picture, **flat)
    return path


def stored_levels(path: Path) -> list[tuple[Any, list[bytes]]]:
    """tifffile's page of each tiled image in the main chain, and its tiles as they are stored."""
    with tifffile.TiffFile(path) as file:
        pages = [page for page in file.pages if page.is_tiled]
        content = path.read_bytes()
        return [
            (page, [content[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)])
            for page in pages
        ]  # fmt: skip


def write_stored(
    path: Path, levels: Sequence[tuple[Any, list[bytes]]], *, nested: bool = True, description: str | None = None
) -> Path:  # fmt: skip
    """The same codestreams as an OME-TIFF with its levels in sub-directories, or as a plain pyramid."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, (page, tiles) in enumerate(levels):
            more: dict[str, Any] = (
                {"subfiletype": 1} if number else {"description": (description or "").encode()}
            )
            if nested and number == 0:
                more["subifds"] = len(levels) - 1
            if page.jpegtables:
                more["extratags"] = [(347, 7, len(page.jpegtables), page.jpegtables, True)]
            if int(page.photometric) == 6:
                more["subsampling"] = tuple(page.tags.valueof(530, default=(2, 2)))
            if page.predictor != 1:
                more["predictor"] = page.predictor
            file.write(
                iter(tiles), shape=page.shape, dtype=np.uint8, tile=(page.tilelength, page.tilewidth),
                compression=page.compression, photometric=page.photometric, metadata=None, **more,
            )  # fmt: skip
    return path

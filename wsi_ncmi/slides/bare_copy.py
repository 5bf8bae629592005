"""Copies of tiled TIFF slides that hold the pyramid's stored tiles and nothing that may name a person.

Written is what is listed here, and nothing is filtered: of each level its tiles, byte for byte, with size,
colour space and compression; of an Aperio slide's description the library's version, µm per pixel and
magnification. Label, macro and thumbnail, dates, users, file names, barcodes and colour profiles have no
place in it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.core.files import atomic_path

EXTENSIONS = (".svs", ".tif", ".tiff")
_APERIO = re.compile(r"Aperio[\w ]{0,40}v[\d.]{1,20}")
_NUMBERS = re.compile(r"\|(AppMag|MPP) = (\d{1,4}(?:\.\d{1,12})?)(?=\||$)")
_ASPECT = 0.02


def copy_bare(source: Path, target: Path) -> None:
    """Writes the pyramid of a slide alone; the stored tiles are those of the source.

    Args:
        source: An Aperio slide, or a tiled TIFF without a description.
        target: The copy.

    Raises:
        SlideError: The slide is of another kind, or the copy isn't read as the slide is.
        OSError: It can't be read or written.
    """
    import tifffile

    try:
        with tifffile.TiffFile(source) as slide, atomic_path(target) as temporary:
            levels = _levels(slide)
            with tifffile.TiffWriter(temporary, bigtiff=slide.is_bigtiff) as writer:
                for number, page in enumerate(levels):
                    _write(
                        writer,
                        page,
                        description=_description(page) if slide.is_svs else None,
                        first=not number,
                    )
            _check(source, temporary)
    except (tifffile.TiffFileError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SlideError(f"it can't be copied tile by tile ({error})") from error


def _levels(slide: Any) -> list[Any]:
    """The pages of the pyramid: tiled, each smaller than the one before, of the first one's shape."""
    first = slide.pages[0]
    known = slide.is_svs or not (first.description or slide.is_scn or slide.is_ndpi or slide.is_bif)
    if not known or not first.is_tiled or first.subifds:
        raise SlideError(
            "only Aperio slides and tiled TIFF without a description are copied bare; link it, or let the "
            "scanner's own software take names, label and macro pictures out"
        )
    levels = [first]
    for page in slide.pages[1:]:
        aspect = page.imagewidth * first.imagelength / (page.imagelength * first.imagewidth)
        if page.is_tiled and page.imagewidth < levels[-1].imagewidth and abs(aspect - 1) < _ASPECT:
            levels.append(page)
    return levels


def _write(writer: Any, page: Any, *, description: str | None, first: bool) -> None:
    writer.write(
        _tiles(page),
        shape=page.shape,
        dtype=page.dtype,
        tile=(page.tilelength, page.tilewidth),
        photometric=page.photometric,
        compression=page.compression,
        jpegtables=page.jpegtables,
        subsampling=page.subsampling,
        # Else tifffile writes YCbCr, whatever the stored tiles are.
        compressionargs={"outcolorspace": page.photometric} if page.compression == 7 else None,
        planarconfig=page.planarconfig,
        predictor=page.predictor if page.predictor != 1 else None,
        resolution=page.resolution if "XResolution" in page.tags else None,
        resolutionunit=page.resolutionunit if "XResolution" in page.tags else None,
        subfiletype=0 if first else 1,
        description=description,
        software=False,
        datetime=False,
        metadata=None,
    )


def _tiles(page: Any) -> Iterator[bytes]:
    handle = page.parent.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not size:
            raise SlideError("it has tiles without data, which only its own software can copy")
        handle.seek(offset)
        content = handle.read(size)
        if len(content) != size:
            raise SlideError("the file ends within a tile")
        yield content


def _description(page: Any) -> str:
    name = _APERIO.match(page.description)
    size = f"{page.imagewidth}x{page.imagelength}"
    numbers = dict(_NUMBERS.findall(page.description.replace("\r", "").replace("\n", "")))
    return (
        f"{name[0] if name else 'Aperio Image Library v1'}\r\n"
        f"{size} [0,0 {size}] ({page.tilewidth}x{page.tilelength})"
        + "".join(f"|{key} = {value}" for key, value in numbers.items())
    )


def _check(source: Path, copy: Path) -> None:
    """The copy must be the same pyramid for the readers of slides.

    Raises:
        SlideError: It isn't.
    """
    from wsi_ncmi.slides.opening import open_slide

    def facts(path: Path) -> tuple[Any, ...]:
        with open_slide(path, compare_levels=False) as slide:
            sizes = [(level.width_px, level.height_px) for level in slide.levels]
            return sizes, *(slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy")

    if facts(source) != facts(copy):
        raise SlideError("the copy isn't read as the slide is")

"""Opens a slide with the first reader whose pixels are proven."""

import logging
import os
from pathlib import Path

import numpy as np

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.errors import InputError, SlideError, SlideOpenError, plain_reason
from wsi_ncmi.core.files import irregular_kind
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.contents import describe_contents
from wsi_ncmi.slides.dicom_header import has_dicom_magic
from wsi_ncmi.slides.dicom_series import files_beside
from wsi_ncmi.slides.level_check import leave_out_wrong_levels
from wsi_ncmi.slides.ome import OmeError, SlideImage, find_slide_image
from wsi_ncmi.slides.registry import (
    DICOM_READER,
    PAGES_READER,
    Reader,
    get_reader,
    list_readers,
    readers_of,
    refusal,
)
from wsi_ncmi.slides.tiff_layout import TiffLayout, read_tiff_layout

_LOG = logging.getLogger(__name__)

PIXEL_TOLERANCE = 2
"""Largest difference in grey levels that passes: rounding of two JPEG decoders."""

_PROBE_PX = 256
_COMPLETELY_DIFFERENT = 255
_WHOLE = 1e-6


def probe_against_openslide(slide: Slide) -> int:
    """Compares probe regions of an open slide with what OpenSlide reads from the same file.

    Regions are taken on every level at its corner and centre and two places between them, at coordinates
    that fall on whole pixels of the level: at others OpenSlide interpolates between pixels and readers
    differ by design.

    Args:
        slide: A slide opened by any reader from a local file.

    Returns:
        The largest absolute difference over all channels in grey levels, 0 to 255, of the levels that both
        have; 255 also when the first ones have other sizes.

    Raises:
        Exception: Whatever OpenSlide raises when it can't open the file.
        SlideReadError: One of the two can't read a probe region.
    """
    from wsi_ncmi.slides.openslide_reader import OpenSlideSlide

    worst = 0
    with OpenSlideSlide(slide.path, _dicom_files(slide.path) and slide.files) as reference:
        if slide.level_dimensions[0] != reference.level_dimensions[0]:
            return _COMPLETELY_DIFFERENT
        # OpenSlide does not see levels in sub-directories.
        numbers = dict(
            zip(reversed(reference.level_dimensions), reversed(range(reference.level_count)), strict=True)
        )
        for number, (width, height) in enumerate(slide.level_dimensions):
            if (width, height) not in numbers:
                continue
            size = min(_PROBE_PX, width), min(_PROBE_PX, height)
            for x, y in _places(slide, number, size):
                ours = slide.read_region(x, y, number, *size).astype(np.int16)
                theirs = reference.read_region(x, y, numbers[width, height], *size).astype(np.int16)
                worst = max(worst, int(np.abs(ours - theirs).max()))
    return worst


def _places(slide: Slide, number: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Level-0 corners of the probe regions, duplicates removed, in reading order."""
    level = slide.levels[number]
    scale = (level.downsample_x + level.downsample_y) / 2
    places = {(0, 0)}
    for fraction in (0.25, 0.5, 0.75, 1.0):
        x = round((level.width_px - size[0]) * fraction)
        y = round((level.height_px - size[1]) * fraction)
        x0, y0 = round(x * scale), round(y * scale)
        if abs(x0 / scale - x) < _WHOLE and abs(y0 / scale - y) < _WHOLE:
            places.add((x0, y0))
    return sorted(places)


def open_slide(
    path: Path | str | tuple[Path, ...], reader: str = "auto", *, compare_levels: bool = True
) -> Slide:
    """Opens a whole-slide image.

    A TIFF-based file whose stored tiles do not all lie inside it is refused whoever could open it: readers
    give white or black for what was cut off. When a reader other than OpenSlide is asked for by name, its
    pixels are compared with OpenSlide's; if they differ, OpenSlide is used and :attr:`Slide.note` says so.
    So are those of a file whose levels are in sub-directories (OME-TIFF), which OpenSlide does not see. Of an
    OME-TIFF the first image is taken that is neither label nor macro, whatever reader is asked for.

    Args:
        path: A local file, or an fsspec address (``s3://…``), which only tiffslide reads; or all files of a
            DICOM slide (:meth:`SlideRecord.files`), which else are looked for in the file's folder.
        reader: ``auto`` asks the readers in their order; otherwise the name of one.
        compare_levels: Read some places of each level before the levels are first looked at, and leave out
            those that don't show the same as the first; False reads no pixel.

    Returns:
        The open slide.

    Raises:
        SlideOpenError: The file can't be opened; one sentence with each reader's reason.
        InputError: There is no reader of that name.
    """
    files = path if isinstance(path, tuple) else ()
    path = path[0] if isinstance(path, tuple) and path else path
    if not isinstance(path, str | Path):
        raise InputError(f"A slide is given by its path, got {described(path)}.")
    if "\0" in str(path):
        raise InputError("The path of a slide holds a zero byte, which no file's name does.")
    if isinstance(path, str) and "://" in path:
        slide = _open_remote(path, list_readers() if reader == "auto" else (get_reader(reader),))
    else:
        path = Path(path)
        fit = readers_of(path.name)
        if reader != "auto" and get_reader(reader).name not in [each.name for each in fit]:
            raise SlideOpenError(f"{path.name} is of a format for which the reader {reader} isn't made.")
        # Of a format with its own readers, what else can be read in the file is no slide.
        has_own_format = all(each.extensions for each in fit)
        layout, chosen = _check_file(path, has_own_format)
        files = files or _dicom_files(path)
        if has_own_format:
            slide = _first_that_opens(path, fit if reader == "auto" else (get_reader(reader),), ())
        elif chosen is not None and not chosen.is_first:
            # All others show the file's first image: the label, or one of three colours.
            slide = _first_that_opens(path, (get_reader(PAGES_READER),), ())
        elif reader != "auto":
            slide = _first_that_opens(path, (get_reader(reader),), files)
            if slide.reader != "openslide":
                slide = _prove(slide)
        else:
            nested = layout is not None and any(len(image) > 1 for image in layout.tiled_images)
            slide = _open_by_order(path, files, nested=nested, compare_levels=compare_levels)
        if layout is not None:
            slide.note = f"{slide.note} {describe_contents(slide, layout, chosen)}".strip()
    if compare_levels:
        slide.check_before_use(leave_out_wrong_levels)
    return slide


def _open_by_order(path: Path, files: tuple[Path, ...], *, nested: bool, compare_levels: bool) -> Slide:
    pages = get_reader(PAGES_READER)
    first, *rest = (each for each in readers_of(path.name) if each.name != PAGES_READER)
    # In this order OpenSlide has refused already where another reader opens the file, so there is nothing to
    # compare with.
    slide = _first_that_opens(path, (first, pages, *rest) if nested else (first, *rest), files)
    if not nested or slide.reader != "openslide":
        return slide
    try:
        fuller = pages.open(slide.path)
    except Exception as error:  # as in the readers' order
        reason = plain_reason(error, slide.path)
        slide.note = f"{slide.note} Levels in sub-directories are not read ({reason}).".strip()
        return slide
    if fuller.level_dimensions[0] != slide.level_dimensions[0] or fuller.level_count <= slide.level_count:
        fuller.close()
        return slide
    # What the scanner's software says of itself (Aperio's text, kept by vips) is OpenSlide's to read.
    fuller.vendor, fuller.properties = slide.vendor, slide.properties
    slide.close()
    return _prove(fuller) if compare_levels else fuller


def _check_file(path: Path, has_own_format: bool) -> tuple[TiffLayout | None, SlideImage | None]:
    """The directories of a TIFF file, and the image of an OME-TIFF that is the slide."""
    name = path.name
    try:
        if path.is_dir():
            raise SlideOpenError(f"{name} is a folder, not a slide; give one of the files in it.")
        if kind := irregular_kind(path):
            raise SlideOpenError(f"{name} is {kind}, not a file; remove it.")
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
        layout = read_tiff_layout(path) if size and not has_own_format else None
    except OSError as error:
        raise SlideOpenError(
            f"{name} can't be read ({plain_reason(error, path)}); check its name and permissions."
        ) from error
    if size == 0:
        raise SlideOpenError(f"{name} is empty (0 bytes); copy it again from its source.")
    if layout is not None and layout.damage:
        raise SlideOpenError(
            f"{name} is truncated or damaged: {layout.damage}; copy it again from its source."
        )
    try:
        chosen = find_slide_image(layout.description, layout.main_directories) if layout else None
    except OmeError as error:
        raise SlideOpenError(f"{name} can't be read as a slide: {error}.") from error
    bits = (
        max((directory.bits_per_sample for directory in layout.pixel_directories), default=0) if layout else 0
    )
    if bits > 8:
        # OpenSlide opens such files and leaves parts of their edge tiles black.
        raise SlideOpenError(f"{name} has {bits} bits per channel, not 8; convert it to 8-bit RGB.")
    return layout, chosen


def _dicom_files(path: Path) -> tuple[Path, ...]:
    return files_beside(path) if has_dicom_magic(path) else ()


def _first_that_opens(path: Path, readers: tuple[Reader, ...], dicom: tuple[Path, ...]) -> Slide:
    if text := refusal(path.name):
        raise SlideOpenError(text)
    reasons: list[str] = []
    remedy = "check that the copy is whole and that it is a slide format"
    for reader in readers:
        other = reader.open_dicom is None if dicom else reader.name == DICOM_READER
        if other and len(readers) > 1:
            continue
        reason = reader.unavailable() or ("it reads no DICOM" if dicom and other else "")
        if reason and reader.extensions:
            remedy = reason
            continue
        if not reason:
            try:
                slide = reader.open_dicom(path, dicom) if reader.open_dicom and dicom else reader.open(path)
            except Exception as error:  # readers raise whatever their parsers stumble over
                reason = plain_reason(error, path)
            else:
                # Flat images are nobody else's; a slide that OpenSlide refuses belongs into the ledger.
                if slide.vendor != "image" and (reasons or reader.extensions):
                    slide.note = f"{_only_by(slide.reader, reasons)} {slide.note}".strip()
                return slide
        reasons.append(f"{reader.name}: {reason}")
    refusals = f" ({'; '.join(reasons)})" if reasons else ""
    raise SlideOpenError(f"{path.name} can't be opened as a slide{refusals}; {remedy}.")


def _only_by(reader: str, refusals: list[str]) -> str:
    if not refusals:
        return f"Read by {reader}, the only reader of its format: its pixels were compared with nothing."
    name, reason = refusals[0].split(": ", 1)
    return f"Read by {reader}, with nothing to compare its pixels to, because {name} refuses it ({reason})."


def _open_remote(address: str, readers: tuple[Reader, ...]) -> Slide:
    name = address.rsplit("/", 1)[-1]
    reasons: list[str] = []
    for reader in readers:
        reason = reader.unavailable() or ("" if reader.open_remote else "it reads local files only")
        if reader.open_remote and not reason:
            try:
                return reader.open_remote(address)
            except Exception as error:  # as above, and every file system has its own errors
                reason = plain_reason(error, Path(name))
        reasons.append(f"{reader.name}: {reason}")
    raise SlideOpenError(
        f"{name} can't be opened from its address ({'; '.join(reasons)}); check the address and its access."
    )


def _prove(slide: Slide) -> Slide:
    reference = get_reader("openslide")
    if not reference.is_available:
        return slide
    try:
        difference = probe_against_openslide(slide)
        verdict = f"pixels up to {difference} grey levels away from OpenSlide's"
    except SlideError as error:
        difference, verdict = PIXEL_TOLERANCE + 1, f"an error where OpenSlide was compared ({error})"
    except Exception as error:
        # OpenSlide can't open it: there is no reference, which is why this reader was asked for.
        _LOG.debug("%s has no OpenSlide reference: %s", slide.path.name, error)
        return slide
    if difference <= PIXEL_TOLERANCE:
        return slide
    name = slide.reader
    slide.close()
    replacement = _first_that_opens(slide.path, (reference,), _dicom_files(slide.path) and slide.files)
    replacement.note = f"Read by openslide because {name} gave {verdict}. {replacement.note}".strip()
    _LOG.warning("%s: %s", slide.path.name, replacement.note)
    return replacement

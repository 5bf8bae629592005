"""Proof that another reader gives OpenSlide's pixels: a wrong pixel is worse than a slow one."""

from __future__ import annotations

import numpy as np

from wsi_ncmi.slides.base import Slide

__all__ = ["PROBE_TOLERANCE", "probe_against_openslide"]

PROBE_TOLERANCE = 2
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
        The largest absolute difference over all channels in grey levels, 0 to 255; 255 also when the levels
        have other sizes.

    Raises:
        Exception: Whatever OpenSlide raises when it can't open the file.
        SlideReadError: One of the two can't read a probe region.
    """
    from wsi_ncmi.slides.openslide_reader import OpenSlideSlide

    worst = 0
    with OpenSlideSlide(slide.path) as reference:
        sizes = [(level.width_px, level.height_px) for level in reference.levels]
        if [(level.width_px, level.height_px) for level in slide.levels] != sizes:
            return _COMPLETELY_DIFFERENT
        for number, (width, height) in enumerate(sizes):
            size = min(_PROBE_PX, width), min(_PROBE_PX, height)
            for x, y in _places(reference, number, size):
                ours = slide.read_region(x, y, number, *size).astype(np.int16)
                theirs = reference.read_region(x, y, number, *size).astype(np.int16)
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

"""Finds pyramid levels that do not show what the first level shows: macro images, other crops, blank levels.

Readers count every tiled image of a file as a level. Each level is compared with the next finer one at a few
places with contrast, a few tiles each; it is wrong where both, averaged over blocks of pixels, are not even
related. Sharpening, other compression or a displacement by a pixel or two pass.
"""

import contextlib
import itertools
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides.base import Level, LevelReader, Slide

_PLACES = 6
# Windows in which places are looked for along each side; their side where a level is not read whole.
_WINDOWS, _WINDOW_PX = 8, 64
_WHOLE_PX = 1 << 22
_CELL_PX = 8
_CONTRAST = 4.0
"""Standard deviation in grey levels below which there is nothing to compare."""

# Blocks of a compared window along each side; its side on the finer level, and on the coarser one.
_BLOCKS, _FINE_PX, _LEAST_PX, _MOST_PX = 8, 256, 16, 32
# Least correlation of all places together, and of a single one, which has to be farther off besides. Levels
# of sound slides correlate by 0.99.
_RELATED, _PLACE_RELATED, _PLACE_APART = 0.5, 0.2, 8.0
# The same of a place in stored tiles and in what the reader makes of them.
_SAME, _SAME_APART = 0.9, 2.0
# Files leave out tiles of background, which readers give in white: the rest decides, if there is enough.
_WHITE, _ENOUGH = 254.0, 0.25
_Grey = NDArray[np.float32]
_Contrasts = dict[tuple[int, int], tuple[float, tuple[float, float]]]
"""Row and column of a window → standard deviation, and place in shares of the sides."""


def leave_out_wrong_levels(slide: Slide) -> None:
    """Leaves out the levels of a slide that show something else than its first one, with a remark each.

    Args:
        slide: A slide that was just opened. Nothing changes where its pixels can't be read, or all are alike.
    """
    if len(slide.levels) > 1 and _are_sound(slide):
        return
    while len(slide.levels) > 1:
        readers = [LevelReader(slide, number, 1.0) for number in range(len(slide.levels))]
        wrong = _first_wrong(readers, _places(readers))
        if wrong is None:
            return
        slide.leave_out(*wrong)


def _are_sound(slide: Slide) -> bool:
    """True if stored tiles show sound levels, and of each level at a place what the reader shows.

    They take a fraction of the time. That a level is wrong, or nothing can be compared, is for the reader.
    """
    from wsi_ncmi.slides.regions import StoredRegions  # not where a slide's facts alone are read

    with contextlib.ExitStack() as opened:
        numbers = range(len(slide.levels))
        readers = [StoredRegions(slide, each, 1.0, proven=True) for each in numbers]
        for reader in readers:
            opened.callback(reader.close)
        if not all(reader.direct for reader in readers):
            return False
        try:
            places = _places(readers)
            return (
                len(places) > 0
                and _first_wrong(readers, places) is None
                and all(_is_the_readers(reader, *places[0]) for reader in readers)
            )
        except SlideReadError:
            return False


def _is_the_readers(reader: LevelReader, x: float, y: float) -> bool:
    """True if a place is what the slide's reader gives for it, apart from a fraction of a pixel."""
    level = reader.level
    width, height = min(_MOST_PX, level.width_px), min(_MOST_PX, level.height_px)
    left, top = round(x * (level.width_px - width)), round(y * (level.height_px - height))
    box = left, top, left + width, top + height
    ours, its = _grey(reader.read(*box).pixels), _grey(LevelReader.read(reader, *box).pixels)
    return not _are_unrelated(its, ours, _SAME, _SAME_APART)


def _first_wrong(readers: Sequence[LevelReader], places: NDArray[np.float64]) -> tuple[Level, str] | None:
    """The first level that does not show the same as the next finer one, and the reason."""
    for fine, coarse in itertools.pairwise(readers):
        if reason := _difference(fine, coarse, places):
            return coarse.level, reason
    return None


def _places(readers: Sequence[LevelReader]) -> NDArray[np.float64]:
    """Places with contrast on the coarsest level that has any: float64 (n, 2), shares of the sides."""
    for number in reversed(range(len(readers))):
        found = _contrasts(readers[number])
        if found:
            # What the coarsest level lacks in part (it was broken off) is seen on the finer one alone.
            lacking = _contrasts(readers[number - 1], without=found) if number else {}
            return np.array([*_spread_out(found), *_spread_out(lacking)])
    return np.empty((0, 2))


def _spread_out(found: _Contrasts) -> list[tuple[float, float]]:
    """Some places of the better half, from everywhere (the windows are in raster order)."""
    middle = np.median([spread for spread, _ in found.values()]) if found else 0.0
    good = [place for spread, place in found.values() if spread >= middle]
    chosen = np.linspace(0, len(good) - 1, min(_PLACES, len(good))).round().astype(int)
    return [good[index] for index in chosen]


def _contrasts(reader: LevelReader, without: Container[tuple[int, int]] = ()) -> _Contrasts:
    """The cell of most contrast of each window of a level that has contrast, and its place."""
    level = reader.level
    columns, rows = (
        np.linspace(0, side, max(1, min(_WINDOWS, side // (2 * _CELL_PX))) + 1).astype(int)
        for side in (level.width_px, level.height_px)
    )
    if all(window in without for window in np.ndindex(len(rows) - 1, len(columns) - 1)):
        return {}
    small = level.width_px * level.height_px <= _WHOLE_PX
    whole = small and not without
    picture = _read(reader, 0, 0, level.width_px, level.height_px) if whole else None
    if whole and picture is None:
        return {}
    found: _Contrasts = {}
    for row, (top, bottom) in enumerate(itertools.pairwise(rows.tolist())):
        for column, (left, right) in enumerate(itertools.pairwise(columns.tolist())):
            if (row, column) in without:
                continue
            if picture is not None:
                x, y, window = left, top, picture[top:bottom, left:right]
            else:
                wide, high = (right - left, bottom - top) if small else (_WINDOW_PX, _WINDOW_PX)
                x, y = (left + right - wide) // 2, (top + bottom - high) // 2
                part = _read(reader, x, y, wide, high)
                if part is None:
                    continue
                window = part
            spread, across, down = _most_contrast(window)
            if spread >= _CONTRAST:
                place = (x + across) / level.width_px, (y + down) / level.height_px
                found[row, column] = spread, place
    return found


def _most_contrast(window: _Grey) -> tuple[float, float, float]:
    """The largest standard deviation of a cell of a window, and the cell's middle (x, y)."""
    import cv2  # not where a slide's facts alone are read

    high, wide = (min(_CELL_PX, side) for side in window.shape)
    rows, columns = window.shape[0] // high, window.shape[1] // wide
    cells = window[: rows * high, : columns * wide].astype(np.float64)
    # Means of values and of squares: numpy loops over each cell by itself, six times as long.
    mean, square = (
        cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA) for values in (cells, cells**2)
    )
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    row, column = np.unravel_index(spread.argmax(), spread.shape)
    return float(spread[row, column]), (float(column) + 0.5) * wide, (float(row) + 0.5) * high


def _difference(fine: LevelReader, coarse: LevelReader, places: NDArray[np.float64]) -> str:
    """The reason why a level does not show the same as the next finer one; empty where it does."""
    pairs = [_pair(fine, coarse, x, y) for x, y in places]
    read = [pair for pair in pairs if pair is not None]
    if not read:
        return ""
    expected, found = (np.stack(side) for side in zip(*read, strict=True))
    there = expected < _WHITE
    if there.mean() < _ENOUGH:
        there[:] = True
    if not any(_lacks(*pair) for pair in read) and not _are_unrelated(
        expected[there], found[there], _RELATED, _CONTRAST
    ):
        return ""
    what = "shows nothing" if found.std() < 1.0 else "shows something else"
    return f"it {what} where the level of {fine.level} has content"


def _lacks(expected: _Grey, found: _Grey) -> bool:
    """True if a level lacks what the finer one has at a place; tiles that the finer one lacks say nothing."""
    there = expected < _WHITE
    content = expected[there]
    return (
        content.size >= _BLOCKS
        and float(content.std()) >= _CONTRAST
        and _are_unrelated(content, found[there], _PLACE_RELATED, _PLACE_APART)
    )


def _are_unrelated(expected: _Grey, found: _Grey, least: float, apart: float) -> bool:
    """True if pictures are ``apart`` grey levels away from each other, and correlate less than ``least``."""
    spreads = float(expected.std()), float(found.std())
    if max(spreads) < _CONTRAST or np.abs(expected - found).mean() < apart:
        return False
    return min(spreads) < 1.0 or float(np.corrcoef(expected.ravel(), found.ravel())[0, 1]) < least


def _pair(fine: LevelReader, coarse: LevelReader, x: float, y: float) -> tuple[_Grey, _Grey] | None:
    """A place on the next finer level and on a level, as blocks; None where it can't be read."""
    level = coarse.level
    ratio_x = level.downsample_x / fine.level.downsample_x
    ratio_y = level.downsample_y / fine.level.downsample_y
    side = int(np.clip(_FINE_PX / max(ratio_x, ratio_y), _LEAST_PX, _MOST_PX))
    width, height = min(side, level.width_px), min(side, level.height_px)
    left = int(np.clip(x * level.width_px - width / 2, 0, level.width_px - width))
    top = int(np.clip(y * level.height_px - height / 2, 0, level.height_px - height))
    found = _read(coarse, left, top, width, height)
    expected = _read(
        fine, round(left * ratio_x), round(top * ratio_y),
        max(1, round(width * ratio_x)), max(1, round(height * ratio_y)),
    )  # fmt: skip
    if found is None or expected is None:
        return None
    return _blocks(expected), _blocks(found)


def _blocks(grey: _Grey) -> _Grey:
    return np.asarray(Image.fromarray(grey).resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX))


def _read(reader: LevelReader, left: int, top: int, width: int, height: int) -> _Grey | None:
    """The part of a rectangle that lies on a level, in grey; None where the slide's reader can't read it.

    Raises:
        SlideReadError: Stored tiles can't be decoded, which the slide's reader may pass over.
    """
    right, bottom = min(left + width, reader.level.width_px), min(top + height, reader.level.height_px)
    try:
        return _grey(reader.read(min(left, right - 1), min(top, bottom - 1), right, bottom).pixels)
    except SlideReadError:
        if type(reader) is not LevelReader:
            raise
        return None


def _grey(pixels: NDArray[np.uint8]) -> _Grey:
    # The mean of three channels, without the loop over three numbers that numpy makes of each pixel.
    grey = pixels[..., 0].astype(np.float32)
    grey += pixels[..., 1]
    grey += pixels[..., 2]
    grey /= 3.0
    return grey

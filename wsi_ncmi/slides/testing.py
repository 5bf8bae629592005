"""A test kit for readers: what the program expects of one, tried on a file."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import MissingMppError, SlideError
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.mpp import resolve_mpp
from wsi_ncmi.slides.opening import open_slide

_EDGE_PX = 200
_TOLD = "check_reader: "
_THREADS = 8
_Box = tuple[int, int, int, int, int]
"""Left and top in pixels of the level, level, width and height."""


def check_reader(path: Path | str, *, mpp: float | None = None) -> None:
    """Checks the reader of a file's format: levels, edges, resolution, repeated and parallel reads, closing.

    The file is also read in another process, and damaged copies of it are opened there, which must neither
    crash nor pass. For the tests of a plug-in, on a small file (group ``wsi_ncmi.readers``).

    Args:
        path: A sound slide.
        mpp: µm per pixel that the slide has; None = it need not say.

    Raises:
        AssertionError: Something isn't as expected; the text names every fault.
        SlideOpenError: The file can't be opened.

    Example:
        >>> check_reader("slide.kfb", mpp=0.25)  # doctest: +SKIP
    """
    path = Path(path)
    faults = [*_faults_of_pixels(path, mpp), *_faults_of_closing(path), *_faults_elsewhere(path)]
    assert not faults, f"{path.name}: " + "; ".join(faults)


def _faults_of_pixels(path: Path, mpp: float | None) -> Iterator[str]:
    with open_slide(path) as slide:
        if slide.reader_levels != slide.levels:
            yield f"not all of its levels can be used ({slide.note})"
        if not all(isinstance(text, str) for pair in slide.properties.items() for text in pair):
            yield "its properties are not all text"
        yield from _faults_of_sizes(slide)
        try:
            found = resolve_mpp(slide).mean
        except MissingMppError as error:
            found = 0.0
            if mpp is not None:
                yield str(error)
        if mpp is not None and found and not np.isclose(found, mpp, rtol=1e-3):
            yield f"it has {found:g} µm per pixel, not {mpp:g}"
        boxes = _boxes(slide)
        once = [_read(slide, box) for box in boxes]
        if any((_read(slide, box) != pixels).any() for box, pixels in zip(boxes, once, strict=True)):
            yield "a second reading gives other pixels"
        with ThreadPoolExecutor(_THREADS) as pool:
            parallel = list(pool.map(lambda box: _read(slide, box), boxes * 2))
        if any((a != b).any() for a, b in zip(once * 2, parallel, strict=True)):
            yield f"{_THREADS} threads at once read other pixels than one"
        for box, pixels in zip(boxes, once, strict=True):
            yield from _faults_of_box(slide, box, pixels)


def _faults_of_sizes(slide: Slide) -> Iterator[str]:
    first = slide.reader_levels[0]
    if (first.downsample_x, first.downsample_y) != (1.0, 1.0):
        yield "level 0 has a downsample other than 1"
    for number, level in enumerate(slide.reader_levels):
        for side, whole, down in (
            (level.width_px, first.width_px, level.downsample_x),
            (level.height_px, first.height_px, level.downsample_y),
        ):
            if abs(side * down - whole) > max(2 * down, 0.01 * whole):
                yield f"level {number} of {side} px is no {down:g}th of {whole} px"
        if number and level.width_px >= slide.reader_levels[number - 1].width_px:
            yield f"level {number} is not smaller than the one before"
    if slide.bounds is not None:
        left, top, width, height = slide.bounds
        if left < 0 or top < 0 or left + width > slide.width_px or top + height > slide.height_px:
            yield f"its scanned area {slide.bounds} lies outside it"


def _faults_of_box(slide: Slide, box: _Box, pixels: NDArray[np.uint8]) -> Iterator[str]:
    left, top, number, width, height = box
    level, where = slide.levels[number], f"at level {number}, x {left}, y {top} (px of the level)"
    half = width // 2, height // 2
    corners = [
        edge * down
        for start, step, down in ((left, half[0], level.downsample_x), (top, half[1], level.downsample_y))
        for edge in (start, start + step)
    ]
    if not all(float(edge).is_integer() for edge in corners):
        return  # between pixels of level 0 readers may interpolate
    parts = [
        _read(slide, (left + x, top + y, number, wide, high))
        for y, high in ((0, half[1]), (half[1], height - half[1]))
        for x, wide in ((0, half[0]), (half[0], width - half[0]))
    ]
    if (np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])]) != pixels).any():
        yield f"four quarters are not their whole {where}"
    place = round(left * level.downsample_x), round(top * level.downsample_y)
    alpha = np.asarray(slide.read_region(place, number, (width, height)))[:, :, 3]
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    inside_y, inside_x = (rows >= 0) & (rows < level.height_px), (columns >= 0) & (columns < level.width_px)
    if alpha[~np.outer(inside_y, inside_x)].any():
        yield f"what lies outside the slide is not transparent {where}"


def _boxes(slide: Slide) -> list[_Box]:
    """On each level around the corners, half outside, and in the middle, with odd sides."""
    boxes = []
    for number, level in enumerate(slide.levels):
        edge = min(_EDGE_PX, max(2, min(level.width_px, level.height_px))) | 1
        xs, ys = (
            [-(edge // 2), (side - edge) // 2, side - edge // 2] for side in (level.width_px, level.height_px)
        )
        boxes += [(x, y, number, edge, edge - 2 or 1) for x in xs for y in ys]
    return boxes


def _read(slide: Slide, box: _Box) -> NDArray[np.uint8]:
    left, top, number, width, height = box
    level = slide.levels[number]
    # Rounded up: a reader that rounds down then comes to this pixel and no other.
    x, y = (int(np.ceil(left * level.downsample_x)), int(np.ceil(top * level.downsample_y)))
    return slide.read_region(x, y, number, width, height)


def _faults_of_closing(path: Path) -> Iterator[str]:
    before = _open_files()
    slide = open_slide(path)
    slide.read_region(0, 0, 0, 1, 1)
    slide.close()
    slide.close()
    if left := _open_files() - before:
        yield f"closing leaves files open ({', '.join(sorted(Path(name).name for name in left))})"
    try:
        slide.read_region(0, 0, 0, 1, 1)
    except SlideError:
        return
    yield "it can be read after closing"


def _open_files() -> Counter[str]:
    """How often this process has each file open, by its path; none where the system doesn't tell."""
    found: Counter[str] = Counter()
    for entry in os.scandir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():  # noqa: PTH112
        try:
            found[os.readlink(entry.path)] += 1  # noqa: PTH115
        except OSError:  # the descriptor of this listing
            continue
    return Counter({name: count for name, count in found.items() if Path(name).is_file()})


def _faults_elsewhere(path: Path) -> Iterator[str]:
    with open_slide(path) as slide:
        here = _digest(slide)
    (found,) = find_slides(path)
    content = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder, "other", path.name), Path(folder, "half", path.name)
        for copy, damaged in zip(copies, (b"no slide\n" * 999, content[: len(content) // 2]), strict=True):
            copy.parent.mkdir()
            copy.write_bytes(damaged)
        for file in found.companions:
            target = copies[1].parent / file.relative_to(path.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        answers, end = _answers_elsewhere((path, *copies))
    if answers and answers[0] != here:
        yield "another process reads other pixels"
    for what, answer in zip(("a file of other content", "half a file"), answers[1:], strict=False):
        if not answer.startswith("refused") and not found.companions:
            yield f"{what} passes for a sound one"
    if len(answers) < 3:
        what = ("reading in another process", "a file of other content", "half a file")[len(answers)]
        yield f"{what} ends the process ({end})"


def _digest(slide: Slide) -> str:
    digest = hashlib.sha256()
    for box in _boxes(slide):
        digest.update(_read(slide, box).tobytes())
    return digest.hexdigest()


def _answers_elsewhere(paths: Sequence[Path]) -> tuple[list[str], str]:
    """What another process tells of files, in their order, as far as it came; and how it ended."""
    call = f"from wsi_ncmi.slides.testing import _answer; _answer({list(map(str, paths))!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, env=environment)  # noqa: S603
    told = [line.removeprefix(_TOLD) for line in done.stdout.splitlines() if line.startswith(_TOLD)]
    return told, f"code {done.returncode}: {done.stderr[-200:]}"


def _answer(paths: Sequence[str]) -> None:
    """Prints the digest of each slide's pixels, or why it is refused."""
    for path in paths:
        try:
            with open_slide(path) as slide:
                answer = _digest(slide)
        except SlideError as error:
            answer = f"refused: {error}"
        print(f"{_TOLD}{answer}", flush=True)

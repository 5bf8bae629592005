"""The interface to a whole-slide image, shared by all readers.

:class:`Slide` is a template method: the public :meth:`Slide.read_region` validates the request, composites
transparency and turns every failure into one error that names file, level and box; a reader only implements
the private :meth:`Slide._read`. Label and macro images (they carry patient data) have no place in it.
"""

from __future__ import annotations

import operator
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError, SlideOpenError, SlideReadError, plain_reason
from wsi_ncmi.slides.openslide_names import OpenSlideNames

if TYPE_CHECKING:
    from PIL import Image

    from wsi_ncmi.slides.dicom_frames import DicomLevel

_WHITE = (255, 255, 255)
_HEX_COLOUR = re.compile(r"#?([0-9A-Fa-f]{6})")


def background_colour(properties: Mapping[str, str]) -> tuple[int, int, int]:
    """The RGB colour of places without pixels.

    Args:
        properties: A slide's properties; ``openslide.background-color`` is six hex digits where present.

    Returns:
        ``(red, green, blue)``, white when the property is absent or malformed.
    """
    match = _HEX_COLOUR.fullmatch(properties.get("openslide.background-color", "").strip())
    if match is None:
        return _WHITE
    value = int(match.group(1), 16)
    return (value >> 16, (value >> 8) & 0xFF, value & 0xFF)


def composite(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Composites straight RGBA over a colour, with the same rounding as ``PIL.Image.composite``.

    That is what OpenSlide's own DeepZoom generator does with its regions, so both give the same pixels.

    Args:
        pixels: uint8 ``(H, W, 4)`` straight RGBA, or ``(H, W, 3)`` RGB, which is passed on.
        background: RGB colour under the transparent pixels.

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous and writable.
    """
    if pixels.shape[2] == 3:
        return np.require(pixels, requirements=["C", "W"])
    import cv2  # not where a slide's facts alone are read

    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=rgb)
    alpha = pixels[:, :, 3]
    if alpha.min() == 255:
        return rgb
    # Most places are opaque or, where tiles are absent, wholly transparent: only the few others are blended.
    rgb[alpha == 0] = background
    blend = (alpha > 0) & (alpha < 255)
    if blend.any():
        weight = alpha[blend].astype(np.uint32)[:, None]
        under = np.asarray(background, dtype=np.uint32)[None, :]
        mixed = rgb[blend] * weight + under * (255 - weight) + 128
        rgb[blend] = ((mixed + (mixed >> 8)) >> 8).astype(np.uint8)
    return rgb


MAX_REGION_PX = 1 << 27
"""Largest region of one read in pixels (512 MiB as RGBA); larger areas are read block by block."""

MAX_SIDE_PX = 10_000_000
"""Largest believable side of a slide in pixels; 10^7 px at 0.1 µm are a metre of glass."""

MAX_SLIDE_PX = 1_000_000_000_000
"""Largest believable slide in pixels: ten times ten centimetres of glass at 0.1 µm."""


@dataclass(frozen=True)
class Level:
    """One level of a slide's pyramid.

    Attributes:
        width_px: Width of the level in its own pixels.
        height_px: Height of the level in its own pixels.
        downsample_x: Level-0 pixels for one pixel of this level along x (1.0 at level 0).
        downsample_y: The same along y.
    """

    width_px: int
    height_px: int
    downsample_x: float
    downsample_y: float

    def __str__(self) -> str:
        return f"{self.width_px} × {self.height_px} px"


# Sides of levels are rounded to whole pixels, each up or down; beyond that, levels that are padded or cropped
# by less than this do not displace what is read from them by more.
_UNEVEN = 0.01


def _is_uneven(first: Level, level: Level) -> bool:
    """True if the downsamples of a level disagree by more than rounding: it is of another framing."""
    low, high = zip(
        *((whole / (side + 1), whole / max(side - 1, 0.5)) for whole, side in (
            (first.width_px, level.width_px), (first.height_px, level.height_px)
        )), strict=True,
    )  # fmt: skip
    ratio = level.downsample_x / level.downsample_y
    return max(low) > min(high) and max(ratio, 1 / ratio) > 1 + _UNEVEN


class Slide(OpenSlideNames, AbstractContextManager["Slide"]):
    """An open whole-slide image. Reading from several threads is safe; use it as a context manager.

    Attributes:
        path: The file (only its name appears in messages).
        files: The file; of a DICOM slide all of its files, this one first.
        reader: Name of the reader in the registry, for example ``openslide``.
        vendor: The scanner format as the reader names it, for example ``aperio``.
        reader_levels: All levels that the reader finds.
        properties: Metadata under OpenSlide's names (``openslide.mpp-x``, ``tiff.XResolution``…), read-only.
        pages: tifffile's page of each of ``reader_levels``, where they were looked for; else empty.
        dicom_levels: Of a DICOM series, the ``reader_levels`` as they lie in its files; else empty.
    """

    pages: Sequence[Any] = ()
    dicom_levels: tuple[DicomLevel, ...] = ()

    def __init__(
        self,
        path: Path,
        *,
        reader: str,
        vendor: str,
        levels: Sequence[Level],
        properties: Mapping[str, str],
        note: str = "",
    ) -> None:
        for number, level in enumerate(levels):
            sides = (level.width_px, level.height_px)
            if min(sides) < 1 or max(sides) > MAX_SIDE_PX or sides[0] * sides[1] > MAX_SLIDE_PX:
                raise SlideOpenError(
                    f"{path.name}: level {number} claims to be {sides[0]} × {sides[1]} px, "
                    "which no slide is; the header is damaged, copy or export the slide again."
                )
        if not levels:
            raise SlideOpenError(f"{path.name}: no image level was found; export the slide again.")
        self.path = path
        self.files: tuple[Path, ...] = (path,)
        self.reader = reader
        self.vendor = vendor
        self.reader_levels = tuple(levels)
        self._kept_levels, self._numbers = self.reader_levels, tuple(range(len(levels)))
        self.properties: Mapping[str, str] = MappingProxyType(dict(properties))
        self._note = note
        self._check: Callable[[Slide], None] | None = None
        self._checking, self._check_lock = False, threading.RLock()
        self._background = background_colour(self.properties)
        self._closed = False
        self._close_lock = threading.Lock()
        for level in levels[1:]:
            if _is_uneven(levels[0], level):
                ratios = f"{level.downsample_x:.4g} × {level.downsample_y:.4g}"
                self.leave_out(level, f"a pixel of it would be {ratios} of the first level, not a square")

    def leave_out(self, level: Level, reason: str) -> None:
        """Takes a level out of :attr:`levels`, with a remark in :attr:`note`; before anything is read.

        Args:
            level: One of them, not the first.
            reason: Reason why its pixels are not those of the slide, as half a sentence.
        """
        # Not by value: a second page of the first one's size is equal to it.
        place = next(place for place, each in enumerate(self.levels) if each is level)
        remark = f"Level {self.numbers[place]} of {level} is not used: {reason}."
        self._note = f"{self._note} {remark}".strip()
        self._kept_levels = self._kept_levels[:place] + self._kept_levels[place + 1 :]
        self._numbers = self._numbers[:place] + self._numbers[place + 1 :]

    def check_before_use(self, check: Callable[[Slide], None]) -> None:
        """Has levels checked before anyone sees them: at the first look at them, or at :attr:`note`.

        Args:
            check: Leaves out (:meth:`leave_out`) what is wrong.
        """
        self._check = check

    def _settle(self) -> None:
        """Makes the check that is due; other threads wait for it."""
        if self._check is None:
            return
        with self._check_lock:
            if self._check is not None and not self._checking:  # the check itself asks for levels
                self._checking = True
                try:
                    self._check(self)
                    self._check = None
                finally:
                    self._checking = False

    @property
    def levels(self) -> tuple[Level, ...]:
        """Pyramid levels, finest first, without those that were left out."""
        self._settle()
        return self._kept_levels

    @property
    def numbers(self) -> tuple[int, ...]:
        """Place of each level among ``reader_levels``."""
        self._settle()
        return self._numbers

    @property
    def note(self) -> str:
        """Empty, or sentences about the reader that is used and levels that are not (for the ledger)."""
        self._settle()
        return self._note

    @note.setter
    def note(self, text: str) -> None:
        self._note = text

    @property
    def bounds(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the scanned area in level-0 pixels, where stated (MIRAX, SCN).

        QuPath shows this area alone and counts pixels from its corner, if all four are whole numbers.
        """
        texts = [
            self.properties.get(f"openslide.bounds-{name}", "") for name in ("x", "y", "width", "height")
        ]
        try:
            left, top, width, height = map(int, texts)
        except ValueError:
            return None
        return left, top, width, height

    @property
    def origin(self) -> tuple[int, int]:
        """Level-0 pixel from which QuPath counts: the corner of the scanned area."""
        return (0, 0) if self.bounds is None else self.bounds[:2]

    @property
    def width_px(self) -> int:
        """Width of level 0 in pixels."""
        return self.reader_levels[0].width_px

    @property
    def height_px(self) -> int:
        """Height of level 0 in pixels."""
        return self.reader_levels[0].height_px

    @overload
    def read_region(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]: ...
    @overload
    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image: ...
    def read_region(  # noqa: D417 - arguments of the second form
        self, *arguments: Any, **named: Any
    ) -> NDArray[np.uint8] | Image.Image:
        """Reads a rectangle of one level, as RGB numbers or as OpenSlide does.

        ``read_region(location, level, size)`` is OpenSlide's: a PIL image, RGBA, transparent where the slide
        has no pixels; ``np.asarray`` makes (h, w, 4) of it. Wrong arguments of this form are an InputError.
        What follows is about ``read_region(x_level0, y_level0, level, width_px, height_px)``.

        Transparent pixels (absent tiles, areas outside the slide) get the slide's own background colour
        (property ``openslide.background-color``), white when it has none: OpenSlide's convention.

        Args:
            x_level0: Left edge in level-0 pixels; it may lie outside the slide.
            y_level0: Top edge in level-0 pixels; it may lie outside the slide.
            level: Index into :attr:`levels`.
            width_px: Width of the result in pixels of ``level``.
            height_px: Height of the result in pixels of ``level``.

        Returns:
            uint8 array of shape ``(height_px, width_px, 3)``, RGB, C-contiguous, owned by the caller.

        Raises:
            TypeError: An argument is no integer (a bug in the caller: rounding is the grid's business).
            ValueError: The level does not exist, or the size is not positive or above ``MAX_REGION_PX``.
            SlideReadError: The pixels can't be read; the slide stays usable for other regions.
        """
        if len(arguments) + len(named) == 3:
            return self._read_as_openslide(*arguments, **named)
        pixels = self._read_checked(*arguments, **named)
        return composite(pixels, self._background)

    def _read_as_openslide(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        from PIL import Image

        try:
            (x, y), (width, height) = location, size
            pixels = self._read_checked(x, y, level, width, height)
        except (TypeError, ValueError) as error:
            raise InputError(
                "read_region takes the (x, y) of the corner in level-0 pixels, a level, and (width, height) "
                f"in its pixels, all whole numbers; got {location!r}, {level!r}, {size!r} ({error})"
            ) from error
        return Image.fromarray(pixels).convert("RGBA")

    def _read_checked(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        x, y, level, width, height = (
            _integer(name, value)
            for name, value in (
                ("x_level0", x_level0), ("y_level0", y_level0), ("level", level),
                ("width_px", width_px), ("height_px", height_px),
            )
        )  # fmt: skip
        if level and not 0 < level < len(self.levels):  # the first one needs no check
            raise ValueError(f"{self.path.name} has levels 0 to {len(self.levels) - 1}, not {level}.")
        if width < 1 or height < 1 or width * height > MAX_REGION_PX:
            raise ValueError(f"A region of {width} × {height} px is not between 1 and {MAX_REGION_PX} px.")
        if self._closed:
            raise SlideReadError(f"{self._where(level, x, y, width, height)}: the slide is closed.")
        try:
            pixels = self._read(x, y, self.numbers[level] if level else 0, width, height)
        except Exception as error:
            # Decoders raise whatever they like (OSError, RuntimeError, struct.error…): all mean the same.
            reason = plain_reason(error, self.path)
            raise SlideReadError(f"{self._where(level, x, y, width, height)}: {reason}") from error
        if pixels.dtype != np.uint8 or pixels.shape not in ((height, width, 3), (height, width, 4)):
            raise SlideReadError(
                f"{self._where(level, x, y, width, height)}: the reader {self.reader} returned "
                f"{pixels.dtype} {pixels.shape} instead of 8-bit RGB pixels."
            )
        return pixels

    def _where(self, level: int, x: int, y: int, width: int, height: int) -> str:
        return (
            f"{self.path.name} can't be read at level {level}, x {x}, y {y} (level-0 px), "
            f"size {width} × {height} px"
        )

    @abstractmethod
    def _read(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """Reads a validated region: uint8 ``(height_px, width_px, 3)`` RGB or ``(…, 4)`` straight RGBA.

        ``level`` counts in :attr:`reader_levels`.
        Areas outside the slide have alpha 0. Any exception means that the region can't be read.
        """

    def _close(self) -> None:
        """Releases the reader's handle; called once."""

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; a second call does nothing."""
        with self._close_lock:
            if not self._closed:
                self._closed = True
                self._close()


def _integer(name: str, value: object) -> int:
    # operator.index takes Python and numpy integers and refuses floats, which would be rounded unseen.
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not a bool.")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}.") from None


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class LevelPart:
    """A rectangle of a level.

    Attributes:
        pixels: uint8 (h, w, 3); holds at least what was asked for.
        left: Pixel of the level at which its left edge lies.
        top: The same of its upper edge.
        factor: Pixels of the level in one of these, along each side.
    """

    pixels: NDArray[np.uint8]
    left: int
    top: int
    factor: int = 1


class LevelReader(AbstractContextManager["LevelReader"]):
    """Reads rectangles of one level through the slide's reader; use it as a context manager.

    Args:
        slide: The open slide; it has to stay open.
        level: Index of the level.
        most: By how much a rectangle may be reduced along each side, 1 or more.

    Attributes:
        level: The level.
    """

    def __init__(self, slide: Slide, level: int, most: float) -> None:
        self._slide, self._number, self.level = slide, level, slide.levels[level]
        # Placed by the mean of both downsamples, as readers do.
        self._down = (self.level.downsample_x + self.level.downsample_y) / 2

    def read(self, left: int, top: int, right: int, bottom: int) -> LevelPart:
        """Reads a rectangle.

        Args:
            left: Left edge in pixels of the level, inside it as all edges.
            top: Upper edge.
            right: Behind the last column.
            bottom: Behind the last row.

        Raises:
            SlideReadError: It can't be read.
        """
        x, y = round(left * self._down), round(top * self._down)
        return LevelPart(self._slide.read_region(x, y, self._number, right - left, bottom - top), left, top)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what was opened for reading; the slide stays open."""

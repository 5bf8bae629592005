"""OpenSlide's names of a slide's properties, and how a slide is shown."""

from __future__ import annotations

import base64
import io
import pkgutil
from html import escape
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.errors import InputError, MissingMppError, counted

if TYPE_CHECKING:
    from PIL import Image


class OpenSlideNames:
    """Properties of :class:`~wsi_ncmi.slides.Slide` under the names that OpenSlide's users know."""

    @property
    def _slide(self) -> Any:
        return self

    @property
    def mpp(self) -> float | None:
        """µm per level-0 pixel, the mean of both axes; None where the slide doesn't say it.

        How it is found, and what is believed, is :func:`resolve_mpp`'s.
        """
        resolve_mpp = pkgutil.resolve_name("wsi_ncmi.slides.mpp:resolve_mpp")  # which knows slides itself
        try:
            return float(resolve_mpp(self._slide).mean)
        except MissingMppError:
            return None

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 (OpenSlide's name)."""
        return self._slide.width_px, self._slide.height_px

    @property
    def level_count(self) -> int:
        """Number of levels that are used (OpenSlide's name)."""
        return len(self._slide.levels)

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each level (OpenSlide's name)."""
        return tuple((level.width_px, level.height_px) for level in self._slide.levels)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels for one pixel of each level, the mean of both axes (OpenSlide's name)."""
        return tuple((level.downsample_x + level.downsample_y) / 2 for level in self._slide.levels)

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """The coarsest level that is at least as fine as asked (OpenSlide's name)."""
        try:
            downsample = float(downsample)
        except (TypeError, ValueError):
            raise InputError(f"A downsample is a number, got {described(downsample)}.") from None
        fine = [n for n, each in enumerate(self.level_downsamples) if each <= downsample]
        return fine[-1] if fine else 0

    def get_thumbnail(self, size: tuple[int, int]) -> Image.Image:
        """The whole slide as a picture that fits into ``size`` (OpenSlide's name)."""
        from PIL import Image

        thumbnail = pkgutil.resolve_name("wsi_ncmi.slides.overview:thumbnail")
        try:
            width, height = (int(edge) for edge in size)
        except (TypeError, ValueError, OverflowError):
            width = height = 0
        if min(width, height) < 1:
            raise InputError(f"The size of a thumbnail is (width, height) of at least 1 px, got {size!r}.")
        picture = Image.fromarray(thumbnail(self._slide, max(width, height)))
        picture.thumbnail((width, height))
        return picture

    def __repr__(self) -> str:
        mpp = f"{self.mpp:.4g} µm per pixel" if self.mpp is not None else "no resolution"
        levels = counted(self.level_count, "level")
        size = f"{self._slide.width_px} × {self._slide.height_px} px"
        kind = self._slide.vendor or self._slide.reader
        return f"<Slide {self._slide.path.name}: {size}, {mpp}, {levels}, {kind}>"

    def _repr_html_(self) -> str:
        """The slide in a notebook: a thumbnail of its tissue (never its label), and what it is."""
        buffer = io.BytesIO()
        if not self._slide._closed:
            self.get_thumbnail((320, 320)).save(buffer, "JPEG")
        picture = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img alt="" src="data:image/jpeg;base64,{picture}"><br>' if picture else ""
        return f"<div>{shown}{escape(repr(self).strip('<>'))}</div>"

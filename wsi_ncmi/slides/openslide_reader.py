"""The reference reader: OpenSlide, for every format that it opens."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides.base import Level, Slide
from wsi_ncmi.slides.dicom_reader import check_openslide_dicom
from wsi_ncmi.slides.dicom_series import LinkFolder
from wsi_ncmi.slides.jpeg2000 import Jpeg2000Guard


class OpenSlideSlide(Slide):
    """A slide read through OpenSlide; embedded colour profiles are left alone.

    After a failed read an OpenSlide handle answers every further read with the same error. So that one bad
    tile does not cost the rest of the slide, a failed region is tried once more with a fresh handle, which
    also tells a bad region from a good one that another thread's failure has spoilt.

    A DICOM series that OpenSlide would show in wrong colours is refused.
    Damaged JPEG 2000 tiles (Aperio, DICOM), of which OpenSlide gives pixels, fail before it is asked.

    Args:
        path: The file.
        files: All files of a DICOM slide, which may lie in several folders; others need none.
    """

    def __init__(self, path: Path, files: Sequence[Path] = ()) -> None:
        import openslide

        self._failure: type[Exception] = openslide.OpenSlideError
        self._library: Any = openslide.OpenSlide
        self._opened = path
        self._lock = threading.Lock()
        self._guard: Jpeg2000Guard | None = None  # made when the first region is read
        with contextlib.ExitStack() as held:
            if files:
                links = LinkFolder(files)
                held.callback(links.close)
                self._opened = links.main
            self._handle: Any = self._open()
            held.callback(lambda: self._handle.close())
            width, height = self._handle.dimensions
            super().__init__(
                path,
                reader="openslide",
                vendor=self._handle.properties.get("openslide.vendor", ""),
                levels=[
                    Level(w, h, width / w if w else 1.0, height / h if h else 1.0)
                    for w, h in self._handle.level_dimensions
                ],
                # Not even the sizes of label and macro images are taken over.
                properties={
                    key: value
                    for key, value in self._handle.properties.items()
                    if not key.startswith("openslide.associated.")
                },
            )
            self.files = tuple(files) or (path,)
            if self.vendor == "dicom":
                sizes = [(level.width_px, level.height_px) for level in self.reader_levels]
                self.dicom_levels = check_openslide_dicom(self.files, sizes)
            self._held = held.pop_all()

    def _open(self) -> Any:
        return self._library(self._opened)

    def _read(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        with self._lock:
            self._guard = self._guard or Jpeg2000Guard(self)
        self._guard.check(x_level0, y_level0, level, width_px, height_px)
        request = (x_level0, y_level0), level, (width_px, height_px)
        handle = self._handle
        try:
            return np.asarray(handle.read_region(*request))
        except self._failure:
            with self._lock:
                if self._closed:
                    raise SlideReadError("the slide was closed") from None
                # The spoilt handle is let go, not closed: other threads may be inside it; the last frees it.
                if self._handle is handle:
                    self._handle = self._open()
                fresh = self._open()
            try:
                return np.asarray(fresh.read_region(*request))
            finally:
                fresh.close()

    def _close(self) -> None:
        with self._lock:
            self._held.close()

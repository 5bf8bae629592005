"""The registry of slide readers, in the order in which they are tried."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides.base import Slide


@dataclass(frozen=True)
class Reader:
    """One way to open slides.

    Attributes:
        name: Its name for users, in ledgers and in feature files.
        open: Opens a local file; raises whatever it likes.
        unavailable: Empty text where the reader works on this machine, else the reason.
        open_remote: Opens an fsspec address such as ``s3://bucket/slide.svs``, where the reader can.
        open_dicom: Opens a DICOM slide by one of its files and all of them, where the reader can.
    """

    name: str
    open: Callable[[Path], Slide]
    unavailable: Callable[[], str]
    open_remote: Callable[[str], Slide] | None = None
    open_dicom: Callable[[Path, Sequence[Path]], Slide] | None = None

    @property
    def is_available(self) -> bool:
        """True if the reader works on this machine."""
        return not self.unavailable()


def _open_with(module: str, name: str) -> Callable[..., Slide]:
    """Opens with a class of a module of this package, which is imported at the first call."""

    def opened(*named: Any) -> Slide:
        slide: Slide = getattr(importlib.import_module(f"wsi_ncmi.slides.{module}"), name)(*named)
        return slide

    return opened


def list_readers() -> tuple[Reader, ...]:
    """All readers in the order in which :func:`~wsi_ncmi.slides.opening.open_slide` asks them."""
    return _READERS


def get_reader(name: str) -> Reader:
    """The reader of a name.

    Raises:
        InputError: There is none; the message lists those that exist.
    """
    readers = {reader.name: reader for reader in list_readers()}
    if name not in readers:
        raise InputError(f"There is no slide reader {name!r}; choose auto or one of {', '.join(readers)}.")
    return readers[name]


def import_reason(module: str) -> str:
    """The reason why a module can't be imported (a missing package or shared library), or an empty text."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken shared library raises OSError, a half install anything
        return f"the package {module} can't be loaded ({error})"
    return ""


PAGES_READER = "tifffile"
"""Name of the reader that is asked only for what the others don't see: levels in sub-directories of TIFF
files, and the slide of an OME-TIFF that begins with another image."""

DICOM_READER = "dicom"
"""Name of the reader that opens DICOM alone."""

_TIFFSLIDE = _open_with("tiffslide_reader", "TiffSlideSlide")
_OPENSLIDE = _open_with("openslide_reader", "OpenSlideSlide")
_DICOM = _open_with("dicom_reader", "DicomSlide")
_READERS = (
    Reader(
        name="openslide",
        open=_OPENSLIDE,
        open_dicom=_OPENSLIDE,
        unavailable=lambda: import_reason("openslide"),
    ),
    Reader(
        name="tiffslide",
        open=_TIFFSLIDE,
        unavailable=lambda: import_reason("tiffslide"),
        open_remote=_TIFFSLIDE,
    ),
    Reader(
        name="image",
        open=_open_with("image_reader", "FlatImageSlide"),
        unavailable=lambda: import_reason("PIL"),
    ),
    Reader(
        name=DICOM_READER,
        open=_DICOM,
        open_dicom=_DICOM,
        unavailable=lambda: import_reason("pydicom"),
    ),
    Reader(
        name=PAGES_READER,
        open=_open_with("pages_reader", "TiffPagesSlide"),
        unavailable=lambda: import_reason("tifffile"),
    ),
)
